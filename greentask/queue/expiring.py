"""Finds the tasks that have not begun within their ``ttl`` by the clock: their turn may not come for a long time.

It is done in steps. Tasks without a ``ttl`` cost nothing, and of others it is only looked at then what became of them.
"""

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING

from .moments import in_later

if TYPE_CHECKING:
    from .store import Store

__all__ = ["expire", "has_expired"]

_MOST = 200  # tasks that are looked at in one transaction


def has_expired(store: Store) -> bool:
    """Whether there are tasks to be looked at."""
    return next(_find(store, 1), None) is not None


def expire(store: Store) -> bool:
    """End those of some that have not begun, within a transaction; whether there may be more."""
    rows = list(_find(store, _MOST))
    store.db.executemany("DELETE FROM expiry WHERE at = ? AND id = ?", [row[:2] for row in rows])
    expired = [(lane, rank, id) for _, id, lane, rank, attempts in rows if attempts == 0]
    if expired:
        store.db.executemany("DELETE FROM ready WHERE lane = ? AND rank = ? AND id = ?", expired)
        store.db.executemany(f"DELETE FROM later WHERE {in_later(':id')}", [{"id": id} for *_, id in expired])
        store.end_expired(id for *_, id in expired)
    return len(rows) == _MOST


def _find(store: Store, most: int) -> sqlite3.Cursor:
    """Of each its moment and id; its name, rank, and how many attempts have begun, where it is to begin yet.

    What is handed out for the first time is looked at again later: it may be given back before it has begun.
    """
    return store.db.execute(
        "SELECT e.at, e.id, t.lane, t.rank, coalesce("
        "(SELECT failures + losses FROM ready r WHERE r.lane = t.lane AND r.rank = t.rank AND r.id = t.id), "
        f"(SELECT failures + losses FROM later WHERE {in_later('t.id')})) "
        "FROM expiry e LEFT JOIN task t ON t.id = e.id AND t.state = 0 AND t.expires = e.at WHERE e.at <= ? "
        "AND NOT EXISTS (SELECT 1 FROM running r WHERE r.id = e.id AND r.failures + r.losses = 0) "
        "ORDER BY e.at, e.id LIMIT ?",
        (store.time.now(), most),
    )
