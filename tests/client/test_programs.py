"""The client in every kind of program: patched by gevent or not, with greenlets, threads and event loops."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.peers import peer, silent
from support.programs import TESTS, environment, run_at_once, run_source
from support.servers import RunningServer, wait_until

BOTH = pytest.mark.parametrize("patched", [False, True], ids=["plain", "patched"])

# Tests that hold in any kind of program.
SOME = ("test_map.py", "test_stream.py", "test_flow.py", "test_batching.py")
OTHERS = ("test_client.py", "test_router.py", "test_mailbox.py", "test_default.py")


@pytest.mark.parametrize(
    ("kind", "modules", "home"),
    [
        pytest.param("patched", ("test_map.py", "test_flow.py", "test_batching.py"), "here", marks=pytest.mark.slow),
        pytest.param("patched", ("test_stream.py", *OTHERS), "here", marks=pytest.mark.slow),
        pytest.param("greenlet", SOME + OTHERS, "in the background", marks=pytest.mark.slow),
    ],
)
def test_whatever_holds_in_a_plain_program_holds_in(kind: str, modules: tuple[str, ...], home: str) -> None:
    files = [str(TESTS / "client" / module) for module in modules]
    done = subprocess.run(
        [sys.executable, str(TESTS / "support" / "world.py"), kind, "-q", "-p", "no:cacheprovider", *files],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=110,
        env=environment(),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"home: {home}" in done.stdout


# ---- What it costs when it isn't used


def test_importing_greentask_imports_no_gevent_and_starts_nothing() -> None:
    program = """
import os, sys, threading
before = len(os.listdir("/proc/self/fd"))
import greentask
@greentask.task
def add(a, b): return a + b
assert add(1, 2) == 3
assert not any(name.split(".")[0] in ("gevent", "greenlet") for name in sys.modules)
assert len(os.listdir("/proc/self/task")) == 1
assert len(os.listdir("/proc/self/fd")) == before
"""
    assert run_source(program) == []


@BOTH
def test_a_client_that_is_not_used_costs_nothing(patched: bool) -> None:
    program = """
import os
from greentask import Client, configure
from gevent._hub_local import get_hub_if_exists
before = get_hub_if_exists()
fds = len(os.listdir("/proc/self/fd"))
with Client("127.0.0.1:1") as client:
    client.using(timeout=1)
    client.map("add", [1])
    client.stream("count", 3)
configure("127.0.0.1:2")
assert get_hub_if_exists() is before
assert len(os.listdir("/proc/self/task")) == 1
assert len(os.listdir("/proc/self/fd")) == fds
"""
    assert run_source(program, patched=patched) == []


# ---- Greenlets

EACH_ITS_OWN = """
import sys
import gevent
from greentask import Client
client = Client(sys.argv[1])
wrong = []
def ask(number):
    for way in (client.call, lambda *args: client.submit(*args).result()):
        if way("echo", [number]) != [number]:
            wrong.append(number)
greenlets = [gevent.spawn(ask, number) for number in range(500)]
gevent.joinall(greenlets, timeout=50, raise_error=True)
assert all(greenlet.successful() for greenlet in greenlets)
print(wrong, client.call("greentask.status")["connections"])
"""


@BOTH
def test_a_thousand_calls_of_many_greenlets_get_each_its_own_answer(server: RunningServer, patched: bool) -> None:
    before = wait_until(lambda: server.status()["connections"] <= 1 and server.status(), "no other client is connected")
    words = run_source(EACH_ITS_OWN, server.address, patched=patched)
    assert words == ["[]", str(before["connections"] + 1)]


OTHERS_GO_ON = """
import sys
import gevent
from greentask import Client
client, kind = Client(sys.argv[1]), sys.argv[2]
ways = {
    "call": lambda key: client.call("hold", key),
    "result": lambda key: client.submit("hold", key).result(),
    "exception": lambda key: client.submit("hold", key).exception(),
    "progress": lambda key: client.using(progress=lambda report: None).call("hold", key),
    "map": lambda key: list(client.map("hold", [key, key])),
    "unordered": lambda key: list(client.map("hold", [key, key], unordered=True)),
    "stream": lambda key: list(client.stream("hold_items", key)),
}
def release(key):
    for _ in range(3):
        gevent.sleep(0.005)
    client.call("release", key)
for name, way in ways.items():
    key = f"{name} {kind}"
    gevent.spawn(release, key)
    way(key)
