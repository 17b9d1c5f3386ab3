"""Times on the command line: ``90s``, ``10m``, ``2h``, ``3d``; and moments: ``2026-12-24T08:00+01:00``."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import click

__all__ = ["Moment", "Seconds"]

_UNITS = {"": 1, "s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


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
        if not (seconds or self.may_be_0):
            self.fail(f"{value!r} is no time above 0", param, ctx)
        return seconds


class Moment(click.ParamType[float]):
    """A moment, as ISO 8601 says it, with its timezone, or as a Unix time; in seconds since 1970."""

    name = "moment"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        text = str(value).strip()
        if re.fullmatch(r"\d+(\.\d+)?", text):
            return float(text)
        try:
            moment = datetime.fromisoformat(re.sub("[zZ]$", "+00:00", text))  # which Python 3.10 doesn't read as that
        except ValueError:
            self.fail(f"{value!r} is no moment such as 2026-12-24T08:00+01:00, or a Unix time", param, ctx)
        if moment.tzinfo is None:
            self.fail(f"{value!r} has no timezone: {moment.isoformat(timespec='minutes')}+01:00, say", param, ctx)
        return moment.timestamp()
