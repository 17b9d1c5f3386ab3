"""What is left of clients that were closed or dropped: no thread, no descriptor, no warning, and no call."""

import random

import pytest

from support.programs import run_at_once, run_source
from support.servers import RunningServer, free_port, wait_until

COUNTED = """
import gc, os, sys, threading, time, weakref
from greentask import Client, Pool
from greentask.hub import home as homes
from support.conditions import wait_until
def count(): return len(os.listdir("/proc/self/task")), len(os.listdir("/proc/self/fd")), threading.active_count()
def is_as_before(what): wait_until(lambda: count() == before, f"{what}: {before}, and not {count()}", 10)
gc.collect()
before = count()
"""

CLOSED = """
with Client(sys.argv[1]) as client:
    assert client.call("echo", 1) == 1
    assert list(client.map("echo", range(100))) == list(range(100))
    assert count() != before
is_as_before("closed")
assert client.call("echo", 2) == 2  # by the same one, and a new thread
client.close()
client.close()
is_as_before("closed again")
client = Client(sys.argv[1])
with client.executor() as executor:
    assert list(executor.map("echo", range(100))) == list(range(100))
del client, executor
gc.collect()
is_as_before("an executor")
with Client([sys.argv[1], sys.argv[2]]) as client:  # of which one isn't there: it is tried again, until the close
    for number in range(20): assert client.call("echo", number) == number
is_as_before("one of several servers")
with Client(f"localhost:{sys.argv[1].rpartition(':')[2]}") as client:
    assert client.call("echo", 3) == 3  # the name was looked up in threads of gevent's
is_as_before("a name")
"""

DROPPED = """
client = Client(sys.argv[1])
assert client.call("echo", 1) == 1
del client
gc.collect()
is_as_before("dropped")
future = Client(sys.argv[1]).submit("nap", 0.2)
gc.collect()
assert future.result() == 0.2
del future
is_as_before("dropped with a call in flight")
client = Client(sys.argv[1])
client.me = client
items = client.stream("count", 100)
next(items)
del client, items
gc.collect()
is_as_before("dropped with a stream")
client = Client(sys.argv[1])
client.call("echo", 1)
client.close()
is_as_before("closed")
del client
gc.collect()
assert count() == before, "no thread is started to tell that it is gone"
"""

POOLS = """
with Pool(2) as pool: assert pool.submit(pow, 2, 5).result() == 32
is_as_before("a pool that was shut down")
pool = Pool(1)
assert pool.submit(pow, 2, 5).result() == 32
del pool
gc.collect()
is_as_before("a pool that was dropped")
with Pool(1, preload=["no_such_module"]) as pool:
    assert "no_such_module" in str(pool.submit(pow, 2, 5).exception())
    time.sleep(1.0)  # it is tried again meanwhile, with pauses
    assert "no_such_module" in str(pool.submit(pow, 2, 5).exception())
is_as_before("a pool that has never begun")
"""


@pytest.mark.parametrize("source", [CLOSED, DROPPED, POOLS], ids=["closed", "dropped", "pools"])
def test_nothing_is_left(server: RunningServer, source: str) -> None:
    assert run_source(COUNTED + source, server.address, f"127.0.0.1:{free_port()}") == []


RACES = """
import os, random, sys, threading, time
from greentask import Client
from greentask.hub import home as homes
from support.conditions import wait_until
seed, fork = int(sys.argv[2]), sys.argv[3] == "fork"
sys.setswitchinterval(1e-4)
homes._LINGERS = 0.001
shared, wrong, starts = Client(sys.argv[1], timeout=20), [], []
start = homes._start_thread
homes._start_thread = lambda *args: starts.append(1) or start(*args)
def use(client, what):
    future = client.submit("echo", what)
    if (got := client.call("echo", what), future.result()) != (what, what): wrong.append((what, got))
def run(number):
    chance = random.Random(seed + number)
    for turn in range(60):
        what = f"{number} {turn}"
        try:
            if turn % 3 == 0:
                with Client(sys.argv[1], timeout=20) as client: use(client, what)
            elif turn % 3 == 1: use(Client(sys.argv[1], timeout=20), what)
            else: use(shared, what)
            if number == 0: shared.close()
        except BaseException as error:
            if "the client was closed" not in str(error): wrong.append((what, repr(error)))
        if chance.random() < 0.5: time.sleep(chance.uniform(0.0, 0.02))
threads = [threading.Thread(target=run, args=(number,)) for number in range(4)]
for thread in threads: thread.start()
codes = []
while any(thread.is_alive() for thread in threads):
    time.sleep(0.02)
    if fork and len(codes) < 10:
        if not (child := os.fork()):
            os._exit(0 if [client.call("echo", 5) for client in (shared, Client(sys.argv[1]))] == [5, 5] else 3)
        codes.append(os.waitpid(child, 0)[1])
shared.close()
assert not any(codes), codes
assert not wrong, (seed, wrong[:5])
wait_until(lambda: len(os.listdir("/proc/self/task")) == 1, "its thread has ended")
print(len(starts) > 3)
"""


