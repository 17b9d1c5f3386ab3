"""Events on their way from the I/O to the greenlet or thread of a caller."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from typing import Generic, TypeVar

from ..hub.home import wait_for

__all__ = ["Mailbox"]

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One side puts (in the home's thread, never waiting), one other takes."""

    __slots__ = ("_events", "_wake")

    def __init__(self) -> None:
        self._events: deque[T] = deque()
        self._wake: Future[None] | None = None

    def put(self, event: T) -> None:
        """Leave an event."""
        self._events.append(event)
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)

    def put_latest(self, event: T, most: int) -> None:
        """Leave an event, where it is the newest that counts: with ``most`` waiting it takes the last one's place.

        Only where that is of the same kind; the end of a call is never replaced.
        """
        if len(self._events) >= most and type(self._events[-1]) is type(event):
            self._events.pop()
        self.put(event)

    def take(self) -> T:
        """The oldest event; waits for one."""
        while not self._events:
            # Published first and looked again after: whatever is put from here on sets it.
            wake: Future[None] = Future()
            self._wake = wake
            if not self._events:
                wait_for(wake)
            self._wake = None
        return self._events.popleft()
