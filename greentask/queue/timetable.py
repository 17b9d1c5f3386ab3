"""The tasks that run by themselves: their next ticks, as they are written down in the file.

A tick's message and the next tick are written in one transaction. So whichever of the servers comes first does it, the
others find it done, and nothing that dies in between leaves half of it.

Ticks go on while a task is paused, but they don't pile up: they come to one, as those that were missed do, or to none
where those would not be caught up with. A tick waits already where the newest of that name that waits is one; whoever
enqueues others besides makes room for one more each, so that it takes no look through all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..tasks.schedules import Plan, next_plan
from .interface import Repeat
from .pausing import paused

if TYPE_CHECKING:
    from .store import Store

__all__ = ["Ticks", "next_ticks"]


def next_ticks(store: Store) -> dict[str, float]:
    """Seconds until the next tick of each task that runs by itself, as its servers have written."""
    wall, now = store.clock.wall(), store.time.now()
    rows = store.db.execute("SELECT lane, spec, next FROM schedule").fetchall()
    return {store.name(lane): moment - (wall if spec.startswith("cron ") else now) for lane, spec, moment in rows}


class Ticks:
    """Those of this server's tasks. What other servers plan is seen when it is looked at (``look``)."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._repeats: dict[str, Repeat] = {}
        self._plans: dict[str, Plan | None] = {}  # as far as is known here; None: not yet
        self._adopted: set[str] = set()  # whose schedules have been written
        self._written: set[str] = set()  # in this transaction

    def set(self, repeats: Sequence[Repeat]) -> None:
        """Have these, and no others."""
        self._repeats = {repeat.message.task: repeat for repeat in repeats}
        self._plans = dict.fromkeys(self._repeats)
        self._adopted.clear()

    def look(self) -> None:
        """See what others have written."""
        for name, repeat in self._repeats.items():
            spec, plan = self._read(name)
            if spec == repeat.schedule.spec:
                self._plans[name] = plan

    def is_due(self) -> bool:
        """Whether there is something to write."""
        return any(self._next(name, plan)[0] is not None for name, plan in self._plans.items())

    def moment(self) -> float | None:
        """Seconds until that is so, by the clocks as they go now; None where there is nothing to wait for."""
        waits = [
            0.0 if plan is None else plan.next - self._now(self._repeats[name]) for name, plan in self._plans.items()
        ]
        return max(0.0, min(waits)) if waits else None

    def turn(self) -> None:
        """Enqueue what is to run, and plan the next ticks, within a transaction."""
        messages = []
        self._store.line_up()
        for name, repeat in self._repeats.items():
            spec, plan = self._read(name)
            if spec != repeat.schedule.spec:
                if name in self._adopted:  # a newer server has another schedule
                    self._plans.pop(name, None)
                    continue
                plan = None
            planned, runs = self._next(name, plan)
            if planned is not None:
                plan = planned
                self._store.db.execute(
                    "INSERT OR REPLACE INTO schedule VALUES (?, ?, ?, ?)",
                    (self._store.lane(name), repeat.schedule.spec, planned.next, planned.seen),
                )
            self._plans[name] = plan
            self._written.add(name)
            if runs and not self._is_enough(repeat):
                messages.append(repeat.message)
        if messages:
            self._store.enqueue(messages)

    def _is_enough(self, repeat: Repeat) -> bool:
        """Whether another one would only wait for the end of a pause, as one does already or none should."""
        store, message = self._store, repeat.message
        if not paused(store.db).holds(message.task):
            return False
        newest = store.db.execute(
            "SELECT t.body FROM ready r JOIN task t ON t.id = r.id WHERE r.lane = ? AND r.rank = ? "
            "ORDER BY r.id DESC LIMIT 1",
            (store.find_lane(message.task), -message.priority),
        ).fetchone()
        return not repeat.catch_up or (newest is not None and newest[0] == message.payload)

    def committed(self) -> None:
        """The transaction is on disk."""
        if self._written:
            self._adopted |= self._written
            self._written.clear()

    def rolled_back(self) -> None:
        """The transaction has not been."""
        self._plans.update(dict.fromkeys(self._written))
        self._written.clear()

    def _next(self, name: str, plan: Plan | None) -> tuple[Plan | None, bool]:
        repeat = self._repeats[name]
        return next_plan(repeat.schedule, plan, self._now(repeat), catch_up=repeat.catch_up)

    def _now(self, repeat: Repeat) -> float:
        return self._store.clock.wall() if repeat.schedule.is_wall else self._store.time.now()

    def _read(self, name: str) -> tuple[str | None, Plan | None]:
        lane = self._store.find_lane(name)
        row = self._store.db.execute("SELECT spec, next, seen FROM schedule WHERE lane = ?", (lane,)).fetchone()
        return (None, None) if row is None else (row[0], Plan(row[1], row[2]))
