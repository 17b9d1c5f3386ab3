"""Calls of one connection that have not begun, and wait until its peer has read what it was sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

if TYPE_CHECKING:
    from .connection import LineConnection

__all__ = ["Backlog", "wait_to_begin"]

_AT_ONCE = 16  # calls that begin before there is a look at what has become of them


class Backlog:
    """Belongs to its connection; a greenlet of its own lets the calls begin, while there are any."""

    __slots__ = ("_connection", "_greenlet", "_waiting")

    def __init__(self, connection: LineConnection) -> None:
        self._connection = connection
        self._waiting: deque[Callable[[], object]] = deque()
        self._greenlet: gevent.Greenlet[[], None] | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, begin: Callable[[], object]) -> None:
        """Call it when the peer has caught up, or is gone."""
        self._waiting.append(begin)
        if self._greenlet is None:
            self._greenlet = gevent.spawn(self._let_begin)

    def _let_begin(self) -> None:
        try:
            while self._waiting:
                self._connection.wait_until_read(4)  # as little as others begin with, or they might come first for ever
                for _ in range(min(_AT_ONCE, len(self._waiting))):
                    self._waiting.popleft()()
                gevent.sleep(1e-9)  # a whole turn: what has begun may have ended by then, with much to read
        finally:
            # One that could not begin, for an error that the hub reports, keeps the others from nothing.
            self._greenlet = gevent.spawn(self._let_begin) if self._waiting else None


def wait_to_begin(connection: LineConnection) -> None:
    """Let other greenlets run until calls of its peer may begin: one that waits like them, so that it is seen."""
    if connection.is_behind:
        may_begin = Event()
        connection.hold(may_begin.set)
        may_begin.wait()
