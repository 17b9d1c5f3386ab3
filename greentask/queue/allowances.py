"""How many of a task may be handed out just now: its rate and how many run, over all servers of the file.

Both are looked at, and written down, in the transaction that hands out, so that it is no matter how many servers do.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping

from .interface import Limit

__all__ = ["Allowances"]


class Allowances:
    """The ``limits`` that this server's tasks have, by their names; ``lane`` is the number of one in the file."""

    def __init__(
        self, db: sqlite3.Connection, find_lane: Callable[[str], int | None], name: Callable[[int], str]
    ) -> None:
        self._db = db
        self._find_lane = find_lane
        self._name = name
        self.limits: Mapping[str, Limit] = {}

    def room(self, lane: int, now: float) -> int | None:
        """How many may be handed out; None: any number."""
        limit = self._limit(lane)
        if limit is None:
            return None
        room: list[int] = []
        if limit.rate is not None:
            room.append(limit.rate.room(self._started(lane), now))
        if limit.max_running is not None:
            (running,) = self._db.execute("SELECT count(*) FROM running WHERE lane = ?", (lane,)).fetchone()
            room.append(max(0, limit.max_running - running))
        return min(room, default=None)

    def rooms(self, now: float) -> dict[int, int]:
        """The same of all that have tasks waiting and a limit."""
        return {lane: room for lane, _ in self._waiting() if (room := self.room(lane, now)) is not None}

    def wait(self, now: float) -> float | None:
        """Seconds until a task that waits is within its rate again; None where none waits for that."""
        waits: list[float] = []
        for lane, limit in self._waiting():
            if limit.rate is not None and not limit.rate.room(started := self._started(lane), now):
                waits.append(limit.rate.wait(started, now))
        return min(waits, default=None)

    def use(self, lane: int, count: int, now: float) -> float | None:
        """Write down that so many are handed out; what ``give_back`` has to know, None where there is no rate."""
        limit = self._limit(lane)
        if limit is None or limit.rate is None or not count:
            return None
        moment = limit.rate.mark(now)
        self._db.execute("DELETE FROM started WHERE lane = ? AND at <= ?", (lane, now - limit.rate.seconds))
        self._db.execute(
            "INSERT INTO started VALUES (?, ?, ?) ON CONFLICT DO UPDATE SET count = count + excluded.count",
            (lane, moment, count),
        )
        return moment

    def give_back(self, lane: int, moment: float) -> None:
        """One that was handed out has not begun."""
        self._db.execute("UPDATE started SET count = count - 1 WHERE lane = ? AND at = ?", (lane, moment))

    def _limit(self, lane: int) -> Limit | None:
        return self.limits.get(self._name(lane)) if self.limits else None

    def _waiting(self) -> Iterator[tuple[int, Limit]]:
        for name, limit in self.limits.items():
            lane = self._find_lane(name)
            has_ready = "SELECT 1 FROM ready WHERE lane = ? LIMIT 1"
            if lane is not None and self._db.execute(has_ready, (lane,)).fetchone() is not None:
                yield lane, limit

    def _started(self, lane: int) -> list[tuple[float, int]]:
        return self._db.execute("SELECT at, count FROM started WHERE lane = ?", (lane,)).fetchall()
