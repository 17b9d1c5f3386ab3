"""Waiting for a condition, with a limit, while gevent's hub runs."""

import time
from collections.abc import Callable
from typing import Literal, TypeVar

import gevent

T = TypeVar("T")


def wait_until(condition: Callable[[], T | Literal[False] | None], within: float = 10.0, what: str = "it") -> T:
    """Wait until the condition is true, and return what it returned; fails after ``within`` seconds."""
    give_up = time.monotonic() + within
    while not (value := condition()):
        assert time.monotonic() < give_up, f"{what} did not happen within {within} s"
        gevent.sleep(0.002)
    return value