print("all")
"""


@BOTH
def test_other_greenlets_go_on_while_one_waits(server: RunningServer, patched: bool) -> None:
    """Else it would wait for ever: it is another one that ends the waiting."""
    assert run_source(OTHERS_GO_ON, server.address, f"{patched} {os.getpid()}", patched=patched) == ["all"]


GIVEN_UP = """
import sys
from pathlib import Path
import gevent
from greentask import Client
from support.conditions import wait_until
client, folder = Client(sys.argv[1]), sys.argv[2]

def lines(file):
    try:
        return Path(file).read_text().split()
    except FileNotFoundError:
        return []

def stream(file):
    for item in client.stream("count_and_mark", 10**9, file, window=2):
        if item == 2:
            asleep.append(True)
            gevent.sleep(30)

ways = {
    "call": lambda file: client.call("mark", file, 30),
    "reporting": lambda file: client.using(progress=print).call("mark", file, 30),
    "map": lambda file: list(client.map("mark", [file], [30])),
    "unordered": lambda file: list(client.map("mark", [file], [30], unordered=True)),
}

asleep = []

def time_out(way, file):
    timeout, me = gevent.Timeout(), gevent.getcurrent()
    def expire():  # when it runs, which may be late on a busy machine
        while not (asleep if way is stream else lines(file)): gevent.sleep(0.005)
        gevent.get_hub().loop.run_callback(me.throw, timeout)  # as its timer does
    gevent.spawn(expire)
    try:
        way(file)
    except gevent.Timeout as raised:
        return raised is timeout

for name, way in ways.items():
    file = f"{folder}/{name}-timeout"
    assert gevent.spawn(time_out, way, file).get()
    wait_until(lambda: lines(file) == ["started", "CancelRequest"])
    file = f"{folder}/{name}-kill"
    greenlet = gevent.spawn(way, file)
    while not lines(file):
        gevent.sleep(0.01)
    greenlet.kill()
    wait_until(lambda: lines(file) == ["started", "CancelRequest"])

file = f"{folder}/stream"
gevent.spawn(time_out, stream, file).join()
wait_until(Path(file + ".closed").exists)
print(client.call("add", 1, 2))
"""


@BOTH
def test_a_greenlet_that_gives_up_cancels_its_calls(server: RunningServer, tmp_path: Path, patched: bool) -> None:
    """By gevent.Timeout, and by being killed."""
    assert run_source(GIVEN_UP, server.address, str(tmp_path), patched=patched) == ["3"]
    wait_until(lambda: server.status()["in_flight"] == 0, "the server is idle")


# ---- Forked children

OF_THE_PARENT = """
import os, sys
from greentask import Client, as_completed, wait
client = Client(sys.argv[1])
future = client.submit("nap", 0.3)
child = os.fork()
if not child:
    told = []
    for way in (future.result, future.exception, lambda: wait([future]), lambda: list(as_completed([future]))):
        try:
            way()
        except RuntimeError as error:
            told.append(str(error))
    right = len(told) == 4 and all("forked" in text for text in told) and client.call("add", 1, 2) == 3
    os._exit(0 if right else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), future.result())
"""


@BOTH
def test_a_child_that_waits_for_its_parents_call_is_told_that_it_would_wait_for_ever(
    server: RunningServer, patched: bool
) -> None:
    assert run_source(OF_THE_PARENT, server.address, patched=patched) == ["0", "0.3"]


# ---- Real threads

REAL_THREADS = """
import sys
import gevent
from greentask import Client
client, pool, first = Client(sys.argv[1]), gevent.get_hub().threadpool, sys.argv[2]

def work(thread):
    for number in range(50):
        value = [thread, number]
        assert client.call("echo", value) == value
        assert client.submit("echo", value).result() == value
    assert list(client.map("echo", range(20), window=3)) == list(range(20))
    assert sorted(client.map("echo", range(20), unordered=True)) == list(range(20))
    assert list(client.stream("count", 50, window=3)) == list(range(50))
    reports = []
    assert client.using(progress=reports.append).call("advance", 3) == 3
    assert [report["done"] for report in reports] == [1, 2, 3]
    try:
        client.call("fail")
    except ValueError as error:
        return f"{thread}:{error}"

if first == "thread":
    pool.apply(client.call, ("add", 1))
else:
    client.call("add", 1)
