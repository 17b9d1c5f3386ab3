"""Tasks that tell what the tests of the client need to know; served beside support.server_tasks."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from greentask import current, task

_at_once: dict[str, int] = {}
_most: dict[str, int] = {}


@task
def overlap(key: str, seconds: float = 0.05) -> int:
    """Nap; the most calls with this key that have run at once so far."""
    _at_once[key] = _at_once.get(key, 0) + 1
    _most[key] = max(_most.get(key, 0), _at_once[key])
    try:
        time.sleep(seconds)
    finally:
        _at_once[key] -= 1
    return _most[key]


@task
def most_at_once(key: str) -> int:
    """The most calls of `overlap` with this key that have run at once."""
    return _most.get(key, 0)


@task
def running_now(key: str) -> int:
    """How many calls of `overlap` with this key run now."""
    return _at_once.get(key, 0)


_released: dict[str, threading.Event] = {}


@task
def hold(key: str) -> str:
    """Wait until the key is released."""
    assert _released.setdefault(key, threading.Event()).wait(10), f"nobody has released {key}"
    return key


@task
def hold_items(key: str) -> Iterator[str]:
    yield "before"
    yield hold(key)


@task
def release(key: str) -> None:
    _released.setdefault(key, threading.Event()).set()


@task
def count_and_report(to: int) -> Iterator[int]:
    """Ten reports before each item."""
    for number in range(to):
        for _ in range(10):
            current().progress(number, to)
        yield number


@task
def growing(to: int) -> Iterator[str]:
    """Each item is a thousand characters longer than the one before it."""
    for number in range(to):
        yield "x" * 1000 * number


@task
def subtract(a: int, b: int = 0, *, times: int = 1) -> int:
    """Has arguments by position or name, and one by name only."""
    return a - b * times


@task
def total(first: int, *rest: int) -> int:
    """Has arguments that have no name."""
    return first + sum(rest)


@task
def lose(key: str) -> None:
    raise KeyError(key)


@task
def server_pid() -> int:
    return os.getpid()


@task(process=True)
def die_once(path: str) -> str:
    """Kill this process, unless a file says that it did that before."""
    if os.path.exists(path):
        return "alive"
    Path(path).touch()
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("unreachable")


@task
def remaining() -> float | None:
    return current().remaining()


@task
def ask_remaining(address: str) -> float | None:
    """What another task, called from here, has left of its time."""
    from greentask import Client  # here, for few who serve this module need it

    with Client(address) as client:
        left: float | None = client.call("remaining")
    return left


@task
def call_nap(address: str, seconds: float) -> float:
    from greentask import Client  # here, for few who serve this module need it

    with Client(address) as client:
        slept: float = client.call("nap", seconds)
    return slept
