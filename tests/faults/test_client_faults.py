"""What can happen to a client: servers that restart, die or lie, forks, and the interpreter's end at any moment.

Each test is named for its row in the list of faults that there are (N: network, O: operating system).
"""

import json
import random
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from greentask import Client, ConnectionLost
from support.names import naming
from support.peers import deaf, echoing, peer, silent
from support.programs import run_at_once, run_source, starting
from support.proofs import SECRET, proof_of
from support.servers import LineClient, RunningServer, serving, wait_until

BOTH = pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])
# Where a thread of its own makes it hard, and a patched program, which has none, has it easier.
PLAIN_AT_HAND = pytest.mark.parametrize(
    "patched", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "patched"]
)


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving(apps=["support.server_tasks", "support.client_tasks"]) as running:
        yield running


# ---- N2: a reset in the middle


@pytest.mark.parametrize(
    "before",
    [b"", b'{"id":1,"resu', b'{"id":1,"progress":{"done":1}}\n{"id":1,"pro', b'{"id":1,"item":1}\n'],
    ids=["nothing", "half a reply", "progress", "items"],
)
@pytest.mark.parametrize("way", ["call", "reporting", "submit", "stream"])
def test_n2_a_reset_ends_the_calls_in_flight_and_the_next_one_connects(way: str, before: bytes) -> None:
    resets = 0

    def behave(connection: LineClient) -> None:
        nonlocal resets
        if resets == 0:
            connection.hear()
            connection.send_bytes(before)
            resets += 1
            connection.reset()
        else:
            echoing(connection)

    with peer(behave) as server, Client(server.address) as client:
        ways: dict[str, Callable[[], object]] = {
            "call": lambda: client.call("f"),
            "reporting": lambda: client.using(progress=lambda _: None).call("f"),
            "submit": lambda: client.submit("f").result(20),
            "stream": lambda: list(client.stream("f")),
        }
        with pytest.raises(ConnectionLost) as caught:
            ways[way]()
        assert caught.value.sent is True
        assert client._core.router()._calls == {}
        assert client.call("f", "again") == "again"


def test_n10_the_kernel_is_told_to_ask_after_a_peer_that_is_silent() -> None:
    """What the client itself does against a pulled cable is in test_cable_faults; this is for want of it."""
    with peer(echoing) as server, Client(server.address) as client:
        client.call("f")
        sock = client._core.router()._links.all[0]._socket
        assert sock is not None
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT):
            assert 0 < sock.getsockopt(socket.IPPROTO_TCP, option) <= 10
        assert 0 < sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 30_000


# ---- N11: a restart under many calling clients

