"""Many rows of a queue's file in few statements.

Two things cost more than the rows themselves, where there are thousands a second. One is to step a statement: each time
Python's ``sqlite3`` lets go of the interpreter's lock, which the hub's thread waits for. So here one statement has many
rows; ids follow one another, so that most of them are told by the first and the last. The other is to bind what is no
``int``, ``float``, ``str`` or ``bytearray``: for ``bytes`` and None an adapter is looked for, which takes longer than
to write the row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

__all__ = ["end_tasks", "insert_tasks", "runs"]

#: A task to be inserted: id, lane, rank, expires, retries, key, singleton, payload.
Row = tuple[int, int, int, float | None, int | None, str | None, str | None, bytes]

_SIZES = (64, 16, 4, 1)  # rows of one statement
_ENDED = 16  # the same of those that end: SQLite looks for the body of each among all of them


def _insert_plain(size: int) -> str:
    rows = ", ".join(f"(?{at}, ?{at + 1}, ?{at + 2}, 0, ?1, ?{at + 3})" for at in range(2, 2 + 4 * size, 4))
    return f"INSERT INTO task (id, lane, rank, state, enqueued, body) VALUES {rows}"


_INSERT_PLAIN = {size: _insert_plain(size) for size in _SIZES}
_INSERT = (
    "INSERT INTO task (id, lane, rank, state, enqueued, expires, retries, key, single, body) "
    "VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?)"
)
_END = "UPDATE task SET state = ?, ended = ?, body = ?, attempts = ? WHERE id = ?"
_END_RUN = (
    "UPDATE task SET state = ?1, ended = ?2, attempts = ?3, body = CASE id - ?4 "
    + " ".join(f"WHEN {number} THEN ?{number + 5}" for number in range(_ENDED))
    + f" END WHERE id BETWEEN ?4 AND ?4 + {_ENDED - 1}"
)


def runs(ids: Sequence[int]) -> list[tuple[int, int]]:
    """The first and the last of each run of numbers that follow one another, of numbers in their order.

    One that is there twice begins a run of its own.
    """
    if ids and ids[-1] - ids[0] == len(ids) - 1 and len(set(ids)) == len(ids):
        return [(ids[0], ids[-1])]
    found: list[tuple[int, int]] = []
    first = last = None
    for id in ids:
        if first is None or last is None:
            first = id
        elif id != last + 1:
            found.append((first, last))
            first = id
        last = id
    if first is not None and last is not None:
        found.append((first, last))
    return found


def insert_tasks(db: sqlite3.Connection, rows: Sequence[Row], wall: float) -> None:
    """Tasks that are enqueued at this time."""
    plain: list[int | bytearray] = []
    others = []
    for id, lane, rank, expires, retries, key, single, body in rows:
        if expires is None and retries is None and key is None and single is None:
            plain += (id, lane, rank, bytearray(body))
        else:
            others.append((id, lane, rank, wall, expires, retries, key, single, body))
    at = 0
    for size in _SIZES:
        while len(plain) - at >= 4 * size:
            db.execute(_INSERT_PLAIN[size], (wall, *plain[at : at + 4 * size]))
            at += 4 * size
    if others:
        db.executemany(_INSERT, others)


def end_tasks(
    db: sqlite3.Connection, state: int, wall: float, ended: Sequence[tuple[bytes | None, int, int]]
) -> list[tuple[int, int]]:
    """Tasks that have ended at this time, in their order: of each the result, the attempts, and the id. Their runs."""
    found = runs([id for *_, id in ended])
    others: list[tuple[int, float, bytearray | None, int, int]] = []
    at = 0
    for first, last in found:
        end = at + last - first + 1
        while end - at >= _ENDED:
            part = ended[at : at + _ENDED]
            attempts = part[0][1]
            bodies = [bytearray(body) for body, tried, _ in part if body is not None and tried == attempts]
            if len(bodies) < _ENDED:
                break
            db.execute(_END_RUN, (state, wall, attempts, part[0][2], *bodies))
            at += _ENDED
        others += (
            (state, wall, None if body is None else bytearray(body), attempts, id)
            for body, attempts, id in ended[at:end]
        )
        at = end
    if others:
        db.executemany(_END, others)
    return found
