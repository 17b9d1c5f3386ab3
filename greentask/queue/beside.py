"""The file beside a queue's file, by which the servers that share it know of each other. It is empty, but for locks.

- Who holds a lock is alive: the kernel lets go of it in the moment in which a process ends, however that happens.
- Who wants to write waits in line for a lock, and is woken when its turn has come. SQLite would look again and again.
- Who has written for others to see *knocks*: he writes a byte, of which inotify tells them.

Its locks are those of the open file (``F_OFD_SETLK``): they outlive whatever else this process opens and closes, and
belong to none of its children, which don't inherit the descriptor through exec.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from ..errors import ConfigurationError

__all__ = ["LOCK", "SETTLING", "TURN", "Beside", "is_anybody_at"]

#: struct flock of Linux, where offsets have 64 bits.
LOCK = struct.Struct("hhxxxxqqixxxx")
#: The byte for which writers wait in line; the others are those of holders.
TURN = 0
#: And one that is held while it is not certain that all who are alive hold their own. No holder has it.
SETTLING = 1 << 62
_TAKE_TURN = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, TURN, 1, 0)
_END_TURN = LOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, TURN, 1, 0)
_FORMER = 3  # files that were removed of which the locks are still heeded
_IN_MODIFY, _IN_NONBLOCK, _IN_CLOEXEC = 0x2, os.O_NONBLOCK, os.O_CLOEXEC


class Beside:
    """That file, made where there is none. Used by one thread."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}-servers"
        #: The queue's file.
        self.queue = path
        self._former: list[int] = []
        try:
            #: Whether there was none before.
            self._fd, self.is_new = self._open()
        except OSError as error:
            raise ConfigurationError(f"queue {path!r}: {self.path!r} can't be written ({error.strerror})") from None
        try:
            self.is_held(TURN)
        except OSError as error:
            os.close(self._fd)
            raise ConfigurationError(
                f"queue {path!r}: its file system has no locks of open files ({error.strerror}): name a local disk"
            ) from None
        #: Readable when somebody has knocked, we included.
        self.knocks = _watch(self.path)
        self._identity = _identity(path)
        self._logs: dict[str, tuple[int, int] | None] = {}

    def close(self) -> None:
        """Let go of everything."""
        for fd in (self._fd, *self._former, self.knocks):
            os.close(fd)

    def is_queue_there(self) -> bool:
        """Whether the queue's file is the one that was there at the beginning."""
        return self._identity in (None, _identity(self.queue))

    def know_logs(self) -> None:
        """Those of SQLite's own files that are beside the queue's now are to stay."""
        self._logs = {name: _identity(name) for name in (f"{self.queue}-wal", f"{self.queue}-shm")}

    def missing_log(self) -> str | None:
        """One of these that was removed, or has another one in its place."""
        return next((name for name, known in self._logs.items() if known not in (None, _identity(name))), None)

    def is_there(self) -> bool:
        """Whether this file is the one that is open."""
        found = os.fstat(self._fd)
        return (found.st_dev, found.st_ino) == _identity(self.path)

    def renew(self) -> bool:
        """Use the file that is there now, in place of one that was removed; whether we have made it.

        Who held a lock of the former one is alive as before; those of our own are to be held anew.
        """
        fd, is_new = self._open()
        _watch(self.path, self.knocks)
        self._former = [self._fd, *self._former]
        for former in self._former[_FORMER:]:
            os.close(former)
        self._former, self._fd = self._former[:_FORMER], fd
        return is_new

    def _open(self) -> tuple[int, bool]:
        flags, is_new = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, True
        try:
            fd = os.open(self.path, flags | os.O_EXCL, 0o666)
        except FileExistsError:
            fd, is_new = os.open(self.path, flags, 0o666), False
        if os.geteuid() == 0 and os.path.exists(self.queue):  # who has that file must be able to write this one, too
            owner = os.stat(self.queue)
            os.fchown(fd, owner.st_uid, owner.st_gid)
        return fd, is_new

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While inside, nobody else writes who waits in line as well."""
        fcntl.fcntl(self._fd, fcntl.F_OFD_SETLKW, _TAKE_TURN)
        try:
            yield
        finally:
            fcntl.fcntl(self._fd, fcntl.F_OFD_SETLK, _END_TURN)

    def hold(self, holder: int) -> None:
        """Be that holder, until the process ends or lets go."""
        self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, holder)

    def settle(self) -> None:
        """Say that those who are alive may not all hold their locks yet; several may say so."""
        self._lock(fcntl.F_OFD_SETLK, fcntl.F_RDLCK, SETTLING)

    def let_go(self, holder: int) -> None:
        """Be that holder no more."""
        for fd in (self._fd, *self._former):
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, LOCK.pack(fcntl.F_UNLCK, os.SEEK_SET, holder, 1, 0))

    def is_held(self, holder: int) -> bool:
        """Whether another process is that holder."""
        return any(_is_locked(fd, holder, 1) for fd in (self._fd, *self._former))

    def knock(self) -> None:
        """Tell the others that there is something to see."""
        try:
            os.pwrite(self._fd, b"\0", 0)
        except OSError:
            pass  # a full disk; they look by themselves, if later

    def hear_knocks(self) -> bool:
        """Whether somebody has knocked since the last time."""
        try:
            return bool(os.read(self.knocks, 4096))
        except BlockingIOError:
            return False

    def _lock(self, command: int, kind: int, byte: int) -> None:
        fcntl.fcntl(self._fd, command, LOCK.pack(kind, os.SEEK_SET, byte, 1, 0))


def _identity(path: str) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_anybody_at(path: str) -> bool:
    """Whether a server has the queue of that path, whatever is in its file."""
    try:
        fd = os.open(f"{path}-servers", os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        return _is_locked(fd, 0, 0)  # from the first byte on
    finally:
        os.close(fd)


def _is_locked(fd: int, start: int, length: int) -> bool:
    """Whether another open file has a lock there."""
    asked = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, start, length, 0)
    kind: int = LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


def _watch(path: str, known: int | None = None) -> int:
    """What tells of changes of the file at that path, besides those of which it tells already."""
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC) if known is None else known
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY) < 0:
        number = ctypes.get_errno()
        if fd >= 0 and known is None:
            os.close(fd)
        remedy = "; raise fs.inotify.max_user_instances" if number in (errno.EMFILE, errno.ENOSPC) else ""
        raise ConfigurationError(f"queue: {path!r} can't be watched ({os.strerror(number)}){remedy}")
    return fd
