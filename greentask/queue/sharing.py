"""Which of the waiting tasks are taken next: the arithmetic, without a file.

Those of the highest priority go first; of one priority, the tasks take turns by name, so that a million newsletters
don't hold up one report; and of one name, first in is first out. One in ``FAIR`` goes, past priorities and names, to
whoever was enqueued first, so that nobody waits for ever: a task before which n others wait is taken at the latest as
number ``FAIR * (n + 1)``, whatever comes meanwhile; where more than ``FAIR`` are taken at once, the n + 1st time.
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
        oldest = min(groups, key=lambda group: group.head)
        owed, self._carry = divmod(self._carry + slots, FAIR) if len(groups) > 1 else (0, self._carry)
        each, more = divmod(slots - owed, len(first))
        shares = [(oldest, owed)] if oldest not in first else []
        for number, group in enumerate(first):
            shares.append((group, each + (number < more) + owed * (group is oldest)))
        return [(group, share) for group, share in shares if share]
