"""Time as a queue needs it: for moments on disk that a set clock must not move, and for those that are the clock's.

*Queue time* counts as the machine's monotonic clock does, sleep included, and for all processes of a machine alike. It
begins with the wall clock's time, once after each start of the machine, and never goes back. So a delay of an hour is
over after an hour, whoever sets the clock meanwhile, and also where the machine is started anew in between.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["Clock", "QueueTime"]


class Clock:
    """The machine's clocks: ``wall`` is a Unix time, ``steady`` counts since the machine's start, which ``boot`` names.

    Other ones are for tests.
    """

    def __init__(
        self,
        wall: Callable[[], float] = time.time,
        steady: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_BOOTTIME),
        boot: str | None = None,
    ) -> None:
        self.wall = wall
        self.steady = steady
        self.boot = _boot() if boot is None else boot


class QueueTime:
    """Queue time: what ``steady`` has counted since ``base``. Who knows a base of this machine's start continues it."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.base = clock.wall() - clock.steady()

    def resume(self, boot: str, base: float, last: float) -> None:
        """Go on from what was written down: the machine's start, the base then, and the latest time that was seen."""
        if boot == self._clock.boot:
            self.base = base
        else:
            self.base = max(self._clock.wall(), last) - self._clock.steady()

    def now(self) -> float:
        """The time, in seconds."""
        return self.base + self._clock.steady()


def _boot() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text("utf-8").strip()
