"""Times on the command line: ``90s``, ``10m``, ``2h``, ``3d``; seconds as a number; and moments:
``2026-12-24T08:00+01:00``.
"""

from __future__ import annotations

import math
import re
from datetime import datetime
from typing import Any

import click

__all__ = ["Duration", "Moment", "Seconds"]

_MOST = 1e9  # seconds, thirty years: the system's own timers take ten times as many
_FIRST, _LAST = 1e9, 1e11  # a Unix time is from 2001 on; others are dates without a time, or milliseconds
_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


class Duration(click.FloatRange):
    """A number of seconds from ``least`` on, or ``above`` that; no more than thirty years."""

    name = "seconds"

    def __init__(self, least: float = 0.0, *, above: bool = False) -> None:
        super().__init__(least, min_open=above)
        self.least, self.above = least, above

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        try:
            seconds = float(value)
        except ValueError:
            seconds = math.nan
        if not (self.least < seconds <= _MOST or (seconds == self.least and not self.above)):
            least = f"above {self.least:g}, and at most" if self.above else f"from {self.least:g} to"
            self.fail(f"{value!r:.80} is no number of seconds {least} {_MOST:,.0f}", param, ctx)
        return seconds


class Seconds(click.ParamType[float]):
    """A time such as 90, 90s, 10m, 2h, 3d or 1w, in seconds; 0 only where that ``may_be_0``."""

    name = "time"

    def __init__(self, *, may_be_0: bool = True) -> None:
        self.may_be_0 = may_be_0

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        match = re.fullmatch(r"(\d+(?:\.\d+)?)([smhdw]?)", str(value).strip())
        if match is None:
            self.fail(f"{value!r} is no time such as 90s, 10m, 2h or 3d", param, ctx)
        seconds = float(match[1]) * _UNITS[match[2]]
        if seconds == math.inf:
            self.fail(f"{value!r:.80} is more than any time", param, ctx)
        if not (seconds or self.may_be_0):
            self.fail(f"{value!r} is no time above 0", param, ctx)
        return seconds


class Moment(click.ParamType[float]):
    """A moment, as ISO 8601 says it, with its timezone, or as a Unix time; in seconds since 1970."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            if not _FIRST <= float(text) < _LAST:  # 20261224 is no moment of 1970
                self.fail(
                    f"{value!r:.80} is no Unix time from 2001 on, in seconds; a date is written with its time and "
                    "timezone: 2026-12-24T08:00+01:00",
                    param,
                    ctx,
                )
            return float(text)
        try:
            moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))  # which Python 3.10 doesn't read as that
        except ValueError:
            self.fail(f"{value!r} is no moment such as 2026-12-24T08:00+01:00, or a Unix time", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no timezone: {moment.isoformat(timespec='minutes')}+01:00, say", param, ctx)
        return moment.timestamp()
