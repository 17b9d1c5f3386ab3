"""Functions that the tests run in a `Pool`."""

import ctypes
import os
import resource
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any, TypeVar

from greentask import TimeLimit, current

T = TypeVar("T")


def add(a: int, b: int) -> int:
    return a + b


def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def spin(seconds: float) -> float:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return seconds


def me() -> int:
    return os.getpid()


def kill_me(number: int = signal.SIGKILL) -> None:
    os.kill(os.getpid(), number)
    time.sleep(10)


def leave(code: int) -> None:
    os._exit(code)


def crash() -> None:
    ctypes.string_at(0)


def hold(path: str, seconds: float) -> int:
    """Leave a mark that it began, and take a while."""
    mark(path)
    time.sleep(seconds)
    return os.getpid()


def mark(path: str) -> None:
    """Leave a mark: one byte for each time that this was run."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, b"x")
    os.close(fd)


def mark_number(folder: str, number: T, seconds: float) -> T:
    mark(os.path.join(folder, str(number)))
    spin(seconds)
    return number


class Picky(Exception):
    """Can't be unpickled: its __init__ wants more than its args."""

    def __init__(self, one: str, two: str) -> None:
        super().__init__(f"{one}{two}")


def picky() -> None:
    raise Picky("a", "b")


def unpicklable() -> Any:
    return lambda: None


def large(size: int) -> bytes:
    return b"x" * size


def echo(value: Any) -> Any:
    return value


class ExitWhenUnpickled:
    def __reduce__(self) -> Any:
        return sys.exit, (1,)


def exit_when_unpickled() -> ExitWhenUnpickled:
    return ExitWhenUnpickled()


def append_to(values: Any, value: Any) -> None:
    values.append(value)


def recurse(depth: int = 0) -> int:
    return recurse(depth + 1)


def leave_politely() -> None:
    sys.exit("goodbye")


def talk(text: str) -> str:
    print(text)
    print(text, file=sys.stderr)
    os.write(1, text.encode())
    return text


def close_everything() -> None:
    os.closerange(0, 4096)


def fork_children(path: str) -> int:
    """Fork a child that would live for a minute, and tell its process id."""
    pid = os.fork()
    if pid == 0:
        time.sleep(60)
        os._exit(0)
    Path(path).write_text(str(pid))
    return pid


def install_handlers() -> None:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)


def clean_up_after_limit(path: str) -> None:
    try:
        time.sleep(30)
    except TimeLimit:
        mark(path)
        raise


def mark_if_limited(path: str, seconds: float, _payload: bytes) -> None:
    try:
        time.sleep(seconds)
    except TimeLimit:
        mark(path)
        raise


def ignore_the_limit() -> None:
    while True:
        try:
            time.sleep(30)
        except BaseException:
            pass


def eat(size: int) -> int:
    """Take memory, and keep it for a while."""
    taken = bytearray(size)
    for index in range(0, size, 4096):
        taken[index] = 1
    time.sleep(5)
    return len(taken)


def peak_memory() -> int:
    """The most that this process has had, in bytes, besides what it shares with its template."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def memory_for(value: bytes) -> tuple[bytes, int]:
    return value, peak_memory()


kept: list[bytearray] = []


def keep(size: int) -> int:
    """Take memory, and give it back never."""
    kept.append(bytearray(b"x" * size))
    return os.getpid()


def report(total: int) -> str:
    for done in range(1, total + 1):
        current().progress(done, total)
    return "done"


async def coroutine(value: Any) -> Any:
    import asyncio

    await asyncio.sleep(0)
    return [value, id(asyncio.get_running_loop())]


initialized: list[Any] = []


def initialize(*values: Any) -> None:
    initialized.extend(values)


def what_was_initialized() -> list[Any]:
    return initialized


def wait_at(gate: str, log: str) -> None:
    """An initializer that leaves a mark, and goes on when there is no gate (any more)."""
    mark(log)
    while os.path.exists(gate):
        time.sleep(0.005)


def die_soon(log: str) -> None:
    """An initializer after which the process is ready, and dies before long."""
    mark(log)
    threading.Timer(0.02, os._exit, [1]).start()


def fail_to_initialize() -> None:
    raise ValueError("no model file")
