"""What a server's calls come to: how many ended how, how long they took, and which run. Of bounded size."""

from __future__ import annotations

import reprlib
from bisect import bisect_left
from collections import Counter, defaultdict
from itertools import islice
from time import monotonic
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..tasks.middleware import Outcome
    from .watched import WatchedCall

__all__ = ["BOUNDS", "Statistics", "percentile", "shortened"]

#: Upper bounds of the histogram's buckets, in seconds: two for each doubling, from 16 us to 18 minutes.
BOUNDS = tuple(2 ** (step / 2) for step in range(-32, 21))

_MOST_SHOWN = 50  # running calls


class _Short(reprlib.Repr):
    def repr_dict(self, x: dict[Any, Any], level: int) -> str:
        """In the order that it has: to sort a million keys, of which a few are shown, takes a second."""
        return super().repr_dict(dict(islice(x.items(), self.maxdict + 1)), level)


_SHORT = _Short()
_SHORT.maxstring = _SHORT.maxother = 60
_SHORT.maxlist = _SHORT.maxdict = _SHORT.maxtuple = 6
_SHORT.maxlevel = 3


class Statistics:
    """Told by each call when it comes and when it has ended. Belongs to the hub of its server."""

    def __init__(self) -> None:
        self.running: dict[WatchedCall, None] = {}  # in the order in which they came
        self._tasks: dict[str, _Task] = {}  # only those that the server has

    def ended(self, call: WatchedCall, outcome: Outcome) -> None:
        """A call has ended."""
        self.running.pop(call, None)
        name = call.task.name
        task = self._tasks.get(name)
        if task is None:
            task = self._tasks[name] = _Task()
        task.outcomes[outcome] += 1
        if outcome != "refused":
            task.counts[bisect_left(BOUNDS, monotonic() - call.began)] += 1

    def totals(self) -> dict[str, int]:
        """How many calls ended how."""
        total: Counter[str] = Counter()
        for task in self._tasks.values():
            total.update(task.outcomes)
        return dict(total)

    def tasks(self) -> dict[str, dict[str, Any]]:
        """For each task that was called: how many calls ended how, and the histogram of how long they took."""
        return {
            name: {"outcomes": dict(task.outcomes), "histogram": list(task.counts)}
            for name, task in sorted(self._tasks.items())
        }

    def running_by_task(self) -> dict[str, int]:
        """How many calls of each task have come and not ended; only of those that have some."""
        return dict(Counter([call.task.name for call in self.running]))

    def oldest(self, *, arguments: bool) -> list[dict[str, Any]]:
        """The running calls that came first, at most fifty."""
        now = monotonic()
        shown = []
        for call in islice(self.running, _MOST_SHOWN):
            info = call.info
            told: dict[str, Any] = {"task": info.task, "id": info.id, "peer": info.peer, "group": info.group}
            told["seconds"] = round(now - info.began, 3)
            if info.item is not None:
                told["item"] = info.item
            if arguments and not (call.args is None and info.peer == "queue"):  # in a process, where they are read
                told["args"] = shortened(call.args)
            shown.append(told)
        return shown


def shortened(args: object) -> str:
    """Arguments as text, cut short."""
    return _SHORT.repr(args)


class _Task:
    __slots__ = ("counts", "outcomes")

    def __init__(self) -> None:
        self.outcomes: defaultdict[str, int] = defaultdict(int)
        self.counts = [0] * (len(BOUNDS) + 1)


def percentile(counts: list[int], part: float) -> float | None:
    """Below which ``part`` (0 to 1) of what is in a histogram lies, in seconds; None where nothing is."""
    wanted = sum(counts) * part
    if not wanted:
        return None
    seen = 0
    for bound, count in zip((*BOUNDS, 2 * BOUNDS[-1]), counts):
        seen += count
        if seen >= wanted:
            return float(bound)
    return float(2 * BOUNDS[-1])
