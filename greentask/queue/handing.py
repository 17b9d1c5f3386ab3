"""Which tasks are handed out, and that they are: a store's work, within its transactions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .bulk import runs
from .interface import Delivery, Message, Want
from .pausing import paused
from .sharing import Group, Sharing
from .taking import deliveries_of, find_first, fit, is_any_ready, waiting_groups

if TYPE_CHECKING:
    from .store import Store

__all__ = ["MOST_BYTES", "HandingOut"]

#: Of payloads that are taken at once.
MOST_BYTES = 32 * 1024 * 1024
_MOST_PASSED = 1000  # tasks whose ttl is over that are passed by in one transaction


class HandingOut:
    """What a store does when it hands out; it remembers who has waited longest."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._db = store.db
        self._sharing = Sharing()

    def has_ready(self, wants: Iterable[Want]) -> bool:
        """Whether a task waits for one of those slots, and may have it."""
        held, now = paused(self._db), self._store.time.now()
        return any(
            not held.holds(task)
            and (lane := self._store.find_lane(task)) is not None
            and self._db.execute("SELECT 1 FROM ready WHERE lane = ? LIMIT 1", (lane,)).fetchone() is not None
            and self._store.allowances.room(lane, now) != 0
            for want in wants
            for task in want.tasks
        )

    def take(self, wants: Sequence[Want], holder: int, most_bytes: int) -> list[Delivery]:
        """Hand out of those that wait for their turn."""
        if not is_any_ready(self._db):
            return []
        held, allowed = paused(self._db), self._store.allowances.rooms(self._store.time.now())
        groups = [group for group in waiting_groups(self._db) if allowed.get(group.lane) != 0]
        taken: list[tuple[int, list[Delivery]]] = []
        room, passed = min(most_bytes, MOST_BYTES), 0
        for want in wants:
            tasks = {task for task in want.tasks if not held.holds(task)}
            mine = [group for group in groups if self._store.name(group.lane) in tasks]
            slots = want.slots
            while mine and slots > 0 and room > 0 and passed < _MOST_PASSED:
                for group, share in self._sharing.divide(mine, slots):
                    if room <= 0:
                        break
                    most = min(share, allowed.get(group.lane, share))
                    found, deliveries = self._take_of(group, most, room, holder) if most else (0, [])
                    taken.append((group.rank, deliveries))
                    if group.lane in allowed:
                        allowed[group.lane] -= len(deliveries)
                    slots -= len(deliveries)
                    passed += found - len(deliveries)
                    room -= sum(len(delivery.payload) for delivery in deliveries)
                    if found < share and room > 0:
                        mine.remove(group)
        taken.sort(key=lambda part: part[0])
        return [delivery for _, deliveries in taken for delivery in deliveries]

    def take_fresh(
        self, ids: Sequence[int], messages: Sequence[Message], wants: Sequence[Want], holder: int, most_bytes: int
    ) -> list[Delivery] | None:
        """Hand out what was enqueued in this transaction; None where more waits than that, or there are fewer slots."""
        tasks, held, limits = Counter([one.task for one in messages]), paused(self._db), self._store.allowances.limits
        if any(held.holds(task) or task in limits for task in tasks) or not fit(tasks, wants):
            return None
        if sum([len(one.payload) for one in messages]) > min(most_bytes, MOST_BYTES) or is_any_ready(self._db):
            return None
        self._db.executemany(
            "INSERT INTO running (id, holder, failures, losses, lane) "
            "SELECT id, ?, 0, 0, lane FROM task WHERE id BETWEEN ? AND ?",
            [(holder, *both) for both in runs(ids)],
        )
        return deliveries_of(ids, messages, holder)

    def _take_of(self, group: Group, share: int, room: int, holder: int) -> tuple[int, list[Delivery]]:
        """The first so many of a group: how many there were, and those that are to be run."""
        now = self._store.time.now()
        first = find_first(self._db, self._store.name(group.lane), (group.lane, group.rank, share), now, room, holder)
        last, found, deliveries, expired = first
        moment = self._store.allowances.use(group.lane, len(deliveries), now)
        if moment is not None:
            deliveries = [one._replace(handle=(*one.handle, group.lane, moment)) for one in deliveries]
        if found:
            group.head = last + 1
            self._hand_out(group, last, deliveries, holder, are_all=found == len(deliveries))
        if expired:
            self._store.end_expired(expired)
        return found, deliveries

    def _hand_out(self, group: Group, last: int, deliveries: list[Delivery], holder: int, *, are_all: bool) -> None:
        """Have those wait no more that were found, up to the ``last``, and be that holder's who are handed out."""
        if are_all:
            self._db.execute(
                "INSERT INTO running (id, holder, failures, losses, lane) "
                "SELECT id, ?, failures, losses, lane FROM ready WHERE lane = ? AND rank = ? AND id <= ?",
                (holder, group.lane, group.rank, last),
            )
        else:
            self._db.executemany(
                "INSERT INTO running (id, holder, failures, losses, lane) VALUES (?, ?, ?, ?, ?)",
                [(one.handle[0], holder, one.failures, one.losses, group.lane) for one in deliveries],
            )
        self._db.execute("DELETE FROM ready WHERE lane = ? AND rank = ? AND id <= ?", (group.lane, group.rank, last))
