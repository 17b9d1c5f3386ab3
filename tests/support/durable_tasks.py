"""Tasks that tests enqueue. They leave marks in a file, by which it is seen who ran when, and how often."""

import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from greentask import Backoff, CancelRequest, Retry, current, resource, task


def mark(path: str, what: object) -> None:
    """Append one line to a file, in one piece."""
    fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{what}\n".encode())
    os.close(fd)


def marks(path: Path) -> list[str]:
    """The lines of such a file."""
    return path.read_text().split() if path.exists() else []


@task
def add(a: int, b: int = 1) -> int:
    return a + b


@task(process=True)
def add_in_process(a: int, b: int = 1) -> int:
    return a + b


@task
def note(path: str, what: object) -> object:
    mark(path, what)
    return what


@task(process=True)
def note_in_process(path: str, what: object) -> object:
    mark(path, what)
    return what


@task(process=True)
def dawdle(path: str, what: str, seconds: float) -> None:
    mark(path, what)
    time.sleep(seconds)


@task
def me() -> list[Any]:
    return [current().id, current().name, current().attempt]


@task(process=True)
def me_in_process() -> list[Any]:
    return [current().id, current().name, current().attempt]


@task(retries=2, backoff=Backoff(base=0.05, jitter=False), give_up_on=KeyError)
def fail(kind: str = "ValueError", until: int = 1000) -> int:
    """Fail until that attempt."""
    attempt = current().attempt
    assert attempt is not None
    if attempt < until:
        raise {"ValueError": ValueError, "KeyError": KeyError}[kind](f"attempt {attempt}")
    return attempt


@task(process=True, retries=1, backoff=Backoff(base=0.05, jitter=False))
def fail_in_process() -> None:
    raise ValueError(f"attempt {current().attempt}")


@task
def give_up() -> None:
    raise CancelRequest("enough")


@task(process=True)
def give_up_in_process() -> None:
    raise CancelRequest("enough")


class NotYet(Retry):
    """Asks to be tried again under a name of its own."""


@task
def again(times: int, named: bool = False) -> int:
    attempt = current().attempt
    assert attempt is not None
    if attempt <= times:
        raise (NotYet if named else Retry)("not yet", delay=0.02)
    return attempt


@task(process=True)
def again_in_process(times: int, named: bool = False) -> int:
    return again(times, named)


@task(process=True)
def die(until: int = 1000) -> int:
    """Kill its process until that attempt."""
    attempt = current().attempt
    assert attempt is not None
    if attempt < until:
        os.kill(os.getpid(), signal.SIGKILL)
    return attempt


@task
def nap(path: str, seconds: float) -> str:
    mark(path, "began")
    time.sleep(seconds)
    mark(path, "ended")
    return "rested"


@task(process=True)
def nap_in_process(path: str, seconds: float) -> str:
    mark(path, "began")
    time.sleep(seconds)
    mark(path, "ended")
    return "rested"


@task(max_running=1)
def alone(path: str, seconds: float) -> None:
    mark(path, "began")
    time.sleep(seconds)
    mark(path, "ended")


@resource
def slowly_closed() -> Iterator[str]:
    yield "open"
    time.sleep(1)


@task(process=True, needs=[slowly_closed])
def beat(path: str, seconds: float) -> None:
    """Leave marks again and again, with the process and the time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        mark(path, f"{os.getpid()}:{time.monotonic()}")
        time.sleep(0.02)


@task(process=True)
def steps(count: int) -> int:
    for done in range(count):
        current().progress(done, count)
        time.sleep(0.05)
    return count


@task(timeout=0.2, process=True)
def too_long() -> None:
    time.sleep(30)


@task(rate="5/s")
def now() -> float:
    return time.monotonic()


@task(priority=7)
def urgent() -> None: ...


@task(ttl=0.05)
def at_once() -> None: ...


@task(process=True, singleton="what")
def one_of(what: object) -> object:
    return what


@task
def collect(parts: list[Any], path: str = "/dev/null", label: str = "collected") -> list[Any]:
    mark(path, label)
    return parts


@task
def odd(number: int) -> int:
    """Fail for even ones."""
    if number % 2 == 0:
        raise ValueError(f"{number} is even")
    return number
