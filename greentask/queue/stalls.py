"""Sees that somebody has a queue's lock and gets nowhere, and finds out who it is.

Whoever writes holds two locks: that of the line in which writers wait (``beside``), and for most of that time SQLite's
own. A process that is stopped, or hangs, in such a moment keeps them, and all others wait for it.

That is not seen by how long writers wait, for one of many may be unlucky. It is seen from outside: at each look the
lock is held, and SQLite's index of the log says that nothing was committed since. Both are read without a lock of our
own, so who looks never waits. A machine that was asleep, or who looks and was stopped himself, counts nothing.

Who it is the kernel knows: of each open file ``/proc`` lists the locks. Locks of open files name no process
(``F_OFD_GETLK`` says -1), so it is looked up in this way for both.
"""

from __future__ import annotations

import fcntl
import logging
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from gevent import monkey

from ..hub.home import allocate_lock
from .beside import LOCK, TURN, Beside
from .holders import TICK

__all__ = ["Stalls", "tell_of_holders", "told_turn", "who_holds"]

logger = logging.getLogger(__name__)

_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")  # for it blocks, patched or not

_PATIENCE = 3.0  # seconds for which who wants to write waits without a word
_WRITE_LOCK = 120  # the byte of the -shm file that SQLite's writer locks (WAL_WRITE_LOCK)
_INDEX_HEADER = 48  # bytes at its beginning, which change with each commit


class Stalls:
    """Looks at the locks of the queue at ``path``, once every ``TICK``. ``now`` is a clock that doesn't jump."""

    def __init__(self, path: str, now: Callable[[], float]) -> None:
        self._locked = {f"{path}-shm": _WRITE_LOCK, f"{path}-servers": TURN}
        self._index = f"{path}-shm"
        self._now = now
        self._seen: bytes | None = None
        self._since = self._looked_at = now()

    def look(self) -> float:
        """Seconds for which somebody has had the lock and has got nowhere; 0 where nobody has."""
        now, seen = self._now(), self._state()
        if seen is None or seen != self._seen or now - self._looked_at > 2 * TICK:
            self._since = now
        self._seen, self._looked_at = seen, now
        return now - self._since

    def is_held(self) -> bool:
        """Whether somebody has the lock."""
        return any(_is_locked(path, byte) for path, byte in self._locked.items())

    def holders(self, among: Iterable[int] | None = None) -> list[int]:
        """Of these processes those that have it; of all that may be looked at, where none are named.

        Where somebody has SQLite's own, it is he: the one who is first in the line just waits for him.
        """
        pids = list(map(int, filter(str.isdigit, os.listdir("/proc"))) if among is None else among)
        for path, byte in self._locked.items():
            try:
                found = os.stat(path)
            except OSError:
                continue
            file = found.st_dev, found.st_ino
            holders = [pid for pid in pids if _holds(pid, file, str(byte))]
            if holders or (among is not None and _is_locked(path, byte)):
                return holders
        return []

    def _state(self) -> bytes | None:
        """What changes when somebody gets anywhere; None where nobody has the lock."""
        if not self.is_held():
            return None
        try:
            with open(self._index, "rb", buffering=0) as file:
                return file.read(_INDEX_HEADER)
        except OSError:
            return b""


def tell_of_holders(path: str, lease: float, pids: list[int]) -> None:
    """Say in the log who it is, and what to do: one whom we have not started is not ours to end."""
    if not pids:
        logger.error(
            "somebody has had the lock of queue %r for more than %g s, and nobody can write: a process that can't be "
            "seen from here, of another user or container; let it go on, or end it",
            path,
            lease,
        )
    for pid in pids:
        logger.error(
            "process %d (%s) has had the lock of queue %r for more than %g s, and nobody can write: it is no front of "
            "this server, and is left alone; let it go on (kill -CONT %d), or end it",
            pid,
            _name_of(pid),
            path,
            lease,
            pid,
        )


def _is_locked(path: str, byte: int) -> bool:
    """Whether another process has a lock on that byte."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except OSError:  # nobody has made it yet, or it is not ours to lock
        return False
    try:
        asked = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
        kind: int = LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK
    finally:
        os.close(fd)


def _holds(pid: int, file: tuple[int, int], byte: str) -> bool:
    """Whether that process has the file open, and that byte of it locked for writing."""
    try:
        for fd in os.listdir(f"/proc/{pid}/fd"):
            try:
                found = os.stat(f"/proc/{pid}/fd/{fd}")
                if (found.st_dev, found.st_ino) == file and _has_lock(f"/proc/{pid}/fdinfo/{fd}", byte):
                    return True
            except FileNotFoundError:  # it was closed meanwhile
                continue
    except OSError:  # it is gone, or another user's
        pass
    return False


def _has_lock(path: str, byte: str) -> bool:
    """As ``lock: 1: OFDLCK ADVISORY WRITE -1 fe:00:1234 0 0`` says it: the last two are the first byte and the last."""
    with open(path) as file:
        found = [line.split() for line in file if line.startswith("lock:")]
    return any("WRITE" in words and words[-2] == byte for words in found)


def who_holds(path: str) -> str:
    """Who has the lock of the queue at ``path``, besides us, and what to do; for an error of who could not get it."""
    pids = [pid for pid in Stalls(path, lambda: 0.0).holders() if pid != os.getpid()]
    if not pids:
        return "by a process that can't be seen from here: of another user or container, or gone by now"
    return "; ".join(f"by process {pid} ({_name_of(pid)}): let it go on (kill -CONT {pid}), or end it" for pid in pids)


@contextmanager
def told_turn(beside: Beside) -> Iterator[None]:
    """Wait in line to write, and after a while say for whom. For who blocks meanwhile, and so can't say it himself."""
    waits = allocate_lock()
    waits.acquire()
    _start_thread(_tell_of_wait, (waits, beside.queue))
    with ExitStack() as stack:
        try:
            stack.enter_context(beside.turn())
        finally:
            waits.release()
        yield


def _tell_of_wait(waits: Any, path: str) -> None:
    if not waits.acquire(True, _PATIENCE):
        logger.warning("it waits to write: queue %r is locked %s", path, who_holds(path))


def _name_of(pid: int) -> str:
    """What that process is called."""
    try:
        return Path(f"/proc/{pid}/comm").read_text("utf-8", "replace").strip()
    except OSError:
        return "gone"
