"""One peer's figures: `python -m benchmarks.pool_peers NAME` prints them as JSON."""

import sys

if len(sys.argv) > 1 and sys.argv[1] in ("greentask", "ProcessPoolExecutor (gevent)", "gipc", "stalls"):
    from gevent import monkey

    monkey.patch_all()

import json
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from typing import Any

PROCESSES = 2
Submit = Callable[..., Any]  # gives something with .result()


# ---- The work


def add(a: int, b: int) -> int:
    return a + b


def compute(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def echo(data: bytes) -> bytes:
    return data


# ---- The peers: how each submits a call


@contextmanager
def greentask_pool() -> Iterator[Submit]:
    from greentask import Pool

    with Pool(PROCESSES) as pool:
        yield pool.submit


@contextmanager
def process_pool_executor() -> Iterator[Submit]:
    with ProcessPoolExecutor(PROCESSES, mp_context=multiprocessing.get_context("forkserver")) as executor:
        yield executor.submit


class _Async:
    def __init__(self, result: Any) -> None:
        self.result = result.get


@contextmanager
def multiprocessing_pool() -> Iterator[Submit]:
    with multiprocessing.get_context("forkserver").Pool(PROCESSES) as pool:
        yield lambda function, *args: _Async(pool.apply_async(function, args))


@contextmanager
def pebble_pool() -> Iterator[Submit]:
    import pebble

    with pebble.ProcessPool(PROCESSES) as pool:
        yield lambda function, *args: pool.schedule(function, args=args)


@contextmanager
def loky_pool() -> Iterator[Submit]:
    import loky

    executor = loky.get_reusable_executor(PROCESSES)
    yield executor.submit
    executor.shutdown()


def _gipc_child(handle: Any) -> None:
    with handle:
        while True:
            try:
                function, args = handle.get()
            except EOFError:
                return
            handle.put(globals()[function](*args))


@contextmanager
def gipc_loop() -> Iterator[Submit]:
    import gevent
    import gipc
    from gevent.queue import Queue

    free: Queue[Any] = Queue()
    with gipc.pipe(duplex=True) as (c1, p1), gipc.pipe(duplex=True) as (c2, p2):
        children = [gipc.start_process(_gipc_child, (child,)) for child in (c1, c2)]
        free.put(p1)
        free.put(p2)

        def run(function: Any, args: Any) -> Any:
            parent = free.get()
            parent.put((function.__name__, args))
            answer = parent.get()
            free.put(parent)
            return answer

        def submit(function: Any, *args: Any) -> Any:
            greenlet = gevent.spawn(run, function, args)
            greenlet.result = greenlet.get
            return greenlet

        yield submit
        for child in children:
            child.terminate()
            child.join(5)


PEERS: dict[str, Callable[[], Any]] = {
    "greentask": greentask_pool,
    "greentask (plain)": greentask_pool,
    "ProcessPoolExecutor": process_pool_executor,
    "ProcessPoolExecutor (gevent)": process_pool_executor,
    "multiprocessing.Pool": multiprocessing_pool,
    "pebble": pebble_pool,
    "loky": loky_pool,
    "gipc": gipc_loop,
}


# ---- The figures


def round_trip(submit: Submit, count: int = 2000) -> float:
    taken = []
    for _ in range(count):
        began = time.perf_counter()
        submit(add, 1, 2).result()
        taken.append(time.perf_counter() - began)
    return statistics.median(taken) * 1e6


def many(submit: Submit, seconds: float = 1.5) -> float:
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        for future in [submit(add, 1, 2) for _ in range(2000)]:
            future.result()
        count += 2000
    return count / (time.perf_counter() - began)


def busy(submit: Submit, count: int = 200) -> float:
    began = time.perf_counter()
    for future in [submit(compute, 0.01) for _ in range(count)]:
        future.result()
    return count * 0.01 / (PROCESSES * (time.perf_counter() - began))


def large(submit: Submit, count: int = 400) -> float:
    data = b"x" * 1_000_000
    began = time.perf_counter()
    for _ in range(count // 4):
        for future in [submit(echo, data) for _ in range(4)]:
            assert len(future.result()) == len(data)
    return count / (time.perf_counter() - began)


def bare() -> dict[str, float]:
    """Two processes and a socket between them, that do the same json work."""
    ours, theirs = socket.socketpair()
    if os.fork() == 0:
        ours.close()
        while data := theirs.recv(65536):
            theirs.sendall(json.dumps(add(*json.loads(data))).encode())
        os._exit(0)
    theirs.close()
    taken = []
    for _ in range(5000):
        began = time.perf_counter()
        ours.sendall(json.dumps([1, 2]).encode())
        json.loads(ours.recv(65536))
        taken.append(time.perf_counter() - began)
    ours.close()
    return {"round_trip_us": statistics.median(taken) * 1e6}


def hundred() -> dict[str, float]:
    """A hundred processes: when they are ready, and what each costs."""
    from greentask import Pool

    began = time.perf_counter()
    with Pool(100) as pool:
        pool.submit(add, 1, 2).result()
        while pool.stats().processes < 100:
            time.sleep(0.005)
        ready = time.perf_counter() - began
        pss = [_pss(pid) for pid in pool.pids()]
    return {"ready_s": ready, "pss_mb": statistics.mean(pss) / 1e6}


def stalls() -> dict[str, float]:
    """64 MB there, and back: how long a greenlet that wants to run every millisecond did not, at worst."""
    import gevent

    from greentask import Pool

    worst = 0.0

    def tick() -> None:
        nonlocal worst
        last = time.perf_counter()
        while True:
            gevent.sleep(0.001)
            now = time.perf_counter()
            worst, last = max(worst, now - last), now

    def during(work: Callable[[], object]) -> float:
        nonlocal worst
        gevent.sleep(0.05)
        worst = 0.0
        work()
        return worst * 1e3

    def start() -> None:
        with Pool(PROCESSES, initializer=len, initargs=(data,)) as pool:
            pool.submit(add, 1, 2).result()

    ticker, data = gevent.spawn(tick), b"x" * 64_000_000
    with Pool(PROCESSES) as pool:
        pool.submit(add, 1, 2).result()
        figures = {
            "nothing_ms": during(lambda: gevent.sleep(0.3)),
            "argument_ms": during(lambda: pool.submit(len, data).result()),
            "result_ms": during(lambda: pool.submit(bytes, 64_000_000).result()),
            "both_ms": during(lambda: pool.submit(echo, data).result() and None),
            "initargs_ms": during(start),
        }
    ticker.kill()
    return figures


def _pss(pid: int) -> int:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(int(line.split()[1]) * 1024 for line in file if line.startswith("Pss:"))


def main() -> None:
    """Each figure is told as soon as it is there: a peer may come to no end."""
    name = sys.argv[1]
    alone = {"bare socketpair": bare, "hundred": hundred, "stalls": stalls}
    if name in alone:
        print(json.dumps(alone[name]()))
        return
    with PEERS[name]() as submit:
        submit(add, 1, 2).result()
        for figure, measure in (
            ("round_trip_us", round_trip),
            ("tasks_per_s", many),
            ("busy_share", busy),
            ("megabytes_per_s", large),
        ):
            print(json.dumps({figure: measure(submit)}), flush=True)


if __name__ == "__main__":
    main()
