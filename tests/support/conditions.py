"""Waiting for a condition, with a limit. Programs that tests start import this, so it imports nothing of weight."""

import time
from collections.abc import Callable
from typing import TypeVar

PATIENCE = 20.0  # seconds in which what must happen has happened

T = TypeVar("T")


def wait_until(condition: Callable[[], T], what: str = "the condition", patience: float = PATIENCE) -> T:
    """Wait until the condition is true (or what it returns is); its value. Fails after `patience` seconds."""
    give_up = time.monotonic() + patience
    while not (value := condition()):
        assert time.monotonic() < give_up, f"{what} did not come true in {patience:g} s"
        time.sleep(0.005)
    return value
