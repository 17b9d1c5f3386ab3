"""What came of tasks, as JSON that another task takes."""

from __future__ import annotations

import sqlite3
from typing import Any

from ..errors import Cancelled, DeadlineExceeded, refusal
from ..wire.json import dumps, loads

__all__ = ["Outcomes", "Unknown"]

_DONE, _REVOKED, _EXPIRED = 1, 3, 4  # as the store has them


class Unknown(Exception):
    """It can't be told any more, or is too long to be taken."""


class Outcomes:
    """Reads it from the file. ``max_taken``: bytes that one task takes of others."""

    def __init__(self, db: sqlite3.Connection, max_taken: int) -> None:
        self._db = db
        self._max_taken = max_taken

    def of(self, id: int, *, with_errors: bool) -> bytes:
        """The result of a task, or an array of a group's. Raises ``Unknown``.

        ``with_errors``: of each an object that has a ``result`` or an ``error``.
        """
        parts: list[bytes] = []
        self._add(id, id, with_errors, parts, self._max_taken)
        return b"".join(parts[:-1])

    def error(self, id: int) -> bytes:
        """Of one that has not ended well, its error; of a group the first one."""
        source: int | None = id
        while source is not None:
            id, source = source, self._first_failed(source)
        row = self._db.execute("SELECT state, attempts FROM task WHERE id = ?", (id,)).fetchone()
        if row is not None and row[0] == _REVOKED:
            return dumps(refusal(Cancelled("it was revoked", started=bool(row[1]))))
        if row is not None and row[0] == _EXPIRED:
            return dumps(refusal(DeadlineExceeded("it had not begun when its ttl was over", started=False)))
        row = self._db.execute("SELECT error FROM failure WHERE id = ? ORDER BY attempt DESC LIMIT 1", (id,)).fetchone()
        return b'{"type":"QueueError","message":"nothing is known of its error"}' if row is None else bytes(row[0])

    def _first_failed(self, group: int) -> int | None:
        """Of a group the first that failed; None where it is none."""
        row = self._db.execute("SELECT source FROM blocked WHERE id = ? AND is_group = 1", (group,)).fetchone()
        if row is not None and row[0] is None:  # that one was tried again, and others have failed as well
            row = self._db.execute(
                "SELECT t.id FROM member m JOIN task t ON t.id BETWEEN m.first AND m.last "
                "LEFT JOIN blocked b ON b.id = t.id "
                "WHERE m.waiter = ? AND (t.state NOT IN (0, 1) OR b.failed > 0) ORDER BY t.id LIMIT 1",
                (group,),
            ).fetchone()
        return None if row is None else row[0]

    def _add(self, first: int, last: int, with_errors: bool, parts: list[bytes], room: int) -> int:
        """Add what came of tasks to the parts, with commas; how much room is left."""
        for id, *row in self._db.execute(
            "SELECT t.id, t.state, t.body, coalesce(b.is_group, 0) FROM task t LEFT JOIN blocked b ON b.id = t.id "
            "WHERE t.id BETWEEN ? AND ? ORDER BY t.id",
            (first, last),
        ):
            if id != first:
                break  # one is missing
            first += 1
            room = self._add_one(id, row, with_errors, parts, room)
            parts.append(b",")
        if first != last + 1:
            raise Unknown("what came of a task before it is not known any more")
        return room

    def _add_one(self, id: int, row: list[Any], with_errors: bool, parts: list[bytes], room: int) -> int:
        state, body, is_group = row
        if is_group:
            return self._add_group(id, with_errors, parts, room)
        if state == _DONE:
            told = b'{"result":%b}' % body if with_errors else bytes(body)
        elif with_errors:
            error = loads(self.error(id))
            error.pop("traceback", None)
            told = b'{"error":%b}' % dumps(error)
        else:
            raise Unknown("a task before it has not ended well")
        room -= len(told) + 1
        if room < 0:
            raise Unknown(
                f"what came of those before it is more than {self._max_taken:,} bytes (max_taken): let it take "
                "nothing, and ask for each"
            )
        parts.append(told)
        return room

    def _add_group(self, group: int, with_errors: bool, parts: list[bytes], room: int) -> int:
        parts.append(b"[")
        for first, last in self._db.execute(
            "SELECT first, last FROM member WHERE waiter = ? ORDER BY first", (group,)
        ).fetchall():
            room = self._add(first, last, with_errors, parts, room)
        if parts[-1] == b",":
            parts.pop()
        parts.append(b"]")
        return room
