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
from functools import cache
from itertools import groupby
from typing import Any

__all__ = ["SMALL", "end_tasks", "insert_tasks", "runs"]

#: A task to be inserted: id, lane, rank, payload, expires, retries, key, singleton, and when it is due if not at once.
Row = tuple[int, int, int, bytes, float | None, int | None, str | None, str | None, float | None]

#: One that has ended: its id, the attempts, and its result if it has one.
Ended = tuple[int, int, bytes | None]

#: Bytes of a payload or a result up to which it is written with others: what is bound together is copied together.
SMALL = 4096
_SIZES = (128, 64, 32, 16, 8, 4, 2, 1)  # rows of one statement
_PART = 8  # of those that end: results among which SQLite looks for each one's


_INSERT_PLAIN = {
    size: f"INSERT INTO task (id, lane, rank, state, enqueued, body) VALUES {', '.join(['(?, ?, ?, 0, ?, ?)'] * size)}"
    for size in _SIZES
}
_OPTIONS = ("expires", "retries", "key", "single", "due")
_END = "UPDATE task SET state = ?, ended = ?, body = ?, attempts = ? WHERE id = ?"


def _end_run(size: int) -> str:
    """Of tasks whose ids follow one another. SQLite looks for the body of each, so in two steps where they are many.

    Without numbers at its placeholders, of which Python 3.12 warns.
    """
    cases = [f"WHEN {number} THEN ?" for number in range(size)]
    parts = [f"CASE id - ? {' '.join(cases[at : at + _PART])} END" for at in range(0, size, _PART)]
    whens = " ".join(f"WHEN {number} THEN {part}" for number, part in enumerate(parts))
    body = parts[0] if len(parts) == 1 else f"CASE (id - ?) / {_PART} {whens} END"
    return f"UPDATE task SET state = ?, ended = ?, attempts = ?, body = {body} WHERE id BETWEEN ? AND ?"


def _end_run_with(first: int, bodies: Sequence[bytearray | None]) -> list[int | bytearray | None]:
    """What is bound in it, behind the attempts."""
    bound: list[int | bytearray | None] = [first] if len(bodies) > _PART else []
    for at in range(0, len(bodies), _PART):
        bound.append(first)
        bound += bodies[at : at + _PART]
    return [*bound, first, first + len(bodies) - 1]


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


def insert_tasks(
    db: sqlite3.Connection, plain: Sequence[float | bytearray], others: Sequence[Row], wall: float
) -> None:
    """Tasks that are enqueued at this time. Of ``plain`` ones, which are small, one behind the other: id, lane, rank,
    that time, and the payload.
    """
    if plain:
        at = 0
        for size in _SIZES:
            while len(plain) - at >= 5 * size:
                db.execute(_INSERT_PLAIN[size], plain[at : at + 5 * size])
                at += 5 * size
    if others:
        for options, rows in groupby(others, _options_of):
            db.executemany(_insert_with(options), [_bound(row, wall) for row in rows])


def _options_of(row: Row) -> tuple[bool, ...]:
    """Which it has."""
    return tuple([option is not None for option in row[4:]])


def _bound(row: Row, wall: float) -> list[Any]:
    body = row[3]
    small = bytearray(body) if len(body) <= SMALL else body
    return [*row[:3], wall, small, *[option for option in row[4:] if option is not None]]


@cache
def _insert_with(options: tuple[bool, ...]) -> str:
    """Of tasks that have these and no others, so that nothing is bound that they have not."""
    names = [name for name, has in zip(_OPTIONS, options) if has]
    columns = ", ".join(["id, lane, rank, state, enqueued, body", *names])
    return f"INSERT INTO task ({columns}) VALUES (?, ?, ?, 0, ?, ?{', ?' * len(names)})"


def end_tasks(db: sqlite3.Connection, state: int, wall: float, ended: Sequence[Ended]) -> None:
    """Tasks that have ended at this time, in the order of their ids."""
    if large := [row for row in ended if row[2] is not None and len(row[2]) > SMALL]:
        db.executemany(_END, ((state, wall, body, attempts, id) for id, attempts, body in large))
        ended = [row for row in ended if row[2] is None or len(row[2]) <= SMALL]
    for attempts in {attempts for _, attempts, _ in ended}:
        ids = [id for id, tried, _ in ended if tried == attempts]
        bodies = [None if body is None else bytearray(body) for _, tried, body in ended if tried == attempts]
        at = 0
        for first, last in runs(ids):
            end = at + last - first + 1
            for size in _SIZES:
                while end - at >= size:
                    db.execute(_END_RUN[size], (state, wall, attempts, *_end_run_with(ids[at], bodies[at : at + size])))
                    at += size
