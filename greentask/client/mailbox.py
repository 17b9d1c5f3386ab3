"""Events on their way from the I/O to the greenlet or thread of a caller."""

from __future__ import annotations

import time
from collections import deque
from typing import Generic, TypeVar

from ..hub.bell import Bell

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One side puts (in the home's thread, never waiting), one other takes."""

    __slots__ = ("_bell", "_events")

    def __init__(self) -> None:
        self._events: deque[T] = deque()
        self._bell: Bell | None = None

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: T) -> None:
        """Leave an event."""
        self._events.append(event)
        bell = self._bell
        if bell is not None:
            bell.ring()

    def put_latest(self, event: T, most: int) -> None:
        """Leave an event, where it is the newest that counts: with ``most`` waiting it takes the last one's place.

        Only where that is of the same kind; the end of a call is never replaced.
        """
        try:
            if len(self._events) >= most and type(self._events[-1]) is type(event):
                self._events.pop()
        except IndexError:
            pass  # all of them were taken meanwhile
        self.put(event)

    def take(self) -> T:
        """The oldest event; waits for one."""
        self.wait()
        return self._events.popleft()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait for an event; False where there is none after ``timeout`` seconds."""
        until = None if timeout is None else time.monotonic() + timeout
        while not self._events:
            left = None if until is None else until - time.monotonic()
            if left is not None and left <= 0:
                return False
            # Hung up first and looked again after: whatever is put from here on rings it.
            self._bell = bell = Bell()
            if not self._events:
                bell.wait(left)
            self._bell = None
        return True
