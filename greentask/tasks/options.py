"""The options with which a function is made a task, for the types of those who hand them on to ``Task``."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Iterable, Mapping
from datetime import timedelta
from typing import Any, TypedDict

from .resources import Resource
from .retries import Backoff, Exceptions
from .schedules import Every
from .singletons import Singleton

__all__ = ["TaskOptions", "check_options", "refuse_unknown"]


class TaskOptions(TypedDict, total=False):
    """As ``Task`` has them."""

    name: str | None
    process: bool | str
    timeout: float | None
    max_running: int | None
    max_waiting: int | None
    needs: Iterable[Resource[Any]]
    retries: int | None
    backoff: Backoff | None
    retry_on: Exceptions | None
    give_up_on: Exceptions | None
    every: Every | None
    timezone: str | None
    catch_up: bool
    rate: str | None
    singleton: Singleton
    ttl: float | timedelta | None
    priority: int


def refuse_unknown(what: str, given: Mapping[str, Any], known: Collection[str], also: Iterable[str] = ()) -> None:
    """Raise ``TypeError`` for an option that is none of those that are known, with the close ones, or all."""
    for name in given:
        if name not in known:
            names = sorted({*known, *also})
            close = difflib.get_close_matches(name, names, n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else f"there are {', '.join(names)}"
            raise TypeError(f"{what} has no option {name!r:.80}; {hint}")


def check_options(options: TaskOptions) -> None:
    """Raise ``TypeError`` for one that a task hasn't."""
    refuse_unknown("task()", options, TaskOptions.__annotations__)
