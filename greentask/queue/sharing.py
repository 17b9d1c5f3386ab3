"""Which of the waiting tasks are taken next: the arithmetic, without a file.

Those of the highest priority go first; of one priority, the tasks take turns by name, so that a million newsletters
don't hold up one report; and of one name, first in is first out. One in ``FAIR`` goes, past all priorities, to whoever
has waited longest, so that nobody waits for ever.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["FAIR", "Group", "Sharing"]

FAIR = 8


@dataclass(slots=True)
class Group:
    """The waiting tasks of one name (``lane``) and priority; the smallest ``rank`` goes first. ``head``: the oldest."""

    lane: int
    rank: int
    head: int


class Sharing:
    """Divides slots among groups, and remembers what it owes to those that have waited longest."""

    def __init__(self) -> None:
        self._carry = 0

    def divide(self, groups: list[Group], slots: int) -> list[tuple[Group, int]]:
        """How many to take of which group: all slots, as if no group had an end."""
        top = min(group.rank for group in groups)
        first = sorted((group for group in groups if group.rank == top), key=lambda group: group.head)
        behind = min((group for group in groups if group.rank != top), key=lambda group: group.head, default=None)
        shares: list[tuple[Group, int]] = []
        if behind is not None and behind.head < first[0].head:
            owed, self._carry = divmod(self._carry + slots, FAIR)
            owed = min(owed, slots)
            if owed:
                shares.append((behind, owed))
                slots -= owed
        each, more = divmod(slots, len(first))
        shares += [(group, each + (number < more)) for number, group in enumerate(first) if each or number < more]
        return shares
