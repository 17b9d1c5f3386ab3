"""Which tasks are not enqueued, for there is one already: by idempotency keys, and by those of singletons.

A *key* holds while its task is known, and for its ``ttl`` beyond. A *singleton*'s key holds while its task is open:
nobody has to let go of it, for whoever wants it next sees whether that is so.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from .interface import Message

__all__ = ["Keyed", "Keys"]


class Keyed(NamedTuple):
    """A task with what it is known by."""

    id: int
    lane: int
    key: str | None
    single: str | None


class Keys:
    """Those of a file. ``ttl``: seconds for which a key holds beyond its task, unless the message says so."""

    def __init__(self, db: sqlite3.Connection, ttl: float) -> None:
        self._db = db
        self.ttl = ttl

    def claim(self, message: Message, lane: int, id: int, first: int) -> int | None:
        """Have its keys be that task's, the ``first`` of its transaction or a later one; the task whose one is already.

        Without any effect in that case.
        """
        if message.key is not None:
            row = self._db.execute("SELECT id FROM key WHERE key = ?", (message.key,)).fetchone()
            if row is not None:
                return int(row[0])
        if message.singleton is not None:
            known = self.claim_single(lane, message.singleton, id, first)
            if known is not None:
                return known
        if message.key is not None:
            ttl = self.ttl if message.key_ttl is None else message.key_ttl
            self._db.execute("INSERT INTO key (key, id, ttl) VALUES (?, ?, ?)", (message.key, id, ttl))
        return None

    def claim_single(self, lane: int, single: str, id: int, first: int) -> int | None:
        """The same for a singleton's key."""
        row = self._db.execute(
            "SELECT s.id FROM single s LEFT JOIN task t ON t.id = s.id "
            "WHERE s.lane = ? AND s.key = ? AND s.id != ? AND (t.state = 0 OR s.id >= ?)",
            (lane, single, id, first),
        ).fetchone()
        if row is not None:
            return int(row[0])
        self._db.execute("INSERT OR REPLACE INTO single VALUES (?, ?, ?)", (lane, single, id))
        return None

    def let_go(self, tasks: Sequence[Keyed], now: float) -> None:
        """These tasks are forgotten."""
        keyed = [(task.key, task.id) for task in tasks if task.key is not None]
        if keyed:
            self._db.executemany(
                f"INSERT INTO lapse SELECT {now!r} + ttl, key FROM key WHERE key = ? AND id = ? AND ttl > 0", keyed
            )
            self._db.executemany("DELETE FROM key WHERE key = ? AND id = ? AND ttl <= 0", keyed)
        singles = [(task.lane, task.single, task.id) for task in tasks if task.single is not None]
        if singles:
            self._db.executemany("DELETE FROM single WHERE lane = ? AND key = ? AND id = ?", singles)

    def lapse(self, now: float, most: int) -> int:
        """Forget keys whose time is over, at most so many; how many they were."""
        rows = self._db.execute("SELECT at, key FROM lapse WHERE at <= ? ORDER BY at LIMIT ?", (now, most)).fetchall()
        if rows:
            self._db.executemany("DELETE FROM key WHERE key = ?", [(key,) for _, key in rows])
            self._db.executemany("DELETE FROM lapse WHERE at = ? AND key = ?", rows)
        return len(rows)