print(client._core.router().home.is_here())
threads = [pool.spawn(work, number) for number in range(6)]
greenlets = [gevent.spawn(work, number) for number in range(6, 9)]
print(sorted(found.get(timeout=50).split(":")[0] for found in [*threads, *greenlets]))
client.close()
pool.apply(client.call, ("add", 1))
pool.apply(client.close)
"""


@BOTH
def test_real_threads_and_greenlets_share_a_client(server: RunningServer, patched: bool) -> None:
    """Whoever of them uses it first."""
    arguments = [(server.address, first) for first in ("main", "thread")]
    homes = [str(patched), "False"]
    for home, (found, *numbers) in zip(homes, run_at_once(REAL_THREADS, arguments, patched=patched)):
        assert found == home
        assert "".join(numbers) == "['0','1','2','3','4','5','6','7','8']"


HELD = """
import sys
import gevent
from gevent import monkey
from greentask import Client, DeadlineExceeded
client = Client(sys.argv[1], timeout=0.05)
future = client.submit("f")
sleep = monkey.get_original("time", "sleep")
def hold():  # for much longer than a thread that is just looking, and over the moment when the hub ends the call
    with future._condition:
        sleep(0.65)
holding = gevent.get_hub().threadpool.spawn(hold)
print(type(future.exception(20)).__name__)
holding.get()
"""


def test_a_real_thread_that_looks_at_a_future_keeps_the_hub_from_nothing() -> None:
    with peer(silent) as server:
        assert run_source(HELD, server.address, patched=True) == ["DeadlineExceeded"]


# ---- asyncio

EVENT_LOOP = """
import asyncio, sys, time
from pathlib import Path
from greentask import Client
from support.conditions import wait_until
client, file = Client(sys.argv[1]), Path(sys.argv[2])

def lines():
    return file.read_text().split() if file.exists() else []

async def call(function, *args):
    return await asyncio.wrap_future(client.submit(function, *args))

async def tick():
    ticks = 0
    while True:
        await asyncio.sleep(0.01)
        ticks += 1
        sys.modules["__main__"].ticks = ticks

async def main():
    ticking = asyncio.create_task(tick())
    results = await asyncio.gather(*(call("echo", number) for number in range(200)))
    assert results == list(range(200))
    began = time.monotonic()
    assert await asyncio.gather(*(call("nap", 0.2) for _ in range(20))) == [0.2] * 20
    assert time.monotonic() - began < 2
    assert ticks >= 5
    try:
        await call("fail")
    except ValueError as error:
        print(error)
    async def until(words):
        deadline = time.monotonic() + 20
        while lines() != words:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
    marking = asyncio.ensure_future(call("mark", str(file), 30))
    await until(["started"])
    try:
        await asyncio.wait_for(marking, 0.01)
    except asyncio.TimeoutError:
        print("out", "of", "time")
    await until(["started", "CancelRequest"])
    reports = []
    reporting = client.using(progress=reports.append)
    assert await asyncio.wrap_future(reporting.submit("advance", 3)) == 3
    assert len(reports) == 3
    ticking.cancel()

asyncio.run(main())
client.close()
"""


def test_futures_are_awaited_in_an_event_loop(server: RunningServer, tmp_path: Path) -> None:
    words = run_source(EVENT_LOOP, server.address, str(tmp_path / "marks"))
    assert words == ["no", "stock", "out", "of", "time"]


# ---- Ctrl-C

INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from gevent import monkey
from gevent.hub import Hub
from greentask import Client
from support.conditions import wait_until
Hub.NOT_ERROR += (KeyboardInterrupt,)  # else gevent prints that it came, where it came in the hub
client, way, file = Client(sys.argv[1]), sys.argv[2], sys.argv[3]
client.call("add", 1)  # else the Ctrl-C may hit the connection's own greenlet, which has just sent the call
sleep = monkey.get_original("time", "sleep")

def interrupt():
    while not os.path.exists(file):
        sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

monkey.get_original("_thread", "start_new_thread")(interrupt, ())
try:
    if way == "call":
        client.call("mark", file, 30)
    elif way == "reporting":
        client.using(progress=print).call("mark", file, 30)
    elif way == "map":
        list(client.map("mark", [file], [30]))
    else:
        list(client.map("mark", [file], [30], unordered=True))
except KeyboardInterrupt:
    print("interrupted")
wait_until(lambda: Path(file).read_text().split() == ["started", "CancelRequest"])
print(client.call("add", 1, 2))
"""


@pytest.mark.parametrize("patched", [False, pytest.param(True, marks=pytest.mark.slow)], ids=["plain", "patched"])
def test_ctrl_c_cancels_what_is_waited_for(server: RunningServer, tmp_path: Path, patched: bool) -> None:
    arguments = [(server.address, way, str(tmp_path / way)) for way in ("call", "reporting", "map", "unordered")]
    assert run_at_once(INTERRUPTED, arguments, patched=patched) == [["interrupted", "3"]] * 4
