"""Large results of greenlet tasks on their way into JSON, and the calls that wait for them.

Such results are written in turns, one step after another. Where several of one task's are being written already, its
next call begins later: it would only add a value to those that wait, and a client that asks for a thousand of them at
once would have all of them in memory.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from typing import TypeVar

from gevent.hub import Waiter, get_hub

from ..hub.steps import run_in_turns

__all__ = ["Writers"]

T = TypeVar("T")

_MOST = 4  # of one task: none of them waits for anything but the others


class _Writer:
    __slots__ = ("count", "waiting")

    def __init__(self) -> None:
        self.count = 0
        self.waiting: deque[Waiter[None]] = deque()


class Writers:
    """Belongs to a runner, and to its hub.

    ``of`` has those tasks of which large results are being written, by name.
    """

    __slots__ = ("of",)

    def __init__(self) -> None:
        self.of: dict[str, _Writer] = {}

    def run(self, name: str, steps: Generator[None, None, T]) -> T:
        """Write a result of the task, or let go of it; what ``steps`` return."""
        writer = self.of.get(name)
        if writer is None:
            writer = self.of[name] = _Writer()
        writer.count += 1
        try:
            return run_in_turns(steps)
        finally:
            writer.count -= 1
            # Whoever is woken may wait for a second before it has a result: then the others don't wait for that.
            self._wake(writer, 1 if writer.count else len(writer.waiting))
            if not writer.count:
                del self.of[name]

    def wait(self, name: str) -> None:
        """Return when a call of the task may begin."""
        while (writer := self.of.get(name)) is not None and writer.count >= _MOST:
            waiter: Waiter[None] = Waiter()
            writer.waiting.append(waiter)
            try:
                waiter.get()
            except BaseException:
                if waiter in writer.waiting:
                    writer.waiting.remove(waiter)
                else:
                    self._wake(writer, 1)  # in its place
                raise

    def _wake(self, writer: _Writer, calls: int) -> None:
        loop = get_hub().loop
        for _ in range(min(calls, len(writer.waiting))):
            loop.run_callback(writer.waiting.popleft().switch, None)
