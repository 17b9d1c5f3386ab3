"""Tasks that do whatever a task may do, good and bad: what the servers of the tests serve."""

import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from greentask import current, task

# ---- Greenlets


@task
def add(a: int, b: int = 0) -> int:
    """Add two numbers.

    What stands further down is not listed.
    """
    return a + b


@task
def echo(value: Any = None) -> Any:
    return value


@task
def length(value: str) -> int:
    return len(value)


@task
def large(size: int) -> str:
    return "x" * size


@task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task
def wait_for_file(path: str) -> str:
    while not os.path.exists(path):
        time.sleep(0.005)
    return "there"


@task(process=True)
def wait_for_file_in_process(path: str) -> str:
    return wait_for_file(path)


@task
def keep(value: Any, seconds: float) -> bool:
    """Have it in memory for a while."""
    time.sleep(seconds)
    return bool(value)


@task(timeout=0.2)
def short_nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task
def mark(file: str, seconds: float = 0.0) -> str:
    """Add a line to a file when it starts, and one when it ends, however it does."""
    return _mark("started", file, seconds)


def _mark(first: object, file: str, seconds: float) -> str:
    with open(file, "a") as lines:
        print(first, file=lines, flush=True)
        try:
            time.sleep(seconds)
        except BaseException as error:
            print(type(error).__name__, file=lines, flush=True)
            raise
        print("ended", file=lines, flush=True)
    return "marked"


@task
def send_mail(from_: str, to: str, **rest: object) -> dict[str, object]:
    return {"from": from_, "to": to, "rest": rest}


@task
def fail(text: str = "no stock") -> None:
    raise ValueError(text)


class Unheard(Exception):
    """A class that no client knows."""


@task
def misbehave(how: str) -> Any:
    """Raise what a task seldom raises, or return what JSON can't carry."""
    raised: dict[str, BaseException] = {
        "unheard": Unheard("of here only"),
        "exit": SystemExit(3),
        "interrupt": KeyboardInterrupt(),
        "base": BaseException("at the bottom"),
        "key": KeyError("missing"),
        "surrogate": ValueError("\ud800"),
        "stop": StopIteration(7),
    }
    if how in raised:
        raise raised[how]
    circle: list[object] = []
    circle.append(circle)
    values: dict[str, object] = {
        "object": {"rows": [1, object()]},
        "nan": [math.nan],
        "circle": circle,
        "bytes": b"x",
        "text": "\udfff",
    }
    return values[how]


@task(max_running=1, max_waiting=1)
def keep_apart(seconds: float = 0.0) -> float:
    time.sleep(seconds)
    return seconds


# ---- Generators and progress


@task
def count(to: int, pause: float = 0.0) -> Iterator[int]:
    for number in range(to):
        if pause:
            time.sleep(pause)
        yield number


@task
def count_and_mark(to: int, file: str) -> Iterator[int]:
    """Note how far it has come, and that it was closed."""
    try:
        for number in range(to):
            Path(file).write_text(str(number))
            yield number
    finally:
        Path(file + ".closed").touch()


@task
def count_badly(to: int) -> Iterator[int]:
    yield from range(to)
    raise ValueError("that is as far as I can count")


@task(process=True)
def count_in_process(to: int) -> Iterator[int]:
    yield from range(to)


@task
def pieces(number: int, size: int) -> Iterator[str]:
    yield from ("x" * size for _ in range(number))


@task(process=True)
def pieces_in_process(number: int, size: int) -> Iterator[str]:
    yield from ("x" * size for _ in range(number))


@task
def advance(to: int, pause: float = 0.0, note: str | None = None) -> int:
    for done in range(1, to + 1):
        current().progress(done, to, note)
        time.sleep(pause)
    return to


@task(process=True)
def advance_in_process(to: int, pause: float = 0.0) -> int:
    for done in range(1, to + 1):
        current().progress(done, to)
        time.sleep(pause)
    return to


@task
def who() -> dict[str, Any]:
    """What the running task knows about itself."""
    me = current()
    remaining = me.remaining()
    return {"id": me.id, "name": me.name, "remaining": remaining if remaining is None else round(remaining)}


# ---- Task processes


@task(process=True)
def add_in_process(a: int, b: int = 0) -> int:
    return a + b


@task(process=True)
def echo_in_process(value: Any = None) -> Any:
    return value


@task(process=True)
def spin(seconds: float) -> int:
    """Compute without a pause."""
    end, rounds = time.monotonic() + seconds, 0
    while time.monotonic() < end:
        rounds += 1
    return rounds


@task(process=True)
def nap_in_process(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task(process=True)
def mark_in_process(file: str, seconds: float = 0.0) -> str:
    """As `mark`; its first line is the process's id."""
    return _mark(os.getpid(), file, seconds)


@task(process=True)
def fail_in_process(text: str = "no stock") -> None:
    raise ValueError(text)


@task(process=True)
def die(how: str = "kill") -> None:
    """End the process that runs this."""
    if how == "exit":
        os._exit(3)
    os.kill(os.getpid(), {"kill": signal.SIGKILL, "segv": signal.SIGSEGV}[how])
    time.sleep(60)


@task(process=True)
def fork_a_sleeper() -> int:
    """Leave a program running; its process id."""
    return subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], stdin=subprocess.DEVNULL).pid


# ---- Not decorated: served by name


def plain_add(a: int, b: int) -> int:
    """Add, without knowing of greentask."""
    return a + b


def plain_pid() -> int:
    return os.getpid()
