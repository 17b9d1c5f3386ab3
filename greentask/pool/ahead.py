"""How many calls are sent to a process ahead of the one that it runs: arithmetic without I/O or clock.

Tiny calls are sent many at once, or throughput dies of waking up; a long one never has others wait behind it. What a
call will take is estimated from how long those of its name have run.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .calls import PoolCall
    from .process import Process

__all__ = ["Estimates", "room_for"]

#: Seconds of work that may be sent ahead to a process.
BUDGET = 0.002
#: Calls up to this long get the next one sent ahead, so that the process doesn't wait for it.
QUICK = 0.020
#: Calls, and bytes of them, that may be sent ahead.
MOST_CALLS = 200
MOST_BYTES = 64 * 1024

_UNKNOWN = float("inf")
_WEIGHT = 0.2  # of the newest run in the average
_MOST_NAMES = 10_000


class Estimates:
    """How long calls run, by name: a moving average that believes the newest the most."""

    __slots__ = ("_seconds",)

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}

    def of(self, name: str) -> float:
        """Seconds that a call of that name will run; infinite where nobody knows."""
        return self._seconds.get(name, _UNKNOWN)

    def learn(self, name: str, seconds: float) -> None:
        """A call of that name ran so long."""
        known = self._seconds.get(name)
        if known is not None:
            self._seconds[name] = known + (seconds - known) * _WEIGHT
        elif len(self._seconds) < _MOST_NAMES:
            self._seconds[name] = seconds


def room_for(call: PoolCall, estimate: float, process: Process) -> bool:
    """Whether a process should get a call, that will run so many seconds, besides those that it has."""
    calls = process.calls
    if not calls:
        return not process.retiring
    if process.retiring or process.asked_back or len(calls) >= MOST_CALLS:
        return False
    if process.load + estimate <= BUDGET:
        return call.size * len(calls) <= MOST_BYTES
    return len(calls) == 1 and process.load <= QUICK
