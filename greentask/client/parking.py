"""Calls for which no server can be tried just now: they wait until one may be, or is back."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

import gevent

from .sent import Sent

__all__ = ["Parking"]

_LONGEST = 1.0  # seconds, where a Ctrl-C came in between


class Parking:
    """Belongs to its router, whose ``send`` sends a call, or parks it again. One timer for all of them."""

    def __init__(self, send: Callable[[int, Sent], None]) -> None:
        self._send = send
        self._calls: dict[int, Sent] = {}
        self._wake_at = math.inf

    def __len__(self) -> int:
        return len(self._calls)

    def __contains__(self, id: int) -> bool:
        return id in self._calls

    def park(self, id: int, sent: Sent, until: float) -> None:
        """Have it sent then, or when somebody is back before."""
        self._calls[id] = sent
        self._wake_by(until)

    def forget(self, id: int) -> None:
        """It has ended."""
        self._calls.pop(id, None)

    def clear(self) -> None:
        """Forget all."""
        self._calls.clear()

    def mend(self, late: float) -> None:
        """Wake them if they should have been woken before then."""
        if self._calls and not late <= self._wake_at < math.inf:
            self.wake()

    def wake(self) -> None:
        """A server may be tried, or is back."""
        self._wake_at = math.inf
        try:
            for id, sent in list(self._calls.items()):
                if sent.link is None and id in self._calls:  # else it has ended meanwhile
                    self._send(id, sent)
                if sent.link is not None:
                    self._calls.pop(id, None)
        finally:
            if self._calls:
                self._wake_by(time.monotonic() + _LONGEST)

    def _wake_by(self, until: float) -> None:
        if until < self._wake_at:
            self._wake_at = until
            gevent.spawn_later(max(0.0, until - time.monotonic()), self.wake)
