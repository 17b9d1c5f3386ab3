"""The options that say which tasks are meant."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import click

from ...queue.managing import STATES
from ..times import Seconds

__all__ = ["filter_options"]


def filter_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--state``, ``--task``, ``--error``, ``--older`` and ``--younger``, which the command gets as ``wanted``."""

    @click.option(
        "--state", "states", multiple=True, type=click.Choice(STATES), help="In this state; may be given several times."
    )
    @click.option("--task", "name", metavar="NAME", help="Of this name.")
    @click.option("--error", metavar="TYPE", help="Whose last attempt ended with such an error: ValueError, say.")
    @click.option("--older", type=Seconds(), metavar="TIME", help="Enqueued at least so long ago: 90s, 10m, 2h, 3d.")
    @click.option("--younger", type=Seconds(), metavar="TIME", help="Enqueued at most so long ago.")
    @functools.wraps(command)
    def collected(
        *args: Any,
        states: tuple[str, ...],
        name: str | None,
        error: str | None,
        older: float | None,
        younger: float | None,
        **options: Any,
    ) -> Any:
        given = {"states": list(states) or None, "name": name, "error": error, "older": older, "younger": younger}
        wanted = {member: value for member, value in given.items() if value is not None}
        return command(*args, wanted=wanted, **options)

    return collected
