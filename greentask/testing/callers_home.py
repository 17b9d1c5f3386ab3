"""Where a carrier is called that must see a call at once, and not when the thread of the I/O gets to it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gevent.hub import Waiter

from ..hub.home import Home

__all__ = ["CallersHome"]


class CallersHome(Home):
    """Wherever the caller is: what is to run in this home runs at once, and there.

    Callers wait as those of ``inner`` do. Without one they wait with futures, which need no hub.
    """

    __slots__ = ("_inner",)

    def __init__(self, inner: Home | None) -> None:
        # In place of Home.__init__, which makes a hub.
        self._inner = inner
        self.hub: Any = None if inner is None else inner.hub
        self.thread = 0 if inner is None else inner.thread
        self.pid = 0 if inner is None else inner.pid

    def is_interrupted(self) -> bool:
        return self._inner is not None and self._inner.is_interrupted()

    def is_here(self) -> bool:
        return self._inner is not None and self._inner.is_here()

    def run(self, function: Callable[..., object], *args: Any) -> None:
        function(*args)

    def post(self, function: Callable[..., object], *args: Any) -> None:
        if self._inner is None:
            function(*args)
        else:
            self._inner.post(function, *args)

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        if self._inner is None:
            function(*args)
        else:
            self._inner.soon(function, *args)

    def nudge(self) -> None:
        if self._inner is not None:
            self._inner.nudge()

    def resume(self, waiter: Waiter[None]) -> None:
        if self._inner is not None:
            self._inner.resume(waiter)
