"""Which tasks the servers of a queue offer, so that it is seen what waits for nobody: a name that was misspelt, or is
no longer in the code, or whose server was forgotten.
"""

from __future__ import annotations

import logging
import shlex
import sqlite3
from collections.abc import Callable

__all__ = ["Unoffered", "not_offered", "write_offers"]

logger = logging.getLogger(__name__)

_EVERY = 5.0  # seconds between two looks; what waits for nobody at two of them is told


def write_offers(db: sqlite3.Connection, holder: int, tasks: frozenset[str]) -> None:
    """Have that server offer these, and no others, within a transaction; when its row goes, they go."""
    db.execute("DELETE FROM offer WHERE holder = ?", (holder,))
    db.executemany("INSERT INTO offer VALUES (?, ?)", [(task, holder) for task in tasks])


def not_offered(db: sqlite3.Connection, is_alive: Callable[[int], bool] = lambda _holder: True) -> list[str]:
    """The names of which tasks wait for their turn, and that no server offers which is alive."""
    holders = [holder for (holder,) in db.execute("SELECT id FROM holder").fetchall() if is_alive(holder)]
    marks = ", ".join("?" * len(holders))
    found = db.execute(
        "SELECT name FROM lane WHERE EXISTS (SELECT 1 FROM ready WHERE lane = lane.id) "
        f"AND NOT EXISTS (SELECT 1 FROM offer WHERE task = name AND holder IN ({marks})) ORDER BY name",
        holders,
    )
    return [name for (name,) in found]


class Unoffered:
    """Says so in the log, once for each name. Of several servers, one does."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._looked_at: float | None = None
        self._seen: set[str] = set()
        self._told: set[str] = set()

    def look(self, now: float, mine: int) -> None:
        """To be asked often. ``now`` is a clock that doesn't jump, ``mine`` this server as a holder."""
        if self._looked_at is not None and now - self._looked_at < _EVERY:
            return
        self._looked_at = now
        if self._db.execute("SELECT min(id) FROM holder").fetchone()[0] != mine:
            self._seen.clear()
            return
        found = set(not_offered(self._db))
        for name in sorted((found & self._seen) - self._told):  # not for a moment only, while servers start
            logger.warning(
                "tasks %r wait in the queue, and no server of it offers that name: start one that does, or end them "
                "(greentask queue revoke --task %s)",
                name,
                shlex.quote(name),
            )
            self._told.add(name)
        self._seen = found
