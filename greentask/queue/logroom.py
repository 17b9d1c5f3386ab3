"""Room in SQLite's log (``-wal``) for what is written next, so that a small commit makes the file no longer.

Where a file gets longer, its new length is synced as well, which the file system writes to its own log: such a commit
takes twice as long. SQLite's log is empty when the first server starts, and without this each commit would make it
longer, until it has 16 MB and is written from its begin again. So zeros are written ahead, some at a time. To SQLite,
and to whoever reads the log, they are what is left of an older one, for they don't have the salts of this one.
"""

from __future__ import annotations

import os

from .schema import CHECKPOINT_BYTES, PAGE
from .walfile import FRAME_HEADER, HEADER

__all__ = ["LogRoom"]

_FRAME = FRAME_HEADER + PAGE
_MADE = 64 * _FRAME  # bytes that are written ahead
_SMALL = 16 * _FRAME  # where a commit writes more, it isn't the file's length that it waits for


class LogRoom:
    """That of the queue at ``path``, whose log is there; for the connection that writes."""

    def __init__(self, path: str) -> None:
        self._fd: int | None
        try:
            self._fd = os.open(f"{path}-wal", os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # it was removed, which is told elsewhere
            self._fd = None
        self._length = 0  # as it was seen last

    def close(self) -> None:
        """Close the log."""
        if self._fd is not None:
            os.close(self._fd)

    def make(self) -> None:
        """Make some where there is none, within a transaction that writes: nobody else adds to the log then."""
        if self._fd is None:
            return
        length = os.lseek(self._fd, 0, os.SEEK_END)
        if length == self._length:
            return
        grown, self._length = length - self._length, length
        is_wanted = 0 < grown <= _SMALL and HEADER < length < CHECKPOINT_BYTES and (length - HEADER) % _FRAME == 0
        if is_wanted and any(os.pread(self._fd, FRAME_HEADER, length - _FRAME)):  # else another server has made some
            try:
                self._length += os.pwrite(self._fd, bytes(_MADE), length)
            except OSError:  # the disk is full, say: SQLite will tell
                pass