def test_clients_that_come_and_go_race_with_its_end(server: RunningServer) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    assert run_at_once(RACES, [[server.address, str(seed), "no fork"]]) == [["True"]]
    assert run_at_once(RACES, [[server.address, str(seed), "fork"]]) == [["True"]]
    wait_until(lambda: server.status()["connections"] == 0, "all are closed")


def test_a_program_that_makes_a_client_for_each_request_keeps_the_thread(server: RunningServer) -> None:
    program = """
import sys, threading
from greentask import Client
from greentask.hub.home import find_home
threads = set()
def request(number):
    with Client(sys.argv[1]) as client: assert client.call("echo", number) == number
    threads.add(find_home().thread)
for number in range(50): request(number)
print(len(threads), 0 in threads)
"""
    assert run_source(program, server.address) == ["1", "False"]


def test_exit_handlers_may_call_whether_it_has_ended_or_not(server: RunningServer) -> None:
    program = """
import atexit, os, sys, time
from greentask import Client
from greentask.hub import home as homes
from support.conditions import wait_until
homes._LINGERS = 0.001
client = Client(sys.argv[1])
def last(): print(client.call("echo", "last"), Client(sys.argv[1]).call("echo", "new"), flush=True)
atexit.register(last)
client.call("echo", 1)
if sys.argv[2] != "open": client.close()
if sys.argv[2] == "ended": wait_until(homes.find_home().is_deserted, "its end")
"""
    for kind, words in zip(
        ("open", "closed", "ended"),
        run_at_once(program, [[server.address, kind] for kind in ("open", "closed", "ended")]),
    ):
        assert words == ["last", "new"], kind


SIGNALS = """
import signal, sys, threading, time
from greentask import Client, default_client, configure
from greentask.client import default
client, told = Client(sys.argv[1]), []
executor = client.executor()
def handle(*_):
    for kind in (executor, default_client()):
        number = len(told)
        told.append((number, kind.submit("echo", number)))
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0007)
until = time.monotonic() + 1.0
while time.monotonic() < until:
    assert executor.submit("echo", "here").result() == "here"
    default._client = None
    assert default_client().submit("echo", "there").result() == "there"
    client._core._router, before = None, client._core._router
    assert client.call("echo", "over a new connection") == "over a new connection"
    if before is not None: before.home.post(before.leave)
signal.setitimer(signal.ITIMER_REAL, 0)
assert all(future.result() == number for number, future in told)
print(len(told) > 100)
"""


def test_signal_handlers_may_submit_in_the_midst_of_anything(server: RunningServer) -> None:
    """Their thread may just then hold a lock, make a connection or start the thread."""
    assert run_source(SIGNALS, server.address, GREENTASK_URL=server.address) == ["True"]


def test_a_signal_handler_may_cancel_what_its_thread_waits_for(server: RunningServer) -> None:
    program = """
import signal, sys, threading, time
from concurrent.futures import CancelledError
from greentask import Client
client, main = Client(sys.argv[1]), threading.main_thread().ident
signal.signal(signal.SIGUSR1, lambda *_: future.cancel())
def interrupt(delay):
    time.sleep(delay)
    signal.pthread_kill(main, signal.SIGUSR1)  # the kernel may choose another thread, which would wake nobody
sys.setswitchinterval(1e-5)
for delay in (0.0, 0.0001, 0.0003, 0.001, 0.003) * 40:
    future = client.submit("nap", 20)
    thread = threading.Thread(target=interrupt, args=(delay,))
    thread.start()
    try: future.result()
    except CancelledError: thread.join()
    else: raise AssertionError("it was not cancelled")
print("done")
"""
    assert run_source(program, server.address) == ["done"]
