"""Programs that the demo starts, and that never outlive it."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import IO

__all__ = ["ChildFailed", "Children", "ask"]

_STOPPED_WITHIN = 5.0  # seconds, before it is killed
_PR_SET_PDEATHSIG = 1  # linux/prctl.h


class ChildFailed(Exception):
    """A program ended before it was ready; the message has what it wrote."""


class Children:
    """Starts programs, and ends them all, last first. In the main thread only.

    Each is in a session of its own, so that Ctrl-C reaches only this program, which then ends them in order. Whatever
    kills this program, SIGKILL included, the kernel kills them as well (Linux).
    """

    def __init__(self) -> None:
        self._running: list[subprocess.Popen[str]] = []

    def start(self, *arguments: str, **environment: str) -> tuple[str, subprocess.Popen[str]]:
        """Start ``python -m ARGUMENTS`` and wait for its first line; that line, and the program.

        Raises ``ChildFailed``.
        """
        libc = ctypes.CDLL(None)  # loaded here: little may be done between fork and exec

        def die_with_us() -> None:
            if sys.platform == "linux":
                libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)

        child = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
            preexec_fn=die_with_us,
            env={**os.environ, **environment},
        )
        self._running.append(child)
        line = _stdout(child).readline().strip()
        if not line:
            raise ChildFailed(f"{' '.join(arguments)} ended with exit code {child.wait()} before it was ready")
        return line, child

    def stop(self) -> None:
        """End them, last first; kill what does not end within 5 s."""
        with _ctrl_c_waits():
            for child in reversed(self._running):
                child.terminate()
            for child in reversed(self._running):
                try:
                    child.wait(_STOPPED_WITHIN)
                except subprocess.TimeoutExpired:
                    child.kill()
                    child.wait()
                for stream in (child.stdin, child.stdout):
                    if stream is not None:
                        with contextlib.suppress(OSError):
                            stream.close()
            self._running.clear()


def ask(child: subprocess.Popen[str], question: str = "") -> str:
    """Write a line to a program, and read one."""
    assert child.stdin is not None
    child.stdin.write(question + "\n")
    child.stdin.flush()
    return _stdout(child).readline()


def _stdout(child: subprocess.Popen[str]) -> IO[str]:
    assert child.stdout is not None
    return child.stdout


@contextlib.contextmanager
def _ctrl_c_waits() -> Iterator[None]:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
