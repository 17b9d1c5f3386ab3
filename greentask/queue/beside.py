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

__all__ = ["LOCK", "TURN", "Beside", "is_anybody_at"]

#: struct flock of Linux, where offsets have 64 bits.
LOCK = struct.Struct("hhxxxxqqixxxx")
#: The byte for which writers wait in line; the others are those of holders.
TURN = 0
_IN_MODIFY, _IN_NONBLOCK, _IN_CLOEXEC = 0x2, os.O_NONBLOCK, os.O_CLOEXEC


class Beside:
    """That file, made where there is none. Used by one thread."""

    def __init__(self, path: str) -> None:
        self.path = f"{path}-servers"
        try:
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise ConfigurationError(f"queue {path!r}: {self.path!r} can't be written ({error.strerror})") from None
        if os.geteuid() == 0 and os.path.exists(path):  # whoever has the file must be able to write this one, too
            owner = os.stat(path)
            os.fchown(self._fd, owner.st_uid, owner.st_gid)
        try:
            self.is_held(TURN)
        except OSError as error:
            os.close(self._fd)
            raise ConfigurationError(
                f"queue {path!r}: its file system has no locks of open files ({error.strerror}): name a local disk"
            ) from None
        #: Readable when somebody has knocked, we included.
        self.knocks = _watch(self.path)
        self._queue = path
        self._identities = _identity(path), _identity(self.path)

    def close(self) -> None:
        """Let go of everything."""
        os.close(self._fd)
        os.close(self.knocks)

    def is_queue_there(self) -> bool:
        """Whether the queue's file is the one that was there at the beginning."""
        return self._identities[0] in (None, _identity(self._queue))

    def is_there(self) -> bool:
        """The same of this one."""
        return self._identities[1] == _identity(self.path)

    @contextmanager
    def turn(self) -> Iterator[None]:
        """While inside, nobody else writes who waits in line as well."""
        self._lock(fcntl.F_OFD_SETLKW, fcntl.F_WRLCK, TURN)
        try:
            yield
        finally:
            self._lock(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, TURN)

    def hold(self, holder: int) -> None:
        """Be that holder, until the process ends or lets go."""
        self._lock(fcntl.F_OFD_SETLK, fcntl.F_WRLCK, holder)

    def let_go(self, holder: int) -> None:
        """Be that holder no more."""
        self._lock(fcntl.F_OFD_SETLK, fcntl.F_UNLCK, holder)

    def is_held(self, holder: int) -> bool:
        """Whether another process is that holder."""
        asked = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, holder, 1, 0)
        kind: int = LOCK.unpack(fcntl.fcntl(self._fd, fcntl.F_OFD_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK

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
        asked = LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)  # from the first byte on
        kind: int = LOCK.unpack(fcntl.fcntl(fd, fcntl.F_OFD_GETLK, asked))[0]
        return kind != fcntl.F_UNLCK
    finally:
        os.close(fd)


def _watch(path: str) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    fd: int = libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC)
    if fd < 0 or libc.inotify_add_watch(fd, os.fsencode(path), _IN_MODIFY) < 0:
        number = ctypes.get_errno()
        if fd >= 0:
            os.close(fd)
        remedy = "; raise fs.inotify.max_user_instances" if number in (errno.EMFILE, errno.ENOSPC) else ""
        raise ConfigurationError(f"queue: {path!r} can't be watched ({os.strerror(number)}){remedy}")
    return fd
