"""Somebody who looks, while there are calls, for what a Ctrl-C has kept from being done.

In the main thread's hub a ``KeyboardInterrupt`` (or whatever else a signal handler raises) may come anywhere, and the
main greenlet may catch it and go on: then every call of the others must still come to its end. But what was to be done
once may not have been, and gevent stops a watcher whose callback was hit. No flag or note says so, for a Ctrl-C may
come before it is set: it is seen by what has to hold, which each owner of calls knows of its own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["MENDED_EVERY", "Mending"]

MENDED_EVERY = 1.0  # seconds


class Mending:
    """Calls ``look`` every second from ``begin`` on, until it says that there are no calls any more, or to ``end``.

    ``loop`` is that of the owner's hub; None, and of no effect, where that is not in the main thread.
    """

    def __init__(self, loop: Any, look: Callable[[], bool]) -> None:
        self._timer: Any = None if loop is None else loop.timer(MENDED_EVERY, MENDED_EVERY)
        self._look = look

    def begin(self) -> None:
        """There is a call."""
        timer = self._timer
        if timer is not None and not timer.active:
            timer.start(self._look_once)

    def end(self) -> None:
        """There are none, and there won't be any."""
        if self._timer is not None:
            self._timer.stop()

    def _look_once(self) -> None:
        if not self._look():
            self.end()
