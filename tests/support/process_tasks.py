"""Tasks for task processes: what they do, well and badly."""

import asyncio
import contextlib
import ctypes
import itertools
import locale
import os
import resource
import signal
import sys
import time
from collections import deque
from collections.abc import Iterator
from typing import Any

from greentask import current, task
from greentask.errors import CancelRequest, InvalidResult, TimeLimit


def note(path: str, text: str) -> None:
    """Append a line to a file, whole, whoever else does."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        os.write(fd, f"{text}\n".encode())
    finally:
        os.close(fd)


# ---- Well


@task(process=True)
def echo(value: Any) -> Any:
    return value


@task(process=True)
def pid() -> int:
    return os.getpid()


@task(process=True)
def nap(seconds: float) -> int:
    time.sleep(seconds)
    return os.getpid()


@task(process=True)
def size_of(value: str, seconds: float = 0) -> int:
    time.sleep(seconds)
    return len(value)


@task(process=True)
def effect(path: str, text: str, seconds: float = 0) -> str:
    note(path, text)
    time.sleep(seconds)
    return text


@task(process=True)
def tiny(path: str, text: str, then: float | str = 0) -> str:
    """Note that it ran; then be quick as a rule, or be long, or "die"."""
    note(path, text)
    if then == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif then:
        time.sleep(float(then))
    return text


@task(process=True)
def hold(started: str, release: str) -> int:
    """Say that it runs, and run until it is released."""
    note(started, str(os.getpid()))
    while not os.path.exists(release):
        time.sleep(0.002)
    return os.getpid()


@task(process=True)
def deadline() -> float | None:
    return current().deadline


@task(process=True)
def steps(count: int, pause: float = 0) -> int:
    for done in range(count):
        current().progress(done, count, "a step")
        time.sleep(pause)
    return count


@task(process=True)
def stream(count: int) -> Iterator[int]:
    yield from range(count)


@task(process=True)
def produce(path: str, count: int) -> Iterator[int]:
    """Note each item before it is yielded, and the end of it all."""
    try:
        for number in range(count):
            note(path, str(number))
            yield number
    finally:
        note(path, "end")


@task(process=True)
def wait_for_signal(path: str) -> str:
    """Wait to be interrupted; note by what, and let it go on."""
    note(path, "waits")
    try:
        while True:
            time.sleep(60)
    except (TimeLimit, CancelRequest) as interrupt:
        note(path, type(interrupt).__name__)
        raise


@task(process=True)
def give_what_there_is(path: str) -> str:
    note(path, "waits")
    try:
        time.sleep(60)
    except TimeLimit:
        pass
    return "half of it"


# What a coroutine would keep: made in one call, used in the next.
_kept: list[Any] = []


@task(process=True)
async def meet() -> list[int]:
    """The event loop and the lock of every call so far, by what they are."""
    if not _kept:
        _kept.extend([asyncio.get_running_loop(), asyncio.Lock()])
    loop, lock = _kept
    assert loop is asyncio.get_running_loop()
    async with lock:
        await asyncio.sleep(0)
    return [id(loop), id(lock)]


@task(process=True)
async def wait_in_loop(path: str) -> None:
    note(path, "waits")
    try:
        await asyncio.sleep(60)
    finally:
        note(path, "cleaned up")


# ---- Badly: how a process ends


@task(process=True)
def kill_self(number: int) -> None:
    os.kill(os.getpid(), number)
    time.sleep(60)


@task(process=True)
def segfault() -> None:
    ctypes.string_at(0)


@task(process=True)
def exit_at_once(code: int) -> None:
    os._exit(code)


@task(process=True)
def abort() -> None:
    os.abort()


@task(process=True)
def eat_memory(more: int) -> int:
    """Eat what the process may not have."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, hard))
    try:
        return len(b"x" * (2 * more))
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


