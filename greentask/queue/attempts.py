"""What is kept of attempts that ended badly, and how many of them were lost with their task process.

Who asks to be tried again may do so for years. So of the newest attempts all of the error is kept, of those before what
kind it was, and of very old ones nothing, but for those that were lost. These are few: after some of them a task is a
dead letter.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from ..wire.json import dumps, loads
from .limits import MOST_ATTEMPTS

__all__ = ["Attempts", "lost_processes"]

_MOST_MESSAGE = 100  # characters that are kept of an error of long ago
_LOST = '{"type":"WorkerLost"'  # how the error of a lost one begins; of a task that raises it: greentask.WorkerLost


class Attempts:
    """Those of a file, within transactions. ``keep``: of each task, of which all is kept. ``wall``: a Unix time."""

    def __init__(self, db: sqlite3.Connection, keep: int, wall: Callable[[], float]) -> None:
        self._db = db
        self._keep = keep
        self._wall = wall

    def note(self, id: int, attempt: int, error: bytes, *, server: bool = False) -> None:
        """Write down what came of an attempt. ``server``: it was lost with that."""
        row = (id, attempt, self._wall(), error, server)
        self._db.execute("INSERT OR REPLACE INTO failure VALUES (?, ?, ?, ?, ?)", row)
        if attempt > self._keep:
            self._shorten(id, attempt - self._keep)
        if attempt > (most := max(MOST_ATTEMPTS, self._keep)):
            self._drop(id, attempt - most)

    def _shorten(self, id: int, attempt: int) -> None:
        row = self._db.execute("SELECT error FROM failure WHERE id = ? AND attempt = ?", (id, attempt)).fetchone()
        if row is not None:
            error = loads(row[0])
            short = dumps({"type": error.get("type"), "message": str(error.get("message"))[:_MOST_MESSAGE]})
            self._db.execute("UPDATE failure SET error = ? WHERE id = ? AND attempt = ?", (short, id, attempt))

    def _drop(self, id: int, attempt: int) -> None:
        self._db.execute(
            f"DELETE FROM failure WHERE id = ? AND attempt = ? AND CAST(substr(error, 1, {len(_LOST)}) AS TEXT) <> ?",
            (id, attempt, _LOST),
        )


def lost_processes(db: sqlite3.Connection, id: int, failures: int, losses: int) -> int:
    """How many processes have died that ran a task, of so many ``losses`` of processes and servers."""
    kept, errors = db.execute("SELECT count(*), total(server = 0) FROM failure WHERE id = ?", (id,)).fetchone()
    attempts = failures + losses
    dropped = attempts - kept if attempts > MOST_ATTEMPTS else 0
    return max(0, int(errors) + dropped - failures)