CALLING = """
import collections, signal, sys, time
import gevent
from greentask import Client, ConnectionLost, Draining
from support.servers import serving, wait_until
CLIENTS, TIMEOUT = 200, 10.0
how = getattr(signal, sys.argv[1])
outcomes, running, longest = collections.Counter(), True, 0.0
since = [0] * CLIENTS

def caller(number):
    global longest
    client, count = Client(address, timeout=TIMEOUT, gone_after=TIMEOUT), 0
    while running:
        count += 1
        value = [number, count]
        began = time.monotonic()
        try:
            outcomes["own" if client.call("echo", value) == value else "wrong"] += 1
            since[number] += 1
        except (ConnectionLost, Draining) as error:
            outcomes[type(error).__name__] += 1
            gevent.sleep(0.05)
        longest = max(longest, time.monotonic() - began)
        gevent.sleep(0.005)
    client.close()

with serving() as server:
    address = server.address
    callers = [gevent.spawn(caller, number) for number in range(CLIENTS)]
    wait_until(lambda: all(since), "every client has an answer")
    server.signal_all(how)
    server.wait()
    since[:] = [0] * CLIENTS
with serving(listen=[address]) as server:
    wait_until(lambda: all(since), "every client has an answer again")
    running = False
    gevent.joinall(callers, timeout=20, raise_error=True)
assert all(caller.successful() for caller in callers)
assert longest < TIMEOUT + 1, longest
print(outcomes.pop("wrong", 0), outcomes.pop("own") >= 2 * CLIENTS, outcomes.total() > 0)
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGKILL", "SIGTERM"])
def test_n11_a_restart_under_two_hundred_calling_clients_ends_every_call_truly(how: str) -> None:
    """And where it is stopped in good order, no call fails: those that it has not run wait for the next one."""
    assert run_source(CALLING, how, patched=True) == ["0", "True", str(how == "SIGKILL")]


@pytest.mark.slow
def test_n11_a_call_that_was_in_flight_when_the_server_died_says_that_it_was_sent() -> None:
    with serving() as server, Client(server.address, gone_after=0) as client:
        in_flight = [client.submit("nap", 30) for _ in range(5)]
        assert client.call("add", 1) == 1
        server.signal_all(signal.SIGKILL)
        errors = [future.exception(20) for future in in_flight]
        assert [error.sent for error in errors if isinstance(error, ConnectionLost)] == [True] * 5
        server.wait()
        with pytest.raises(ConnectionLost) as caught:
            client.call("add", 1)
        assert caught.value.sent is False
    with serving(listen=[server.address]), client:
        assert client.call("add", 2) == 2


# ---- N12: several addresses, some of them dead


def test_n12_calls_go_to_the_address_that_answers(server: RunningServer, unused_port: int) -> None:
    addresses = [f"127.0.0.1:{unused_port}", "unix:///nowhere", server.address]
    for address in (addresses, ",".join(addresses)):
        with Client(address) as client:
            assert client.call("add", 1, 2) == 3
            client.close()
            assert client.submit("add", 3).result(20) == 3


def test_n12_an_address_that_swallows_connections_costs_its_timeout_only(server: RunningServer) -> None:
    with deaf() as address, Client([address, server.address], connect_timeout=0.3) as client:
        began = time.monotonic()
        assert [client.call("add", number, 2) for number in range(3)] == [2, 3, 4]
        assert 0.25 < time.monotonic() - began < 5


def test_n12_nobody_waits_for_an_address_that_swallows_connections_while_another_one_answers() -> None:
    with deaf() as address, peer(echoing) as server, Client([address, server.address], connect_timeout=20) as client:
        began = time.monotonic()
        futures = [client.submit("f", number) for number in range(20)]
        assert [future.result(10) for future in futures] == list(range(20))
        assert [client.call("f", number) for number in range(20)] == list(range(20)), "none goes there"
        assert time.monotonic() - began < 3


def test_n12_where_all_swallow_connections_that_is_said_after_the_timeout_of_each() -> None:
    with deaf() as one, deaf() as other:
        client = Client([one, other], connect_timeout=0.6)
        with pytest.raises(ConnectionLost) as caught:
            client.call("f")
        assert str(caught.value).count("timed out") == 2


def test_n12_where_all_are_dead_each_is_named(unused_port: int) -> None:
    client = Client([f"127.0.0.1:{unused_port}", "unix:///nowhere"])
    with pytest.raises(ConnectionLost) as caught:
        client.call("add", 1)
    assert f"tcp://127.0.0.1:{unused_port}: Connection refused" in str(caught.value)
    assert "unix:///nowhere: No such file" in str(caught.value)
    assert caught.value.sent is False


def test_n12_when_one_dies_the_next_call_goes_to_another() -> None:
    with peer(echoing) as second:
        with peer(echoing) as first:
            client = Client([first.address, second.address])
            assert [client.call("f", number) for number in range(2)] == [0, 1]
            assert (len(first.connections), len(second.connections)) == (1, 1), "they take turns"
        wait_until(lambda: len(client._core.router()._links.all) == 1, "the end is noticed")
        assert [client.call("f", number) for number in range(4)] == [0, 1, 2, 3]
        assert len(second.connections) == 1
        client.close()


CALL_BY_NAME = """
import sys, time
from greentask import Client
client = Client(f"several.example:{sys.argv[1]}", connect_timeout=0.3)
for _ in range(2):
    print(client.call("echo", "by name"))
    client.close()
"""


@BOTH
@pytest.mark.parametrize("dead", ["refuses", pytest.param("swallows", marks=pytest.mark.slow)])
def test_n12_calls_go_to_the_living_one_of_the_addresses_that_a_name_has(
    server: RunningServer, dead: str, patched: bool
) -> None:
    """As told by a name server of the test's own."""
    with naming("127.0.0.2", "127.0.0.1") as names:
        if dead == "refuses":
            words = run_source(CALL_BY_NAME, str(server.port), patched=patched, **names)
        else:
            with deaf("127.0.0.2", server.port):
                words = run_source(CALL_BY_NAME, str(server.port), patched=patched, **names)
    assert words == ["by", "name"] * 2


