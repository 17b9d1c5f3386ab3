"""Keeps SQLite's log (``-wal``) from growing for as long as somebody reads.

SQLite begins its log anew when all of it is in the file and nobody reads from it. Where readers take turns, each of
them for a moment, there may never be such a moment, and the log grows by all that is written. So when it is long, those
who begin to read are sent to the file, and the others are waited for, shortly: who writes waits meanwhile. That may
take the longer, the longer the log has become.
"""

from __future__ import annotations

import os
import sqlite3

from .schema import CHECKPOINT_BYTES

__all__ = ["LongLog"]

_LONG = 2 * CHECKPOINT_BYTES
_WAIT, _MOST_WAIT = 0.1, 0.5  # seconds for those who read, where the log has just become long, and where it is longer
_MOST_PAUSE = 64.0  # seconds between two attempts, where somebody reads for long


class LongLog:
    """The log of the queue at ``path``, for the connection that writes. ``now`` is a clock that doesn't jump."""

    def __init__(self, db: sqlite3.Connection, path: str) -> None:
        self._db = db
        self._log = f"{path}-wal"
        self._next = 0.0
        self._pause = 1.0
        self._size = 0  # bytes, as it was seen last
        #: Whether it is to be begun anew, however short it is: the file has its new size only then.
        self.is_wanted = False

    def is_due(self, now: float) -> bool:
        """Whether it is to be begun anew."""
        if now < self._next:
            return False
        try:
            self._size = os.stat(self._log).st_size
        except OSError:  # it was removed, which is told elsewhere
            return False
        return self.is_wanted or self._size > _LONG

    def begin_anew(self, now: float) -> bool:
        """Try it, not within a transaction; whether it has been done. If not, it is not due for a while."""
        (busy,) = self._db.execute("PRAGMA busy_timeout").fetchone()
        wait = min(_MOST_WAIT, _WAIT * max(1.0, self._size / _LONG))
        self._db.execute(f"PRAGMA busy_timeout = {int(1000 * wait)}")
        try:
            is_done = bool(self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0)
        finally:
            self._db.execute(f"PRAGMA busy_timeout = {busy}")
        self.is_wanted &= not is_done
        self._next = now + (0.0 if is_done else self._pause)
        self._pause = 1.0 if is_done else min(_MOST_PAUSE, 2 * self._pause)
        return is_done
