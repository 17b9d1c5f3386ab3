"""Programs that tests start: run to their end, or up to their first line."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from greentask.master.fronts import PATCH
from support import preloaded

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


def environment(**variables: str) -> dict[str, str]:
    """Ours, with the tests' modules importable and rich's output plain."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "120", "TERM": "dumb", **variables}


def greentask(
    *arguments: str, input: str | None = None, timeout: float = 60, cwd: Path | None = None, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m greentask ARGUMENTS` to its end."""
    if preloaded.can_fork(arguments, variables):
        return _run_forked(arguments, input, timeout, cwd, environment(**variables))
    return subprocess.run(
        [sys.executable, "-m", "greentask", *arguments],
        input=input,
        capture_output=True,
        text=True,
        timeout=timeout,
        cwd=cwd,
        env=environment(**variables),
    )


def _run_forked(
    arguments: Sequence[str], input: str | None, timeout: float, cwd: Path | None, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    with ThreadPoolExecutor(3) as threads, ExitStack() as stack:
        if input is None:
            stdin = stack.enter_context(open(os.devnull, "rb")).fileno()
        else:
            stdin, writer = os.pipe()
            threads.submit(_write, writer, input.encode())
        (out, stdout), (err, stderr) = os.pipe(), os.pipe()
        read = [threads.submit(_read, fd) for fd in (out, err)]
        try:
            started = preloaded.start(arguments, env, stdin=stdin, stdout=stdout, stderr=stderr, cwd=cwd)
        finally:
            for fd in (stdout, stderr, *([stdin] if input is not None else [])):
                os.close(fd)
        with started:
            try:
                code = started.wait(timeout)
            except BaseException:
                started.kill()
                raise
        return subprocess.CompletedProcess(started.args, code, *(one.result() for one in read))


def _write(fd: int, data: bytes) -> None:
    with suppress(BrokenPipeError), open(fd, "wb", buffering=0) as file:
        while data:
            data = data[file.write(data) :]


def _read(fd: int) -> str:
    with open(fd) as file:
        return file.read()


def run_source(source: str, *arguments: str, patched: bool = False, **variables: str) -> list[str]:
    """Run a program's source to its end; the words that it printed. It ends well, and complains of nothing.

    `patched`: gevent patches the standard library before anything else.
    """
    return run_at_once(source, [arguments], patched=patched, **variables)[0]


def run_at_once(
    source: str, each: Iterable[Sequence[str]], *, patched: bool = False, **variables: str
) -> list[list[str]]:
    """`run_source` with each of these arguments, all at the same time."""
    with starting(source, each, patched=patched, **variables) as started:
        ended = [(one.communicate(timeout=60), one.returncode, one.args) for one in started]
    for (output, complaints), code, arguments in ended:
        assert (code, complaints) == (0, ""), f"{arguments!r}: {code} {output}\n{complaints}"
    return [output.split() for (output, _), _, _ in ended]


@contextmanager
def starting(
    source: str, each: Iterable[Sequence[str]], *, patched: bool = False, **variables: str
) -> Iterator[list[subprocess.Popen[str]]]:
    """Start a program's source with each of these arguments; what hasn't ended then is killed.

    They heed Ctrl-C, even where we don't (a shell's background job, say).
    """
    head = PATCH if patched else ""  # as a front begins, in half the time that gevent takes
    head += "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    warnings = ["-W", "error", "-W", "ignore:This process (pid=:DeprecationWarning"]  # it forks, and has threads
    with ExitStack() as stack:
        started = []
        for arguments in each:
            one = subprocess.Popen(
                [sys.executable, *warnings, "-c", head + source, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                env=environment(**variables),
            )
            stack.enter_context(one)
            stack.callback(one.kill)
            started.append(one)
        yield started


@contextmanager
def program(
    *arguments: str, cwd: Path | None = None, stop_with: int = signal.SIGTERM, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `python ARGUMENTS`; its first line of output and the program, which ends with the context."""
    started = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables),
    )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        if not line:
            raise AssertionError(f"{arguments} ended at once: {started.communicate()[1]}")
        yield line.strip(), started
    finally:
        started.send_signal(stop_with)
        try:
            started.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate()
            raise