# ---- N13: replies that nobody waits for


def test_n13_whatever_else_a_server_says_each_call_gets_its_own_answer_once() -> None:
    seed = random.randrange(2**32)
    strays = 0

    def lie(connection: LineClient) -> None:
        nonlocal strays
        dice = random.Random(seed)
        answered: list[int] = []
        while (line := connection.line()) is not None:
            call = json.loads(line)
            messages: list[dict[str, Any]] = [{"id": call["id"], "index": 0, "result": "an item of no batch"}]
            for _ in range(dice.randrange(4)):
                id = dice.choice([-1, 0, 10**9, "1", None, *answered[-5:]])
                kind = dice.choice(["result", "progress", "item"] if id is None else ["result", "error", "item"])
                messages.append({"id": id, kind: {"type": "Stray"} if kind == "error" else "stray"})
            strays += len(messages)
            connection.send(*messages, {"id": call["id"], "result": call["args"]})
            answered.append(call["id"])

    with peer(lie) as server, Client(server.address) as client:
        wrong: list[Any] = []

        def caller(thread: int) -> None:
            for number in range(50):
                if client.call("f", thread, number) != [thread, number]:
                    wrong.append((thread, number))

        threads = [threading.Thread(target=caller, args=(thread,)) for thread in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert wrong == [], f"seed {seed}"
        assert strays > 100
        assert client._core.router().dropped == strays, f"seed {seed}"


def test_n13_two_clients_never_get_each_others_answers() -> None:
    """Their ids are the same; their connections aren't."""
    with peer(echoing) as server, Client(server.address) as one, Client(server.address) as two:
        futures = [
            (client.submit("f", [name, n]), [name, n]) for n in range(100) for client, name in ((one, 1), (two, 2))
        ]
        assert all(future.result(20) == value for future, value in futures)
        assert len(server.connections) == 2


# ---- O6: a fork after use

FORKED = """
import os, sys, threading, time, traceback
import gevent.os
from greentask import Client
fork, waitpid = {"os": (os.fork, os.waitpid), "gevent": (gevent.os.fork, gevent.os.waitpid)}[sys.argv[2]]
exits = sys.argv[3]
client, other = Client(sys.argv[1]), Client(sys.argv[1])

def sockets():
    found = set()
    for fd in os.listdir("/proc/self/fd"):
        try:
            name = os.readlink(f"/proc/self/fd/{fd}")
        except OSError:
            continue
        if name.startswith("socket:"):
            found.add(name)
    return found

def child(number):
    assert client.call("echo", ["child", number]) == ["child", number]
    assert client.submit("echo", number).result(20) == number
    assert list(client.map("echo", range(20), window=3)) == list(range(20))
    assert list(client.stream("count", 20, window=3)) == list(range(20))
    assert client.using(progress=lambda report: None).call("advance", 2) == 2
    with Client(sys.argv[1]) as mine:
        assert mine.call("add", 1, 2) == 3
    deadline = time.monotonic() + 10
    while sockets() & parents:
        assert time.monotonic() < deadline, "the parent's connections are open in the child"
        client.call("add", 1)
    if number == 0:  # and a grandchild
        run(fork, 10)

def run(fork, number):
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        child(number)
        code = 0
    except SystemExit:
        raise
    except BaseException:
        traceback.print_exc()
    if exits == "sys.exit":
        sys.exit(code)
    os._exit(code)

assert client.call("add", 1) == 1
assert other.call("add", 1) == 1
calling = True
wrong = []
def caller(thread):
    number = 0
    while calling:
        number += 1
        if client.call("echo", [thread, number]) != [thread, number]:
            wrong.append(number)
threads = [threading.Thread(target=caller, args=(thread,)) for thread in range(3)]
for thread in threads: thread.start()
parents = sockets()
slow = [client.submit("nap", 1.0), other.submit("nap", 1.0)]
link = client._core.router()
pids = [run(fork, number) for number in range(3)]
assert client.call("echo", "parent") == "parent"
assert [future.result(20) for future in slow] == [1.0, 1.0]
codes = [waitpid(pid, 0)[1] for pid in pids]
calling = False
for thread in threads: thread.join(20)
assert client.call("echo", "parent") == "parent"
assert client._core.router() is link
assert sockets() == parents
print(wrong, codes, link.dropped)
"""


@pytest.mark.parametrize("exits", ["os._exit", pytest.param("sys.exit", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("patched", "fork"),
    [
        (False, "os"),
        (True, "os"),
        *(pytest.param(patched, "gevent", marks=pytest.mark.slow) for patched in (False, True)),
    ],
)
def test_o6_a_forked_child_has_its_own_connection_and_the_parents_is_untouched(
    server: RunningServer, patched: bool, fork: str, exits: str
) -> None:
    words = run_source(FORKED, server.address, fork, exits, patched=patched)
    assert words == ["[]", "[0,", "0,", "0]", "0"]
    wait_until(lambda: server.status()["connections"] == 0, "all are closed")


LOCKED = """
import os, sys
from greentask import Client, default_client
from greentask.client import default
from greentask.hub.home import find_home
client = Client(sys.argv[1])
home = find_home()
threads = home._tended, home._there
locks = [client._core._lock, default._lock, *threads]
for lock in locks: lock.acquire()  # as another thread might just then
pid = os.fork()
if not pid:
    print(client.call("add", 1, 2), default_client().call("add", 3, 4), flush=True)
    os._exit(0)
os.waitpid(pid, 0)
for lock in locks: lock.release()
print(client.call("add", 5, 6))
"""


def test_o6_locks_that_another_thread_held_at_the_fork_hold_up_nobody(server: RunningServer) -> None:
    assert run_source(LOCKED, server.address, GREENTASK_URL=server.address) == ["3", "7", "11"]


POSTED = """
import os, sys
from gevent import monkey
get = monkey.get_original
import gevent
from greentask import Client
client = Client(sys.argv[1], timeout=20)
client.call("f", "before")
futures = []
ready = get("_thread", "allocate_lock")()
ready.acquire()
def submit():
    futures.append(client.submit("f", "once"))
    ready.release()
get("_thread", "start_new_thread")(submit, ())
ready.acquire()  # the loop has not run since: what was submitted in the thread is still to be sent
pid = os.fork()
if not pid:
    gevent.sleep(0.3)
    os._exit(0)
os.waitpid(pid, 0)
print(futures[0].result())
"""


def test_o6_what_another_thread_has_submitted_is_not_sent_by_the_child_as_well() -> None:
    heard: list[Any] = []

    def noting(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            call = json.loads(line)
            heard.append(call["args"][0])
            connection.send({"id": call["id"], "result": call["args"][0]})

    with peer(noting) as server:
        assert run_source(POSTED, server.address, patched=True) == ["once"]
    assert heard == ["before", "once"]


WAITING = """
import json, os
import gevent
from gevent.server import StreamServer
from greentask import Client
from support.conditions import wait_until
heard, connected = [], 0
def serve(sock, _):
    global connected
    connected += 1
    for line in sock.makefile():
        call = json.loads(line)
        heard.append(call["args"][0])
        sock.sendall(json.dumps({"id": call["id"], "result": call["args"][0]}).encode() + b"\\n")
        if not again:
            sock.close()
            return
again = False
server = StreamServer(("127.0.0.1", 0), serve)
server.start()
where = server.address
client = Client("%s:%d" % where, timeout=20, gone_after=20)
client.call("f", "before")
server.stop()
wait_until(lambda: not client._core.router()._links.all)
future = client.submit("f", "once")
wait_until(lambda: client._core.router()._parked)
pid = os.fork()
if not pid:
    gevent.sleep(1.5)
    os._exit(0)
again = True
server = StreamServer(where, serve)
server.start()
print(future.result(), os.waitpid(pid, 0)[1])
print(*heard, connected)
"""


def test_o6_what_waits_for_a_server_to_be_back_is_the_parents_alone() -> None:
    assert run_source(WAITING, patched=True) == ["once", "0", "before", "once", "2"]


CONNECTING = """
import os, socket, sys
import gevent
from greentask import Client
from support.conditions import wait_until
host, _, port = sys.argv[1].partition(":")
def sockets():
    names = []
    for fd in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink(f"/proc/self/fd/{fd}"))
        except OSError:
            pass
    return sum(name.startswith("socket:") for name in names)
def is_connected():
    try:
        return [link._socket.getpeername() for link in client._core.router()._links.all if link._socket is not None]
    except OSError:
        return False
client = Client(sys.argv[1], secret=sys.argv[2], timeout=20)
future = client.submit("f", "mine")
wait_until(is_connected)
before = sockets()
pid = os.fork()
if not pid:
    wait_until(lambda: sockets() == before - 1, "it has let go of the connection")
    socket.create_connection((host, int(port))).close()
    gevent.sleep(0.1)  # else there is nobody here who could take the challenge
    os._exit(0)
print(future.result(), os.waitpid(pid, 0)[1])
"""


@BOTH
def test_o6_a_connection_that_is_being_opened_is_the_parents_alone(patched: bool) -> None:
    connected, forked = threading.Lock(), threading.Event()

    def challenge_after_the_fork(connection: LineClient) -> None:
        if not connected.acquire(blocking=False):
            forked.set()
            return
        assert forked.wait(20)
        challenge = "00" * 32
        connection.send({"challenge": challenge, "greentask": 1})
        nonce = connection.hear()["auth"]["nonce"]
        connection.send({"auth": {"proof": proof_of(SECRET, "server", challenge, nonce)}})
        echoing(connection)

    with peer(challenge_after_the_fork) as server:
        assert run_source(CONNECTING, server.address, SECRET, patched=patched) == ["mine", "0"]


MULTIPROCESSING = """
import multiprocessing, sys
from greentask import Client
client = Client(sys.argv[1])
def work(number):
    return client.call("echo", number)
if __name__ == "__main__":
    assert client.call("add", 1) == 1
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(work, range(20)) == list(range(20))
        pool.close()
        pool.join()
    print(client.call("add", 2))
"""


def test_o6_multiprocessings_children_may_call(server: RunningServer) -> None:
    assert run_source(MULTIPROCESSING, server.address) == ["2"]


# ---- O7: the interpreter's end, and Ctrl-C

EXITS = {
    "submitted": 'futures = [client.submit("nap", 1.0) for _ in range(10)]',
    "submitted and forgotten": 'for _ in range(10): client.submit("nap", 1.0)',
    "answers arrive": 'futures = [client.submit("echo", n) for n in range(500)]',
    "cancelled": '[client.submit("nap", 1.0).cancel() for _ in range(10)]',
    "a thread calls": "thread(client.call)",
    "a thread gets progress": "thread(client.using(progress=lambda report: None).call)",
    "mapping": 'results = client.map("nap", [0.0, 1.0, 1.0]); next(results)',
    "streaming": 'items = client.stream("count", 1000, 0.001); next(items)',
    "closed": "client.close()",
    "idle": "pass",
}
EXIT = """
import sys, time, _thread
from gevent import monkey
from greentask import Client
client = Client(sys.argv[1])
def thread(call):  # a daemon: a real one, that nothing waits for
    _thread.start_new_thread(call, ("nap", 1.0))
    while not (client._core._router and client._core._router._calls):  # until it waits for its answer
        time.sleep(0.001)
if sys.argv[2] != "unconnected":
    client.call("add", 1)
exec(sys.argv[3])
print(time.monotonic(), flush=True)
"""


def check_ends(programs: "list[subprocess.Popen[str]]", within: float = 5.0) -> None:
    """They end well, each within so many seconds from the moment that it printed last, and complain of nothing.

    Two seconds are what is promised, and what it takes where ten of them don't end at the same time.
    """

    def ended(program: "subprocess.Popen[str]") -> tuple[str, str, float]:
        return *program.communicate(timeout=60), time.monotonic()

    with ThreadPoolExecutor(len(programs)) as waiting:  # for all at once: one that is slow makes no other one so
        for program, (output, complaints, at) in zip(programs, waiting.map(ended, programs)):
            assert (program.returncode, complaints) == (0, ""), program.args
            assert at - float(output.split()[-1]) < within, program.args


@PLAIN_AT_HAND
@pytest.mark.parametrize("connected", ["connected", pytest.param("unconnected", marks=pytest.mark.slow)])
def test_o7_the_end_of_the_program_with_calls_in_flight_is_quick_and_quiet(
    server: RunningServer, connected: str, patched: bool
) -> None:
    with starting(EXIT, [[server.address, connected, body] for body in EXITS.values()], patched=patched) as started:
        check_ends(started)


@pytest.mark.slow
@PLAIN_AT_HAND
def test_o7_a_server_that_cannot_be_reached_does_not_hold_up_the_end(patched: bool) -> None:
    with deaf() as address, peer(silent) as quiet:
        bodies = ("submitted", "submitted and forgotten", "cancelled", "a thread calls")
        arguments = [[where, "unconnected", EXITS[body]] for body in bodies for where in (address, quiet.address)]
        with starting(EXIT, arguments, patched=patched) as started:
            check_ends(started)


@pytest.mark.slow
def test_o7_the_end_never_crashes_however_often(server: RunningServer) -> None:
    """A thread that wakes while the interpreter is taken apart would crash it: about one time in four.

    So sixty times find that but once in thirty million.
    """
    for _ in range(12):
        arguments = [[server.address, "connected", EXITS["answers arrive"]]] * 5
        with starting(EXIT, arguments, patched=False) as started:
            check_ends(started, within=20)  # how long it takes, the others show


@BOTH
def test_o7_what_was_submitted_last_is_sent(server: RunningServer, tmp_path: Path, patched: bool) -> None:
    """Whether the program was connected by then, or had only a name of the server."""
    files = [tmp_path / str(number) for number in range(6)]
    bodies = [
        f'for file in {[str(file) for file in some]}: client.submit("mark", file)' for some in (files[:3], files[3:])
    ]
    arguments = [
        [server.address, "connected", bodies[0]],
        [f"localhost:{server.port}", "unconnected", bodies[1]],
    ]
    with starting(EXIT, arguments, patched=patched) as started:
        check_ends(started)
    wait_until(lambda: all(file.exists() and "ended" in file.read_text() for file in files), "all have run")


LAST_WORDS = """
import atexit, sys
def last():
    print("last", client.call("add", 1, 2), client.submit("add", 3, 4).result(), *client.map("add", [5, 6]))
    client.close()
if sys.argv[2] == "before":
    atexit.register(last)
from greentask import Client
if sys.argv[2] == "after":
    atexit.register(last)
client = Client(sys.argv[1])
if sys.argv[3] == "used":
    client.call("add", 1)
"""


@PLAIN_AT_HAND
def test_o7_a_call_may_be_a_programs_last_word(server: RunningServer, patched: bool) -> None:
    """Whether its exit handler was there before ours, and so runs after it, or not."""
    arguments = [[server.address, when, used] for when in ("before", "after") for used in ("used", "unused")]
    assert run_at_once(LAST_WORDS, arguments, patched=patched) == [["last", "3", "7", "5", "6"]] * 4


CALL_ON = """
import random, sys, warnings
from gevent.hub import Hub
from greentask import Client
warnings.simplefilter("ignore", ResourceWarning)  # a socket that is interrupted while it is made isn't closed
Hub.NOT_ERROR += (KeyboardInterrupt,)  # else gevent says that it came, where it came in the hub
client, dice = Client(sys.argv[1]), random.Random(sys.argv[2])
ways = [
    lambda: client.call("nap", 0.01),
    lambda: client.call("echo", "x" * 10_000),
    lambda: [client.submit("nap", 0.01) for _ in range(10)],
    lambda: client.submit("nap", 0.01).result(),
    lambda: client.using(progress=lambda report: None).call("advance", 3, 0.003),
    lambda: list(client.map("nap", [0.01] * 5)),
    lambda: list(client.map("nap", [0.01] * 5, unordered=True)),
    lambda: list(client.stream("count", 5, 0.002)),
    lambda: client.close(),
]
print("ready", flush=True)
while True:
    dice.choice(ways)()
"""


@BOTH
@pytest.mark.parametrize(("rounds", "each"), [(1, 3), pytest.param(4, 5, marks=pytest.mark.slow)])
def test_o7_ctrl_c_at_any_moment_ends_it_quickly(server: RunningServer, patched: bool, rounds: int, each: int) -> None:
    for _ in range(rounds):
        arguments = [[server.address, str(random.random())] for _ in range(each)]
        with starting(CALL_ON, arguments, patched=patched) as started:
            for program in started:
                assert program.stdout is not None
                assert program.stdout.readline() == "ready\n"
            for program in started:
                time.sleep(random.uniform(0, 0.1))  # any moment
                program.send_signal(signal.SIGINT)
                sent = time.monotonic()
                _, complaints = program.communicate(timeout=60)
                assert time.monotonic() - sent < 5
                assert program.returncode == -signal.SIGINT, complaints
                assert complaints.rstrip().endswith("KeyboardInterrupt"), complaints
                assert "ignored" not in complaints
    wait_until(lambda: server.status()["in_flight"] == 0, "the server is idle")
    wait_until(lambda: server.status()["connections"] == 0, "all are closed")
