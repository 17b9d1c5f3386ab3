"""How many task processes have died that ran a task: what its attempts have left says so, of which not all is kept.

Each attempt that ended badly has left its error; the oldest are dropped of very many, but for those that were lost,
which are few: after some of them a task is a dead letter.
"""

from __future__ import annotations

import sqlite3

from .limits import MOST_ATTEMPTS

__all__ = ["drop_failure", "lost_processes"]

_LOST = '{"type":"WorkerLost"'  # how the error of one begins; a task that raises such an error says it otherwise


def drop_failure(db: sqlite3.Connection, id: int, attempt: int) -> None:
    """Keep nothing of an attempt, within a transaction, unless it was lost."""
    db.execute(
        f"DELETE FROM failure WHERE id = ? AND attempt = ? AND CAST(substr(error, 1, {len(_LOST)}) AS TEXT) <> ?",
        (id, attempt, _LOST),
    )


def lost_processes(db: sqlite3.Connection, id: int, failures: int, losses: int) -> int:
    """How many processes have died that ran a task, of so many ``losses`` of processes and servers."""
    kept, errors = db.execute("SELECT count(*), total(server = 0) FROM failure WHERE id = ?", (id,)).fetchone()
    attempts = failures + losses
    dropped = attempts - kept if attempts > MOST_ATTEMPTS else 0
    return max(0, int(errors) + dropped - failures)
