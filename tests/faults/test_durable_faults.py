"""Durable tasks, when anything dies, stops, or is full (D1 to D7; D3 and D4 are in tests/queue)."""

import itertools
import os
import random
import signal
import socket
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import psutil
import pytest

from greentask import Client, Fan, Step
from greentask.errors import GreentaskError
from greentask.queue.beside import Beside
from greentask.queue.byhand import QueueFile
from greentask.queue.stalls import Stalls
from support.durable_tasks import marks
from support.queue_calls import enqueue, outcome
from support.servers import LineClient, RunningServer, connect, serving, wait_until

APPS = ("support.durable_tasks",)


# ---- D1


class Enqueuers:
    """Clients that enqueue numbered tasks for as long as they live, through whatever happens to their server."""

    def __init__(self, address: str, file: Path, count: int) -> None:
        self._address, self._file = address, str(file)
        self._numbers = itertools.count()
        self._ends = threading.Event()
        self.kept: dict[int, str] = {}  # those that were acknowledged, and their tasks
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(count)]
        for thread in self._threads:
            thread.start()

    def _run(self, who: int) -> None:
        while not self._ends.is_set():
            try:
                with connect(self._address, 5.0) as peer:
                    while not self._ends.is_set():
                        self._enqueue_one(peer, ("note", "note_in_process")[who % 2])
            except (OSError, AssertionError):  # closed, reset, refused, or a server that goes away
                time.sleep(0.02)

    def _enqueue_one(self, peer: LineClient, function: str) -> None:
        number = next(self._numbers)
        self.kept[number] = enqueue(peer, function, self._file, number)

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()


