"""When a task runs by itself: the arithmetic of ``every``, without a clock.

A *tick* is a moment at which it is to run. Those of an interval count as delays do, by a clock that nobody sets; those
of a cron expression are the wall clock's, in a zone. A time of day that a change to summer time leaves out comes right
after the gap, and one that a change back brings twice comes once; whatever has a ``*`` in its minutes or hours goes on
in real time, as it does with cron on Debian.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any, Protocol

from ..errors import ConfigurationError
from .checks import in_seconds

__all__ = ["Cron", "Every", "Interval", "Plan", "Schedule", "make_schedule", "next_plan"]

Every = str | float | timedelta

#: Seconds by which a tick may be late and still run, where missed ones are left out.
GRACE = 60.0
#: A wall clock that is set back by more than so many seconds was wrong before; by less, its ticks don't come again.
CORRECTION = 3 * 3600.0

_LEAST = 1.0
_MOST = 366 * 86400.0


class Schedule(Protocol):
    """When a task runs by itself."""

    @property
    def is_wall(self) -> bool:
        """Whether its moments are Unix times, which change when the clock is set."""

    @property
    def spec(self) -> str:
        """The same for schedules that have the same ticks."""

    def next_after(self, moment: float) -> float:
        """The first tick after a moment."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A tick at each multiple of so many seconds."""

    seconds: float
    is_wall = False

    @property
    def spec(self) -> str:
        return f"every {self.seconds!r}"

    def next_after(self, moment: float) -> float:
        tick = (math.floor(moment / self.seconds) + 1) * self.seconds
        return tick if tick > moment else tick + self.seconds


@dataclass(frozen=True, slots=True)
class Cron:
    """The ticks of a cron expression, in a zone."""

    expression: str
    zone: str
    _zone: Any = field(repr=False, compare=False)
    is_wall = True

    @property
    def spec(self) -> str:
        return f"cron {self.expression} {self.zone}"

    def next_after(self, moment: float) -> float:
        from cronsim import CronSim

        for tick in CronSim(self.expression, datetime.fromtimestamp(moment, self._zone)):
            # Of an hour that comes twice it names the first, also where that is over.
            if tick.timestamp() > moment:
                return tick.timestamp()
        raise ConfigurationError(f"cron expression {self.expression!r} has no tick within 50 years")


@dataclass(frozen=True, slots=True)
class Plan:
    """What is known of a task's ticks: the ``next`` one, and when that was said (``seen``), by the schedule's clock."""

    next: float
    seen: float


def next_plan(schedule: Schedule, plan: Plan | None, now: float, *, catch_up: bool) -> tuple[Plan | None, bool]:
    """What is to be planned now, None where all stays as it is; and whether the task is to run.

    However many ticks were missed, it runs once; without ``catch_up``, not at all where it is late.
    """
    if plan is None or plan.seen - now > CORRECTION:
        return Plan(schedule.next_after(now), now), False
    if now < plan.next:
        return None, False
    return Plan(schedule.next_after(now), now), catch_up or now - plan.next <= GRACE


def make_schedule(name: str, every: Every | None, zone: str | None) -> Schedule | None:
    """The schedule of the task of that name. Raises ``ConfigurationError``."""
    if isinstance(every, str):
        return _cron(name, every, zone)
    if zone is not None:
        raise ConfigurationError(f"task {name!r}: timezone goes with every=… as a cron expression")
    if every is None:
        return None
    seconds = in_seconds(every)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not _LEAST <= seconds <= _MOST:
        raise ConfigurationError(
            f"task {name!r}: every is a number of seconds, from 1 to a year, a timedelta or a cron expression, "
            f"not {every!r:.80}"
        )
    return Interval(float(seconds))


def _cron(name: str, expression: str, zone: str | None) -> Cron:
    try:
        from cronsim import CronSim, CronSimError
    except ImportError:
        raise ConfigurationError(
            f"task {name!r}: every={expression!r} needs cronsim: python -m pip install 'greentask[queue]'"
        ) from None
    from zoneinfo import ZoneInfo  # few programs need it, and all would wait for it

    try:
        cron = Cron(" ".join(expression.split()), zone or "UTC", ZoneInfo(zone) if zone else timezone.utc)
    except Exception as error:  # many kinds, some of the file system
        raise ConfigurationError(f"task {name!r}: there is no timezone {zone!r:.80} ({error})") from None
    try:
        CronSim(cron.expression, datetime(2000, 1, 1))
        cron.next_after(0.0)
    except (CronSimError, ConfigurationError) as error:
        raise ConfigurationError(
            f"task {name!r}: every={expression!r:.80} is no cron expression such as '*/5 * * * *' ({error})"
        ) from None
    return cron
