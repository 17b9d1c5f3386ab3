"""Running long work of the loop's thread in steps, between which everything else has its turn."""

from __future__ import annotations

from collections.abc import Generator
from typing import TypeVar

import gevent

__all__ = ["run_in_turns"]

T = TypeVar("T")


def run_in_turns(steps: Generator[None, None, T]) -> T:
    """Run it to its end, with a turn of the loop after each step; what it returns."""
    while True:
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value
        # Not sleep(0), of which gevent runs many in one turn of its loop, and the timers and sockets wait.
        gevent.sleep(1e-6)