def shoot(server: RunningServer, chance: random.Random) -> str:
    """Kill something of it."""
    target = chance.choice(("process", "process", "front", "all"))
    if target == "all":
        server.signal_all(signal.SIGKILL)
        server.wait()
        return target
    fronts = [front for front in server.fronts() if front.is_running()]
    victims = fronts if target == "front" else [child for front in fronts for child in front.children(recursive=True)]
    if victims:
        try:
            chance.choice(victims).kill()
        except psutil.NoSuchProcess:
            pass
    return target


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_d1_what_was_acknowledged_runs_whatever_is_killed(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    options = ("--queue", queue, "--fronts", "2")
    enqueuers, shots = Enqueuers(f"tcp://{address}", file, 4), Counter[str]()
    until = time.monotonic() + 15
    try:
        while time.monotonic() < until:
            with serving(*options, apps=APPS, listen=(address,)) as server:
                while time.monotonic() < until and server.process.poll() is None:
                    time.sleep(chance.uniform(0.2, 0.8))
                    shots[shoot(server, chance)] += 1
    finally:
        enqueuers.end()
    with serving(*options, apps=APPS) as server, server.connect(60.0) as peer:
        found = {number: outcome(peer, task) for number, task in enqueuers.kept.items()}
    ran = Counter(map(int, marks(file)))
    print(f"{len(enqueuers.kept)} kept, {sum(ran.values()) - len(ran)} ran twice, {dict(shots)}")
    assert len(enqueuers.kept) > 100
    assert {one["state"] for one in found.values()} == {"done"}
    assert all(ran[number] >= 1 for number in enqueuers.kept)
    assert all(one["result"] == number for number, one in found.items())
    for number, one in found.items():
        assert ran[number] <= one["attempts"], "it ran once for each attempt, and not again after it was acknowledged"


# ---- D2


@pytest.mark.slow
def test_d2_a_full_disk_refuses_and_loses_nothing(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    with serving("--queue", str(tmp_path / "tasks.db"), apps=APPS) as server, server.connect() as peer:
        waits = [enqueue(peer, "note", str(file), number, delay=1.0) for number in range(10)]
        size = max(os.stat(path).st_size for path in tmp_path.glob("tasks.db*"))
        psutil.Process(server.pid).rlimit(psutil.RLIMIT_FSIZE, (size + 300_000, psutil.RLIM_INFINITY))
        refused: dict[str, Any] = {}
        kept = []
        for _ in range(300):
            reply = peer.ask({"function": "note", "args": ["/dev/null", "x" * 10_000], "id": 1, "enqueue": True})
            if "error" in reply:
                refused = reply["error"]
                break
            kept.append(reply["result"]["task"])
        assert refused, "there was room for more than there is"
        assert refused["type"] == "QueueFull"
        time.sleep(1.0)  # those that wait come due, and end, while there is no room
        psutil.Process(server.pid).rlimit(psutil.RLIMIT_FSIZE, (psutil.RLIM_INFINITY, psutil.RLIM_INFINITY))
        assert {outcome(peer, task)["state"] for task in (*waits, *kept)} == {"done"}
        assert outcome(peer, enqueue(peer, "add", 1))["result"] == 2
    assert sorted(map(int, marks(file))) == list(range(10))


@pytest.mark.slow
def test_d2_nobody_loses_what_it_runs_while_the_disk_is_full(tmp_path: Path) -> None:
    """Nobody can give a sign of life, for longer than the lease."""
    file, options = tmp_path / "marks", ("--queue", str(tmp_path / "tasks.db"), "--queue-lease", "2")
    with serving(*options, apps=APPS) as one, serving(*options, apps=APPS) as other, one.connect() as peer:
        task = enqueue(peer, "nap", str(file), 7)
        wait_until(lambda: marks(file) == ["began"])
        size = max(os.stat(path).st_size for path in tmp_path.glob("tasks.db*"))
        fronts = [psutil.Process(server.pid) for server in (one, other)]
        for limit in (size, psutil.RLIM_INFINITY):
            for front in fronts:
                front.rlimit(psutil.RLIMIT_FSIZE, (limit, psutil.RLIM_INFINITY))
            if limit == size:
                time.sleep(5.0)
        assert outcome(peer, task)["attempts"] == 1
        for server in (one, other):
            assert server.output().count("can't be written, and is tried again") <= 1, server.output()
    assert marks(file) == ["began", "ended"]


# ---- D5


def stop(process: psutil.Process) -> None:
    """Stop it, and wait until it is: each of its threads goes on for a moment."""
    process.suspend()
    states = Path(f"/proc/{process.pid}/task")
    wait_until(lambda: {one.read_text().rpartition(")")[2].split()[0] for one in states.glob("*/stat")} == {"T"})


def stop_between_writes(server: RunningServer, queue: str) -> None:
    """Stop its front while it doesn't hold the file's lock, for which the others would wait."""
    beside, front = Beside(queue), psutil.Process(server.pid)
    stop(front)
    while beside.is_held(0):
        front.resume()
        time.sleep(0.01)
        stop(front)
    beside.close()


@pytest.mark.slow
def test_d5_a_front_that_was_stopped_comes_too_late(tmp_path: Path) -> None:
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    options = ("--queue", queue, "--queue-lease", "2")
    with serving(*options, apps=APPS) as one, serving(*options, apps=APPS) as other:
        with one.connect() as peer:
            task = enqueue(peer, "nap", str(file), 0.5)
            wait_until(lambda: marks(file) == ["began"])
        stop_between_writes(one, queue)
        try:
            with other.connect() as peer:
                found = outcome(peer, task)
                assert (found["state"], found["attempts"]) == ("done", 2)
        finally:
            os.kill(one.pid, signal.SIGCONT)
        wait_until(lambda: one.status()["queue"]["refused"] == 1, "its late acknowledgement was refused")
        with one.connect() as peer:
            assert outcome(peer, task) == found
            assert outcome(peer, enqueue(peer, "add", 1))["result"] == 2, "and it goes on"
    assert marks(file).count("began") == 2


def stop_in_the_midst_of_writing(front: psutil.Process, queue: str) -> None:
    """Stop a front that writes while it holds the file's lock."""
    stalls, give_up = Stalls(queue, time.monotonic), time.monotonic() + 60
    stop(front)
    while stalls.holders([front.pid]) != [front.pid]:
        assert time.monotonic() < give_up, "it was never seen to hold the lock"
        front.resume()
        time.sleep(random.uniform(0.001, 0.01))
        stop(front)


@pytest.mark.slow
@pytest.mark.timeout(120)
@pytest.mark.parametrize("masters", [1, 2])
def test_d5_a_front_that_is_stopped_while_it_writes_is_ended(tmp_path: Path, masters: int) -> None:
    """Nobody else could write. Each master ends its own front, or there is one that has another one as well."""
    file, queue, lease = tmp_path / "marks", str(tmp_path / "tasks.db"), 2.0
    options = ("--queue", queue, "--queue-lease", f"{lease:g}", "--fronts", str(3 - masters))
    with serving(*options, apps=APPS) as one, ExitStack() as more:
        other = more.enter_context(serving(*options, apps=APPS)) if masters == 2 else one
        stopped = one.fronts()[0]
        enqueuers = Enqueuers(one.address, file, 4)
        try:
            stop_in_the_midst_of_writing(stopped, queue)
            began = time.monotonic()
            with QueueFile(queue) as beside:  # it waits in line, as all others do
                beside.pause("nobody")
            waited = time.monotonic() - began
            wait_until(lambda: not stopped.is_running(), "the one that was stopped is gone")
            wait_until(lambda: one.status()["master"]["deaths"] == 1, "another one is in its place")
            before = len(enqueuers.kept)
            wait_until(lambda: len(enqueuers.kept) > before + 20, "enqueueing goes on")
        finally:
            enqueuers.end()
        assert lease - 1 < waited < lease + 10
        assert f"(process {stopped.pid}) was stopped while it wrote to queue" in one.output()
        with other.connect(60.0) as peer:
            found = {number: outcome(peer, task) for number, task in enqueuers.kept.items()}
        if masters == 2:
            assert other.status()["master"]["deaths"] == 0
    assert {one["state"] for one in found.values()} == {"done"}
    assert set(found) <= set(map(int, marks(file))), "nothing is lost"


# ---- D6


@pytest.mark.slow
def test_d6_two_servers_on_one_file_share_it(tmp_path: Path) -> None:
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    with serving("--queue", queue, apps=APPS) as one, serving("--queue", queue, apps=APPS) as other:
        left, right = one.connect(), other.connect()
        tasks = []
        for number in range(100):
            tasks.append(enqueue(left, "note", str(file), number))
            tasks.append(enqueue(right, "note_in_process", str(file), number + 1000))
        for peer in (left, right):
            assert {outcome(peer, task)["state"] for task in tasks} == {"done"}
            peer.close()
    assert set(Counter(marks(file)).values()) == {1}, "none ran twice"
    assert len(marks(file)) == 200


@pytest.mark.slow
def test_d6_what_a_dead_server_had_is_taken_up_within_two_seconds(tmp_path: Path) -> None:
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    with serving("--queue", queue, apps=APPS) as one, serving("--queue", queue, apps=APPS) as other:
        with one.connect() as peer:
            task = enqueue(peer, "nap_in_process", str(file), 30)
            wait_until(lambda: marks(file) == ["began"])
        pid = one.pid
        one.signal_all(signal.SIGKILL)
        wait_until(lambda: marks(file) == ["began", "began"], "the other one runs it", 2.0)
        with other.connect() as peer:
            assert outcome(peer, task, False)["attempts"] == 2
            (error,) = peer.call("greentask.queue", action="show", task=task)["errors"]
            assert (error["attempt"], error["type"]) == (1, "WorkerLost")
            assert f"(pid {pid}) died" in error["message"], "who it was that is gone"


@pytest.mark.slow
def test_each_tick_comes_once_whichever_fronts_are_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    monkeypatch.setenv("TICKS", str(tmp_path / "ticks"))
    file, begun = tmp_path / "tasks.db", time.time()
    with serving("--queue", str(file), "--fronts", "3", apps=("support.ticking_tasks",)) as server:
        while time.time() < begun + 16:
            time.sleep(chance.uniform(1.0, 4.0))
            if fronts := [front for front in server.fronts() if front.is_running()]:
                chance.choice(fronts).kill()
    with QueueFile(file) as queue:
        tasks = [task for task in queue.look("list", limit=1000)["tasks"] if task["name"] == "tick_in_process"]
    ticks = Counter(int(task["enqueued"] // 2) for task in tasks)
    assert set(ticks.values()) == {1}
    assert len(ticks) >= 4, "it went on"


# ---- D7


@pytest.mark.load
def test_d7_what_waits_takes_no_memory(tmp_path: Path) -> None:
    batch = {"function": "add", "id": 1, "batch": [[number, 1] for number in range(10_000)]}
    with serving("--queue", str(tmp_path / "tasks.db"), apps=APPS) as server, server.connect(60.0) as peer:

        def fill(count: int) -> None:
            for _ in range(count):
                reply = peer.ask({**batch, "enqueue": {"delay": 3600}})
                assert len(reply["result"]["tasks"]) == 10_000

        fill(5)
        before = server.memory()
        fill(20)
        assert server.memory() - before < 20_000_000, "for 200,000 tasks"
        assert outcome(peer, enqueue(peer, "add", 1))["result"] == 2
        assert peer.call("greentask.queue")["scheduled"] == 250_000


# ---- D8


class Composers:
    """Clients that enqueue graphs of tasks for as long as they live; some of their tasks fail."""

    def __init__(self, address: str, file: Path, seed: int) -> None:
        self._address, self._file = address, str(file)
        self._ends = threading.Event()
        self.kept: dict[str, tuple[str, Any]] = {}  # of each that was acknowledged its last task, and what that takes
        self._threads = [threading.Thread(target=self._run, args=(number, seed)) for number in range(3)]
        for thread in self._threads:
            thread.start()

    def _run(self, who: int, seed: int) -> None:
        chance, number = random.Random(seed + who), 0
        with Client(self._address, timeout=5) as client:
            while not self._ends.is_set():
                number += 1
                try:
                    self._enqueue(client, chance, f"{who}.{number}")
                except (GreentaskError, OSError):
                    time.sleep(0.02)

    def _enqueue(self, client: Client, chance: random.Random, label: str) -> None:
        last = Step("collect", self._file, label).using(errors=True)
        numbers = [chance.randrange(100) for _ in range(chance.randint(1, 6))]
        if chance.random() < 0.5:
            receipts = client.using(then=last).enqueue_many("odd", [[number] for number in numbers])
            taken = [expected(number) for number in numbers]
        else:
            fan = Fan(*([Step("add", number), Step("odd")] for number in numbers))
            receipts = client.using(then=[fan, last]).enqueue("add_in_process", 1, 0)
            taken = [expected(number + 1) for number in numbers]
        self.kept[label] = receipts.following[-1].id, taken

    def end(self) -> None:
        self._ends.set()
        for thread in self._threads:
            thread.join()


def expected(number: int) -> dict[str, Any]:
    if number % 2:
        return {"result": number}
    return {"error": {"type": "ValueError", "message": f"{number} is even"}}


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_d8_what_follows_others_runs_when_the_last_has_ended_whatever_is_killed(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    file = tmp_path / "marks"
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
    options = ("--queue", str(tmp_path / "tasks.db"), "--fronts", "2")
    composers, shots = Composers(f"tcp://{address}", file, seed), Counter[str]()
    until, most = time.monotonic() + 25, 12
    try:
        while time.monotonic() < until and sum(shots.values()) < most:
            with serving(*options, apps=APPS, listen=(address,)) as server:
                while sum(shots.values()) < most and server.process.poll() is None:
                    time.sleep(chance.uniform(0.2, 0.8))
                    shots[shoot(server, chance)] += 1
    finally:
        composers.end()
    with serving(*options, apps=APPS) as server, server.connect(60.0) as peer:
        found = {label: outcome(peer, task) for label, (task, _) in composers.kept.items()}
    ran = Counter(marks(file))
    print(f"{len(found)} graphs, {sum(ran.values()) - len(ran)} ends ran twice, {dict(shots)}")
    assert len(found) > 30
    for label, (_, takes) in composers.kept.items():
        assert (found[label]["state"], found[label]["result"]) == ("done", takes), label
        assert 1 <= ran[label] <= found[label]["attempts"], "it was enqueued once"
