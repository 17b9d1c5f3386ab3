"""Greenlets for many short functions. A greenlet is used again where nobody can tell it from a new one.

To make one, and to end it, takes longer than most of what runs in them: Python maps memory for its frames, and unmaps
it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from sys import getrefcount
from time import monotonic
from typing import Any
from weakref import getweakrefcount

from gevent import Greenlet, getcurrent
from gevent.hub import get_hub
from greenlet import greenlet as RawGreenlet

__all__ = ["Spawner"]

_SLICE = 0.001  # seconds after which what else is ready has its turn
_IDLE = object()


class Spawner:
    """Runs each function in a greenlet that is as good as new. Belongs to the hub that it was made in.

    What a function leaves on its greenlet stays its own: greenlet-locals, links, context variables, a timeout that is
    still pending, somebody who means to kill it. A greenlet that has waited, or that anybody knows, is not used again.
    """

    def __init__(self) -> None:
        self._loop = get_hub().loop
        self._timer = self._loop.timer(0)
        self._queue = _Queue()
        self._spare: Greenlet[..., None] | None = None
        self._scheduled = False

    def spawn(self, run: Callable[[], object]) -> None:
        """Run it, in the loop's next turn. What it raises is reported by the hub."""
        self._queue.waiting.append(run)
        if not self._scheduled:
            self._scheduled = True
            self._loop.run_callback(self._start)

    def __del__(self) -> None:
        if self._spare is not None:
            try:
                self._loop.run_callback_threadsafe(self._spare.throw)  # a greenlet that waits keeps itself
            except ValueError:
                pass  # the loop is gone, and all of its greenlets with it

    def _start(self) -> None:
        queue = self._queue
        queue.until = monotonic() + _SLICE
        try:
            while queue.waiting and monotonic() < queue.until:
                greenlet, self._spare = self._spare or _make(queue), None
                queue.current = greenlet
                if greenlet.switch() is _IDLE:  # else it has ended, or waits for something
                    self._spare = greenlet
        finally:
            queue.current = None
            if queue.waiting:
                self._timer.start(self._start)  # not run_callback, of which gevent runs many in one turn of its loop
            else:
                self._scheduled = False


class _Queue:
    """What the greenlets share, without the spawner, which ends the spare one when it is forgotten."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[], object]] = deque()
        self.current: Any = None  # the one that was switched to
        self.until = 0.0  # when its slice ends, on the monotonic clock


def _make(queue: _Queue) -> Greenlet[..., None]:
    greenlet = Greenlet(_run, queue)
    greenlet.spawn_tree_locals = {}  # its own: it is not the loop's child, whose it would share with all
    return greenlet


def _run(queue: _Queue) -> None:
    me: Any = getcurrent()
    waiting = queue.waiting
    while True:
        references, weak, own = getrefcount(me), getweakrefcount(me), len(me.__dict__)
        while waiting and monotonic() < queue.until:
            waiting.popleft()()
            if (
                me is not queue.current  # it has waited
                or getrefcount(me) != references  # or somebody knows it, or something was put on it
                or getweakrefcount(me) != weak
                or len(me.__dict__) != own
                or me.spawn_tree_locals
                or me.has_links()
            ):
                return
            me.gr_context = None
        RawGreenlet.switch(me.parent, _IDLE)  # the hub's own takes no value
