"""Which tasks of a queue wait although there would be room: those that somebody has paused, or all of them.

It is kept in the file, so it holds for all servers, and over their restarts. A paused task is enqueued as ever, and
what runs already goes on.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

__all__ = ["Paused", "pause", "paused", "resume"]

_ALL = "paused"
_ONE = "paused:"  # and the task's name


@dataclass(frozen=True, slots=True)
class Paused:
    """``all``: the whole queue; ``tasks``: those of these names."""

    all: bool
    tasks: frozenset[str]

    def holds(self, task: str) -> bool:
        """Whether that task waits."""
        return self.all or task in self.tasks


def paused(db: sqlite3.Connection) -> Paused:
    """What is paused now."""
    names = [name for (name,) in db.execute("SELECT name FROM meta WHERE name >= 'paused' AND name < 'paused;'")]
    return Paused(_ALL in names, frozenset(name[len(_ONE) :] for name in names if name != _ALL))


def pause(db: sqlite3.Connection, task: str | None) -> bool:
    """Hand out that task no more, or none (None), within a transaction; False where it is paused already."""
    return bool(db.execute("INSERT OR IGNORE INTO meta VALUES (?, 1)", (_name(task),)).rowcount)


def resume(db: sqlite3.Connection, task: str | None) -> bool:
    """Go on with what was paused, within a transaction; False where it was not.

    To go on with the queue (None) leaves the tasks alone that were paused by name.
    """
    return bool(db.execute("DELETE FROM meta WHERE name = ?", (_name(task),)).rowcount)


def _name(task: str | None) -> str:
    return _ALL if task is None else _ONE + task
