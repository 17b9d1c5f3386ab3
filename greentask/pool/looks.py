"""Looks that are taken about so often while there is something to look for: each of them wakes the program."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["Looks"]


class Looks:
    """Belongs to the hub whose ``loop`` it gets."""

    __slots__ = ("_every", "_loop", "_timer")

    def __init__(self, loop: Any) -> None:
        self._loop = loop
        self._every = 0.0  # seconds
        self._timer: Any = None  # while they are taken

    @property
    def are_taken(self) -> bool:
        """Whether there will be another one."""
        return self._timer is not None

    def take(self, look: Callable[[], object], seconds: float) -> None:
        """Call ``look`` about so often from now on; 0: not any more."""
        if self._timer is not None:
            if seconds and 0.5 < seconds / self._every < 2:
                return
            self._timer.stop()
            self._timer.close()
            self._timer = None
        if seconds:
            self._every = seconds
            self._timer = self._loop.timer(seconds, seconds)
            self._timer.start(look)

    def abandon(self) -> None:
        """In a forked child: take none there."""
        if self._timer is not None:
            self._timer.stop()
