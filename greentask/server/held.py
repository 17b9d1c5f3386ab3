"""What all connections together hold in memory, which is bounded however many they are.

Half of ``max_held`` is for large lines whose calls are in flight (``Room``), half for what connections hold otherwise:
unfinished lines, and answers that their peers have not read (``Crowd``). Both belong to the hub of their server.
"""

from __future__ import annotations

from collections.abc import Collection, Generator
from typing import TYPE_CHECKING

from gevent.event import Event

from .limits import Limits

if TYPE_CHECKING:
    from .connection import LineConnection

__all__ = ["COUNTED", "Crowd", "Room", "weigh"]

#: Bytes of a line from which it is counted.
COUNTED = 2 * 1024
_WINDOW = 256 * 1024  # bytes that are looked at in one step
_VALUE = 48  # bytes that a value in a line takes, about, beside its text
_LOOKS = 16  # a look at all connections each time that they have taken up this part of what they may hold


def weigh(line: bytes) -> Generator[None, None, int]:
    """The bytes of memory that a line takes with all the values in it, about. In steps: it may be long."""
    values = 0
    for start in range(0, len(line), _WINDOW):
        if start:
            yield
        window = line[start : start + _WINDOW]
        values += len(window) - len(window.translate(None, b",[{"))
    return len(line) + _VALUE * values


class Room:
    """What lines take up from before they are read until their calls have ended.

    Lines that don't fit are read one after another, and whether their calls are refused is known then, with their ids.
    """

    def __init__(self, limits: Limits) -> None:
        self._most = limits.max_held // 2
        self._taken = 0
        self._lines = 0
        self._being_read = 0
        self._changed = Event()

    def enter(self, size: int) -> None:
        """A line is to be read. Waits where it doesn't fit while others are read; that never takes for ever."""
        while self._being_read and self._taken + size > self._most:
            self._changed.clear()
            self._changed.wait()
        self._taken += size
        self._lines += 1
        self._being_read += 1

    def was_read(self) -> None:
        """One has been read."""
        self._being_read -= 1
        self._changed.set()

    def leave(self, size: int, lines: int = 1) -> None:
        """A line's call has ended, or it was none; with no ``lines``, it takes up so much less."""
        self._taken -= size
        self._lines -= lines
        self._changed.set()

    @property
    def is_full(self) -> bool:
        """Whether there is too much. One line is never too much: it has a limit of its own."""
        return self._taken > self._most and self._lines > 1


class Crowd:
    """Sees to it that ``connections`` together hold no more than they may.

    Where they do, those are closed that hold more than the average: first those on which nothing has come to an end for
    longest. ``closed`` counts them.
    """

    def __init__(self, limits: Limits, connections: Collection[LineConnection]) -> None:
        self.closed = 0
        self._connections = connections
        self._most = limits.max_held // 2
        self._grown = 0

    def grew(self, size: int) -> None:
        """A connection holds so many bytes more. Whoever holds little need not tell: there are looks now and then."""
        self._grown += size
        if self._grown > self._most // _LOOKS:
            self.look()

    def look(self) -> int:
        """Close some, where they hold too much; how many."""
        self._grown = 0
        held = [(one.stuck, size, one) for one in self._connections if (size := one.held)]
        total = sum(size for _, size, _ in held)
        if total <= self._most:
            return 0
        average = total / len(held)
        closed = 0
        for _, size, connection in sorted(held, key=lambda one: one[:2], reverse=True):
            if size >= average and total > self._most * (_LOOKS - 2) // _LOOKS:
                connection.give_way()
                total -= size
                closed += 1
        self.closed += closed
        return closed
