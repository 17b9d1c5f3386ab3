"""The tasks: each appends a line to a file, which says who did so, when, and at which attempt.

The wall clock of the servers that import this is the machine's, and as many seconds more as a file says.
"""

import mmap
import os
import struct
import time

import greentask.queue.sqlite
from greentask import Backoff, current, task
from greentask.queue.clock import Clock

_OFFSET = struct.Struct("d")
_BACKOFF = Backoff(base=0.05, max=1.0)


def append(file: str, number: int, lasts: float) -> int:
    """Have an effect in the middle of ``lasts`` seconds."""
    time.sleep(lasts / 2)
    now = current()
    line = f"\n{number} {now.attempt} {now.id} {time.monotonic():.6f} {os.getpid()} {os.getppid()} .\n".encode()
    fd = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    try:
        if os.write(fd, line) < len(line):
            raise OSError("the line was cut")
    finally:
        os.close(fd)
    time.sleep(lasts / 2)
    return number


in_greenlet = task(name="in_greenlet", retries=1000, backoff=_BACKOFF, retry_on=OSError)(append)
in_process = task(name="in_process", process=True, retries=1000, backoff=_BACKOFF, retry_on=OSError)(append)


def set_clock(file: str, seconds: float) -> None:
    """Let the clock of all servers that have this file be so many seconds fast."""
    with open(file, "r+b" if os.path.exists(file) else "w+b") as opened:
        opened.write(_OFFSET.pack(seconds))


class _Clock(Clock):
    def __init__(self, file: str) -> None:
        with open(file, "rb") as opened:
            held = mmap.mmap(opened.fileno(), _OFFSET.size, prot=mmap.PROT_READ)
        super().__init__(wall=lambda: time.time() + _OFFSET.unpack(held)[0])


if "TORTURE_CLOCK" in os.environ:
    greentask.queue.sqlite.Clock = lambda: _Clock(os.environ["TORTURE_CLOCK"])  # type: ignore
