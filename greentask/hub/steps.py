"""Running long work of the loop's thread in steps, between which everything else has its turn.

However many do so at once, one of them takes a step in each turn of the loop: a hundred large values that are written
together hold up everybody else by one step, and not by a hundred. Who has just come may take its first step before
those that have long been at it, or a small piece of work would wait for all of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from time import perf_counter
from typing import Any, TypeVar
from weakref import WeakKeyDictionary

from gevent.hub import Hub, Waiter, get_hub

__all__ = ["run_in_turns"]

T = TypeVar("T")

_MOST = 0.002  # seconds of a turn that steps take before others wait for the next one


def run_in_turns(steps: Generator[None, None, T]) -> T:
    """Run it to its end, with a turn of the loop after each step; what it returns."""
    hub = get_hub()
    lane = _lanes.get(hub)
    if lane is None:
        lane = _lanes[hub] = _Lane(hub)
    if lane.spent > _MOST:
        lane.wait(lane.new)
    while True:
        began = perf_counter()
        try:
            next(steps)
        except StopIteration as end:
            value: T = end.value
            return value
        finally:
            lane.spent += perf_counter() - began
            if lane.spent > _MOST:
                lane.start()
        lane.wait(lane.old)


class _Lane:
    """Who waits for a turn in one hub. Only greenlets of that hub touch it.

    Its timer goes on until nobody waits: a Ctrl-C that hits the loop in the midst of it keeps nobody from his turn.
    """

    __slots__ = ("_is_news_turn", "_timer", "new", "old", "spent")

    def __init__(self, hub: Hub) -> None:
        self.spent = 0.0  # seconds that steps have taken in this turn
        self.new: deque[Waiter[None]] = deque()  # those that have taken no step yet
        self.old: deque[Waiter[None]] = deque()
        self._is_news_turn = True
        # Not a callback of the loop's, of which gevent runs many in one turn while timers and sockets wait.
        self._timer: Any = hub.loop.timer(1e-6, 1e-6)

    def wait(self, queue: deque[Waiter[None]]) -> None:
        """Return in a later turn of the loop."""
        waiter: Waiter[None] = Waiter()
        try:
            queue.append(waiter)
            self.start()
            waiter.get()
        finally:
            if waiter in queue:
                queue.remove(waiter)

    def start(self) -> None:
        """Have turns counted."""
        if not self._timer.active:
            self._timer.start(self._turn)

    def _turn(self) -> None:
        self.spent = 0.0
        queue = self.new if self.new and (self._is_news_turn or not self.old) else self.old
        if queue:
            self._is_news_turn = queue is self.old
            first = queue[0]
            if first.greenlet is None:  # a Ctrl-C came before it waited, or a signal handler is in its midst
                del queue[0]
            first.switch(None)  # who comes to wait later returns at once
        else:
            self._timer.stop()


_lanes: WeakKeyDictionary[Hub, _Lane] = WeakKeyDictionary()