@task(process=True)
def eat_memory_until_killed(more: int) -> None:
    """Eat memory, and do what the kernel's killer does when there is none left."""
    eaten = []
    for _ in range(64):
        eaten.append(b"x" * (more // 64))
    os.kill(os.getpid(), signal.SIGKILL)


# ---- Badly: how a process doesn't end


@task(process=True)
def spin(path: str) -> None:
    note(path, "spins")
    while True:
        pass


@task(process=True)
def spin_in_c(path: str) -> None:
    """Hold the interpreter's lock, and run no Python code in which a signal could be handled."""
    note(path, "spins")
    deque(itertools.repeat(None), maxlen=0)


@task(process=True)
def ignore_everything(path: str) -> None:
    for number in set(signal.valid_signals()) - {signal.SIGKILL, signal.SIGSTOP, signal.SIGURG}:
        with contextlib.suppress(OSError):
            signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        os.setpgid(0, os.getpgid(os.getppid()))
    note(path, "ignores")
    while True:
        try:
            time.sleep(60)
        except BaseException as error:
            note(path, type(error).__name__)


@task(process=True)
def stop_self() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


# ---- Badly: results and errors


@task(process=True)
def give(what: str) -> Any:
    """A result that JSON can't carry."""
    if what == "object":
        return {"rows": [1, {"when": object()}]}
    if what == "bytes":
        return b"\xff"
    if what == "nan":
        return [1.0, float("nan")]
    if what == "surrogate":
        return "\ud800"
    if what == "circle":
        circle: list[Any] = [1]
        circle.append(circle)
        return circle
    if what == "deep":
        deep: list[Any] = []
        for _ in range(10_000):
            deep = [deep]
        return deep
    if what == "own":
        return OwnJSON()
    raise LookupError(what)


class OwnJSON:
    def __json__(self) -> str:
        raise KeyError("its own method fails")


@task(process=True)
def stream_what_cannot_be_sent() -> Iterator[Any]:
    yield 1
    yield object()


@task(process=True)
def large(size: int) -> str:
    return "x" * size


@task(process=True)
def fail(what: str) -> None:
    """An exception that a caller has nothing to make it of."""

    class Local(Exception):
        def __init__(self, one: int, two: int) -> None:
            super().__init__(f"{one} of {two}")

        def __reduce__(self) -> Any:
            raise TypeError("not to be pickled")

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    if what == "local":
        raise Local(3, 5)
    if what == "mute":
        raise Mute
    if what == "unicode":
        b"\xff".decode()
    if what == "surrogate":
        raise ValueError("\ud800")
    if what == "group":
        raise GroupLike("two", [ValueError("a"), KeyError("b")])
    if what == "ours":
        raise InvalidResult("the task's own")
    raise LookupError(what)


class GroupLike(Exception):
    def __init__(self, message: str, errors: list[Exception]) -> None:
        super().__init__(message, errors)


@task(process=True)
def leave(how: str) -> None:
    """Raise what isn't an error, but a way to end a program, a greenlet or a task."""
    if how == "sys.exit":
        sys.exit(3)
    if how == "sys.exit with words":
        sys.exit("that's it")
    ends: dict[str, BaseException] = {
        "SystemExit": SystemExit(),
        "KeyboardInterrupt": KeyboardInterrupt(),
        "GeneratorExit": GeneratorExit(),
        "BaseException": BaseException("the root"),
        "StopIteration": StopIteration(),
        "TimeLimit": TimeLimit("its own"),
        "CancelRequest": CancelRequest("its own"),
    }
    raise ends[how]


@task(process=True)
def recurse() -> None:
    recurse()


# ---- Badly: what a process shares


@task(process=True)
def write_to_standard_streams() -> None:
    print("a task prints", flush=True)
    print("a task complains", file=sys.stderr, flush=True)
    os.write(1, b"a task writes\n")
    sys.stdout.close()
    sys.stderr.close()


@task(process=True)
def close_descriptors(below: int) -> None:
    os.closerange(0, below)


@task(process=True)
def write_into_descriptors(below: int) -> None:
    """Write into everything that is open, the process's own socket too."""
    for fd in range(3, below):
        with contextlib.suppress(OSError):
            os.write(fd, b"\xff" * 64)
    time.sleep(60)


@task(process=True)
def change_surroundings() -> None:
    os.chdir("/")
    os.umask(0o77)
    os.environ.clear()
    locale.setlocale(locale.LC_ALL, "C")
    sys.path.clear()
    sys.setrecursionlimit(200)


@task(process=True)
def take_signals() -> None:
    """Install handlers of its own, also for the signal by which a process is told of an interruption."""
    for number in (signal.SIGURG, signal.SIGTERM, signal.SIGINT, signal.SIGCHLD, signal.SIGPIPE, signal.SIGALRM):
        signal.signal(number, lambda *_: None)


class Alarm(Exception):
    pass


@task(process=True)
def stream_with_alarm(count: int) -> Iterator[int]:
    """A stream whose alarm goes off while it waits for its reader."""

    def ring(*_: Any) -> None:
        raise Alarm("too slow a reader")

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    yield from range(count)


@task(process=True)
def fork_child(path: str) -> int:
    """Fork a child that stays; its process id."""
    child = os.fork()
    if child == 0:
        note(path, str(os.getpid()))
        while True:
            signal.pause()
    return child


@task(process=True)
def fork_and_return(path: str) -> int:
    """Fork, and return in both."""
    child = os.fork()
    if child == 0:
        note(path, str(os.getpid()))
    return os.getpid()


@task(process=True)
def daemonize(path: str) -> None:
    """Leave a daemon behind, as daemons are made: in a session of its own, its parent gone."""
    middle = os.fork()
    if middle == 0:
        os.setsid()
        if os.fork() == 0:
            note(path, str(os.getpid()))
            while True:
                signal.pause()
        os._exit(0)
    os.waitpid(middle, 0)
