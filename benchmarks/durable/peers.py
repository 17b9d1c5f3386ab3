"""Celery, Dramatiq, Huey and RQ on a Redis, beside ours: one client, two processes, results stored.

Their Redis forgets everything when it dies, while each of ours is synced; then it syncs each write as well. They get
what makes them quick: prefetching, worker processes that don't fork for each task, Redis's own C parser.

Beside the rates stands the processor time of all who take part (client, workers, servers, Redis), for each task: it is
much the same on a machine that has other things to do, which the rates are not.
"""

import os
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

import psutil

from benchmarks.common import ROOT
from benchmarks.load.figures import Figure

from .running import folder, queued

__all__ = ["measure"]

BIN = Path(sys.executable).parent
WARM = 100
GIVE_UP = 180.0  # seconds

QUIET = ["--without-gossip", "--without-mingle", "--without-heartbeat"]

# How each is started: its worker processes. The last part of each is run in the program that enqueues, and gives what
# enqueues one task and what counts those that have ended.
WORKERS: dict[str, list[list[str]]] = {
    "Celery": [["celery", "-A", "benchmarks.durable.peer_tasks:celery", "worker", "-c", "2", "-l", "ERROR", *QUIET]],
    "Dramatiq": [["dramatiq", "benchmarks.durable.peer_tasks", "-p", "2", "-t", "4"]],
    "Huey": [["huey_consumer", "benchmarks.durable.peer_tasks.huey", "-k", "process", "-w", "2", "-q", "-d", "0.001"]],
    "RQ": [["rq", "worker", "--quiet", "-w", "rq.worker.SimpleWorker", "-u", "redis://{redis}/0"]] * 2,
}
CLIENT = """
import sys, time
import redis as redis_module
from benchmarks.durable import peer_tasks as peers
from benchmarks.durable.running import MAIL
name, redis, warm, many = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
results = redis_module.Redis.from_url(f"redis://{redis}/1")
if name == "Celery":
    enqueue, ended = lambda: peers.celery_mail.delay(**MAIL), results.dbsize
elif name == "Dramatiq":
    enqueue, ended = lambda: peers.dramatiq_mail.send(**MAIL), results.dbsize
elif name == "Huey":
    enqueue, ended = lambda: peers.huey_mail(**MAIL), peers.huey.storage.result_store_size
else:
    from rq import Queue
    from rq.registry import FinishedJobRegistry
    queue = Queue(connection=redis_module.Redis.from_url(f"redis://{redis}/0"))
    finished = FinishedJobRegistry(queue=queue)
    enqueue, ended = lambda: queue.enqueue(peers.rq_mail, kwargs=MAIL), lambda: finished.connection.zcard(finished.key)
for _ in range(warm):
    enqueue()
while ended() < warm:
    time.sleep(0.01)
print("warm", flush=True)
sys.stdin.readline()
began = time.perf_counter()
for _ in range(many):
    enqueue()
while ended() < warm + many:
    time.sleep(0.005)
print(many / (time.perf_counter() - began), flush=True)
sys.stdin.readline()
"""


class Pace(NamedTuple):
    """Tasks per second, and microseconds of processor time for each."""

    rate: float
    spent: float


def measure(rounds: int = 3, many: int = 20_000, theirs: int = 1_000) -> list[Figure]:
    """``many`` of ours and ``theirs`` of each other's in each round, by turns; medians of the rounds' ratios."""
    if shutil.which("redis-server") is None:
        sys.exit("no redis-server here, on which the others keep their tasks (on Debian: apt-get install redis-server)")
    figures = []
    for syncs, least in ((False, 5.0), (True, 10.0)):
        paces: dict[str, list[Pace]] = {name: [] for name in (*WORKERS, "greentask")}
        for _ in range(rounds):
            paces["greentask"].append(_ours(many))
            for name in WORKERS:
                with _redis(syncs=syncs) as redis:
                    paces[name].append(_theirs(name, redis, theirs))
        how = "Redis with appendfsync always" if syncs else "Redis without persistence"
        for name, taken in paces.items():
            beside = f"{name}, {'beside ' if name == 'greentask' else ''}{how}"
            figures.append(Figure(beside, statistics.median(pace.rate for pace in taken), "tasks/s"))
            figures.append(Figure(f"{beside}, spent", statistics.median(pace.spent for pace in taken), "µs/task"))
        ratios = [
            ours.rate / max(paces[name][number].rate for name in WORKERS)
            for number, ours in enumerate(paces["greentask"])
        ]
        figures.append(Figure(f"greentask / the best, {how}", statistics.median(ratios), "times", least=least))
    return figures


def _ours(many: int) -> Pace:
    with folder() as path, queued(path / "tasks.db") as peer:
        peer.enqueue("mail", WARM)
        peer.wait_for(WARM)
        began, before = time.perf_counter(), _spent()
        peer.enqueue("mail", many)
        return Pace(many / (peer.wait_for(WARM + many) - began), (_spent() - before) / many * 1e6)


def _theirs(name: str, redis: str, many: int) -> Pace:
    environment = {**os.environ, "BENCHMARK_REDIS": redis, "PYTHONPATH": str(ROOT)}
    with ExitStack() as stack:
        for command in WORKERS[name]:
            words = [str(BIN / command[0]), *(word.format(redis=redis) for word in command[1:])]
            stack.enter_context(_running(words, environment))
        arguments = [sys.executable, "-c", CLIENT, name, redis, str(WARM), str(many)]
        pipe = subprocess.PIPE
        client = subprocess.Popen(arguments, cwd=ROOT, env=environment, stdin=pipe, stdout=pipe, text=True)
        stack.callback(client.communicate)
        stack.enter_context(_killing(client, GIVE_UP))
        assert client.stdin is not None
        assert client.stdout is not None
        client.stdout.readline()  # it is warm
        before = _spent()
        client.stdin.write("go\n")
        client.stdin.flush()
        line = client.stdout.readline()
        if not line:
            raise RuntimeError(f"{name} failed, or took more than {GIVE_UP:g} s")
        return Pace(float(line), (_spent() - before) / many * 1e6)


def _spent() -> float:
    """Seconds of processor time of this process, and of all that it has started and that live."""
    times = [process.cpu_times() for process in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(one.user + one.system for one in times)


@contextmanager
def _killing(process: "subprocess.Popen[str]", after: float) -> Iterator[None]:
    """While inside, kill it after so many seconds."""
    timer = threading.Timer(after, process.kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


@contextmanager
def _redis(*, syncs: bool) -> Iterator[str]:
    """A Redis of its own; its address."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with folder() as path:
        durable = ["--appendonly", "yes", "--appendfsync", "always"] if syncs else ["--appendonly", "no"]
        command = [
            "redis-server",
            "--bind",
            "127.0.0.1",
            "--port",
            str(port),
            "--save",
            "",
            "--dir",
            str(path),
            *durable,
        ]
        with _running(command, dict(os.environ)):
            _wait_until(lambda: socket.create_connection(("127.0.0.1", port)).close() is None)
            yield f"127.0.0.1:{port}"


@contextmanager
def _running(command: list[str], environment: dict[str, str]) -> Iterator[None]:
    started = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        started.terminate()
        try:
            started.wait(15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.wait()


def _wait_until(is_there: Callable[[], bool]) -> None:
    give_up = time.monotonic() + 10
    while True:
        try:
            if is_there():
                return
        except OSError:
            pass
        if time.monotonic() > give_up:
            raise RuntimeError("it did not start")
        time.sleep(0.02)
