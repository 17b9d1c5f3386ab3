"""Forgetting: tasks that ended long enough ago, keys that have lapsed, and dead letters that are too many.

It is done in steps, a few rows in each transaction, so that it holds nothing up, and in transactions of its own only
where there is nothing else to do. SQLite uses the pages that become free again; where they are most of the file, they
are given back.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence

from .ids import MOST_ID, id_text
from .keys import Keyed, Keys

__all__ = ["Cleaner"]

logger = logging.getLogger(__name__)

#: Tasks that are forgotten in a transaction in which there is nothing else to do.
STEP = 200
#: And in one that is there for others, besides twice as many as end in it.
FEW = 20

_MOST_PAGES = 500  # that are given back to the file system at once
_SPARE = 4096  # free pages that are kept


class Cleaner:
    """What is forgotten of a file. ``dead_limit``: dead letters that are kept. ``now`` is queue time.

    ``needed`` says which tasks others need yet: those are looked at again after ``result_ttl`` seconds.
    """

    def __init__(
        self,
        db: sqlite3.Connection,
        keys: Keys,
        now: Callable[[], float],
        dead_limit: int,
        result_ttl: float,
        needed: Callable[[Sequence[int]], set[int]],
    ) -> None:
        self._db = db
        self._keys = keys
        self._now = now
        self._dead_limit = min(dead_limit, MOST_ID)  # there are no more, and SQLite has no larger number
        self._result_ttl = result_ttl
        self._needed = needed
        self._too_old: int | None = None  # the newest dead letter that is one too many

    def look(self) -> None:
        """See whether there are too many dead letters; to be done now and then, for it counts them."""
        row = self._db.execute(
            "SELECT id FROM task WHERE state = 2 ORDER BY id DESC LIMIT 1 OFFSET ?", (self._dead_limit,)
        ).fetchone()
        self._too_old = None if row is None else row[0]

    def has_work(self) -> bool:
        """Whether there is something to forget."""
        return any(self._due(self._now())) or self._too_old is not None

    def _due(self, now: float) -> tuple[bool, bool]:
        """Whether there are tasks to be forgotten, and keys."""
        task, key = self._db.execute("SELECT (SELECT min(at) FROM forget), (SELECT min(at) FROM lapse)").fetchone()
        return task is not None and task <= now, key is not None and key <= now

    def step(self, most: int = STEP) -> int:
        """Forget some, within a transaction; how many they were."""
        now = self._now()
        tasks, keys = self._due(now)
        return (
            (self._forget(now, most) if tasks else 0)
            + self._forget_dead(most)
            + (self._keys.lapse(now, most) if keys else 0)
        )

    def _forget(self, now: float, most: int) -> int:
        rows = self._db.execute(
            "SELECT f.at, f.id, t.lane, t.key, t.single FROM forget f "
            "LEFT JOIN task t ON t.id = f.id AND t.state <> 0 WHERE f.at <= ? ORDER BY f.at, f.id LIMIT ?",
            (now, most),
        ).fetchall()
        needed = self._needed([row[1] for row in rows])
        over = {row[1]: Keyed(*row[1:]) for row in rows if row[1] not in needed and row[2] is not None}  # or was purged
        self.erase(list(over.values()))
        self._db.executemany("DELETE FROM forget WHERE at = ? AND id = ?", [row[:2] for row in rows])
        later = now + max(1.0, self._result_ttl)
        kept = self._db.executemany("INSERT OR IGNORE INTO forget VALUES (?, ?)", [(later, id) for id in needed])
        self.pass_over(-(len(rows) - len(over) - max(0, kept.rowcount)))
        return len(rows)

    def purge(self, task: Keyed, *, is_dead: bool) -> None:
        """Know nothing more of this task, before its time."""
        self.erase([task])
        if not is_dead:  # of a dead letter nothing is written down there
            self.pass_over(1)

    def pass_over(self, more: int) -> None:
        """So many more rows of ``forget`` don't count: of tasks that are no more, or that have another one, or will
        have one when they end, or their group does. To find one by its id would take a look at all of them.
        """
        if more:
            self._db.execute(
                "INSERT INTO meta VALUES ('purged', max(0, ?1)) "
                "ON CONFLICT (name) DO UPDATE SET value = max(0, value + ?1)",
                (more,),
            )

    def ended(self) -> int:
        """How many tasks have ended that are to be forgotten."""
        (count,) = self._db.execute(
            "SELECT (SELECT count(*) FROM forget) - coalesce((SELECT value FROM meta WHERE name = 'purged'), 0)"
        ).fetchone()
        return max(0, int(count))

    def _forget_dead(self, most: int) -> int:
        if self._too_old is None:
            return 0
        rows = self._db.execute(
            "SELECT id, lane, key, single FROM task WHERE state = 2 AND id <= ? ORDER BY id LIMIT ?",
            (self._too_old, most),
        ).fetchall()
        if len(rows) < most:
            self._too_old = None
        if rows:
            logger.warning(
                "the queue keeps %d dead letters: the oldest %d are forgotten, up to %s",
                self._dead_limit,
                len(rows),
                id_text(rows[-1][0]),
            )
            self.erase([Keyed(*row) for row in rows])
        return len(rows)

    def erase(self, tasks: Sequence[Keyed]) -> None:
        """Know nothing more of these tasks, which have ended."""
        if not tasks:
            return
        ids = [(task.id,) for task in tasks]
        if self._db.execute("SELECT 1 FROM expiry LIMIT 1").fetchone() is not None:  # a ttl may be of years
            drop = "DELETE FROM expiry WHERE at = (SELECT expires FROM task WHERE id = ?) AND id = ?"
            self._db.executemany(drop, [(task.id, task.id) for task in tasks])
        self._db.executemany("DELETE FROM task WHERE id = ?", ids)
        self._keep_newest(max(task.id for task in tasks))
        self._db.executemany("DELETE FROM failure WHERE id = ?", ids)
        self._keys.let_go(tasks, self._now())

    def _keep_newest(self, id: int) -> None:
        """Write it down where it is that of a task that is no more. Most of the time there are newer ones."""
        self._db.execute(
            "INSERT INTO meta SELECT 'newest', ? WHERE NOT EXISTS (SELECT 1 FROM task WHERE id > ?) "
            "ON CONFLICT (name) DO UPDATE SET value = max(value, excluded.value)",
            (id, id),
        )

    def can_shrink(self) -> bool:
        """Whether more than half of the file is free."""
        (free,) = self._db.execute("PRAGMA freelist_count").fetchone()
        return bool(free > _SPARE and free * 2 > self._db.execute("PRAGMA page_count").fetchone()[0])

    def shrink(self) -> None:
        """Give some free pages back to the file system; not within a transaction."""
        # Not execute, which takes one step of it, and that is one page.
        self._db.executescript(f"PRAGMA incremental_vacuum({_MOST_PAGES})")
