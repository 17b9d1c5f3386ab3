"""Tasks that were revoked while they run: a mark in the file, until their attempt has ended.

Whoever revokes one may be another server than that which runs it, or a person beside all servers. So he leaves a mark;
the server whose task it is sees it when it is knocked at, or at its next look, and cancels the attempt. However that
ends then (by an error, with its process, with its server), it was the last one. Only a result counts all the same: the
task was done before it could be stopped.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

__all__ = ["Revoking"]


class Revoking:
    """These marks. Most of the time there is none, and to find that out costs next to nothing."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def mark(self, id: int) -> None:
        """Have the attempt that runs be the last one, within a transaction."""
        self._db.execute("INSERT OR IGNORE INTO revoked VALUES (?)", (id,))

    def is_marked(self, id: int) -> bool:
        """Whether it is being ended."""
        return self._db.execute("SELECT 1 FROM revoked WHERE id = ?", (id,)).fetchone() is not None

    def of(self, holder: int) -> list[int]:
        """Those that this holder runs, and is to end."""
        rows = self._db.execute(
            "SELECT v.id FROM revoked v JOIN running r ON r.id = v.id WHERE r.holder = ?", (holder,)
        )
        return [id for (id,) in rows]

    def take(self, ids: Iterable[int]) -> set[int]:
        """Of those whose attempts have ended, the marked ones; they are no more, within a transaction."""
        if self._db.execute("SELECT 1 FROM revoked LIMIT 1").fetchone() is None:
            return set()
        taken = "DELETE FROM revoked WHERE id = ?"
        return {id for id in ids if self._db.execute(taken, (id,)).rowcount}
