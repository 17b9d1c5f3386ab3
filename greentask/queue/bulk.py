"""Many rows of a queue's file in few statements.

Two things cost more than the rows themselves, where there are thousands a second. One is to step a statement: each time
Python's ``sqlite3`` lets go of the interpreter's lock, which the hub's thread waits for. So here one statement has many
rows; ids follow one another, so that most of them are told by the first and the last. The other is to bind what is no
``int``, ``float``, ``str`` or ``bytearray``: for ``bytes`` and None an adapter is looked for, which takes longer than
to write the row.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence

__all__ = ["end_tasks", "insert_tasks", "runs"]

#: A task to be inserted: id, lane, rank, expires, retries, key, singleton, payload.
Row = tuple[int, int, int, float | None, int | None, str | None, str | None, bytes]

#: One that has ended: its result if it has one, the attempts, and its id.
Ended = tuple[bytes | None, int, int]

_SIZES = (128, 64, 32, 16, 8, 4, 2, 1)  # rows of one statement
_PART = 8  # of those that end: results among which SQLite looks for each one's


def _insert_plain(size: int) -> str:
    rows = ", ".join(f"(?{at}, ?{at + 1}, ?{at + 2}, 0, ?1, ?{at + 3})" for at in range(2, 2 + 4 * size, 4))
    return f"INSERT INTO task (id, lane, rank, state, enqueued, body) VALUES {rows}"


_INSERT_PLAIN = {size: _insert_plain(size) for size in _SIZES}
_INSERT = (
    "INSERT INTO task (id, lane, rank, state, enqueued, expires, retries, key, single, body) "
    "VALUES (?, ?, ?, 0, ?, ?, ?, ?, ?, ?)"
)


def _end_run(size: int) -> str:
    """Of tasks whose ids follow one another. SQLite looks for the body of each, so in two steps where they are many."""
    cases = [f"WHEN {number} THEN ?{number + 5}" for number in range(size)]
    parts = [f"CASE id - ?4 {' '.join(cases[at : at + _PART])} END" for at in range(0, size, _PART)]
    whens = " ".join(f"WHEN {number} THEN {part}" for number, part in enumerate(parts))
    body = parts[0] if len(parts) == 1 else f"CASE (id - ?4) / {_PART} {whens} END"
    return (
        f"UPDATE task SET state = ?1, ended = ?2, attempts = ?3, body = {body} WHERE id BETWEEN ?4 AND ?4 + {size - 1}"
    )


_END_RUN = {size: _end_run(size) for size in _SIZES}


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


def end_tasks(db: sqlite3.Connection, state: int, wall: float, ended: Sequence[Ended]) -> None:
    """Tasks that have ended at this time, in the order of their ids."""
    others = []
    at = 0
    for end in _ends_of_alike(ended):
        body, attempts, id = ended[at]
        if body is None:
            others.append((state, wall, attempts, id))
            at = end
        for size in _SIZES:
            while end - at >= size:
                bodies = [bytearray(body) for body, *_ in ended[at : at + size] if body is not None]
                db.execute(_END_RUN[size], (state, wall, attempts, ended[at][2], *bodies))
                at += size
    if others:
        db.executemany("UPDATE task SET state = ?, ended = ?, body = NULL, attempts = ? WHERE id = ?", others)


def _ends_of_alike(ended: Sequence[Ended]) -> Iterator[int]:
    """Where those end whose ids follow one another, and that have a result after as many attempts."""
    expected = tried = -1
    for at, (body, attempts, id) in enumerate(ended):
        if at and (id != expected or attempts != tried or body is None):
            yield at
        expected, tried = (-1 if body is None else id + 1), attempts
    if ended:
        yield len(ended)
