"""What `python -m benchmarks gunicorn` runs inside one gevent web worker, and what it calls there."""

import json
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gunicorn.dirty import DirtyApp, get_dirty_client

from greentask import Pool, task

from .common import percentile

PROCESSES = 2

_pool = Pool(PROCESSES)


def add(a: int, b: int) -> int:
    return a + b


def compute(seconds: float) -> float:
    """Use that much of a processor's time."""
    end = time.thread_time() + seconds
    while time.thread_time() < end:
        pass
    return seconds


add_there = task(process=True, name="add")(add)
compute_there = task(process=True, name="compute")(compute)


class Dirty(DirtyApp):  # type: ignore[misc]
    def add(self, a: int, b: int) -> int:
        return add(a, b)

    def compute(self, seconds: float) -> float:
        return compute(seconds)


def _dirty(action: str, *args: float) -> Any:
    return get_dirty_client().execute("benchmarks.gunicorn_app:Dirty", action, *args)


KINDS: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
    "pool": (lambda: _pool.submit(add, 1, 2).result(), lambda: _pool.submit(compute, 0.01).result()),
    "task server": (lambda: add_there.call(1, 2), lambda: compute_there.call(0.01)),
    "dirty arbiter": (lambda: _dirty("add", 1, 2), lambda: _dirty("compute", 0.01)),
}


def _within(seconds: float, greenlets: int, call: Callable[[], object]) -> float:
    """Calls per second of so many greenlets."""
    began, count = time.perf_counter(), 0

    def work() -> None:
        nonlocal count
        while time.perf_counter() < began + seconds:
            call()
            count += 1

    gevent.joinall([gevent.spawn(work) for _ in range(greenlets)], raise_error=True)
    return count / (time.perf_counter() - began)


def measure(kind: str) -> dict[str, float]:
    small, computing = KINDS[kind]
    took = []
    for number in range(600):
        began = time.perf_counter()
        small()
        if number >= 100:
            took.append(time.perf_counter() - began)
    return {
        "p50_us": percentile(took, 0.5) * 1e6,
        "calls_per_s": _within(1.0, 64, small),
        "of_two_cores": _within(1.5, 8, computing) * 0.01 / PROCESSES,
    }


def app(environ: dict[str, Any], start_response: Callable[..., object]) -> Iterable[bytes]:
    kind = environ["PATH_INFO"][1:]
    answer = json.dumps(measure(kind) if kind else {}).encode()
    start_response("200 OK", [("Content-Length", str(len(answer)))])
    return [answer]
