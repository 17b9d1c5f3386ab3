"""How much more this server may be handed: its free slots, which some tasks share, and memory for their arguments."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .interface import Delivery, Want

__all__ = ["Slots", "size_of"]


class Slots:
    """For the thread that writes. ``memory``: bytes of what is handed out and has not ended; more if it is one task."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._free: dict[frozenset[str], int] = {}
        self._filled_by: dict[str, frozenset[str]] = {}  # of each task, whose slots those are
        self._bytes = 0
        #: Deliveries that are not settled.
        self.held = 0

    def hear(self, wants: Iterable[Want] | None) -> None:
        """There are so many free slots more; None: there is none any more."""
        if wants is None:
            self._free.clear()
            return
        for want in wants:
            if want.tasks not in self._free:
                self._free[want.tasks] = 0
                self._filled_by.update(dict.fromkeys(want.tasks, want.tasks))
            self._free[want.tasks] += want.slots

    def wants(self) -> list[Want]:
        """Those that are free."""
        return [Want(tasks, slots) for tasks, slots in self._free.items() if slots > 0]

    @property
    def may_take(self) -> bool:
        """Whether anything could be handed out."""
        return bool(self._free) and self._bytes < self._memory

    def room(self, freed: int) -> int:
        """Bytes that may be handed out where so many are freed."""
        return self._memory - self._bytes + freed

    def change(self, deliveries: Sequence[Delivery], settled: int, freed: int) -> None:
        """These were handed out, and so many were settled, whose payloads had that many bytes."""
        self.held += len(deliveries) - settled
        self._bytes += size_of(deliveries) - freed
        if deliveries:
            for task, count in Counter([delivery.task for delivery in deliveries]).items():
                self._free[self._filled_by[task]] -= count


def size_of(deliveries: Sequence[Delivery]) -> int:
    """Bytes of their payloads."""
    return sum([len(delivery.payload) for delivery in deliveries])  # no generator: there are thousands a second
