"""What a pool does about Ctrl-C, in the main thread's hub.

There a ``KeyboardInterrupt`` (or whatever else a signal handler raises) may come anywhere, and the main greenlet may
catch it and go on: then every call of the others must still come to its end, and none may run twice.

- A call waits until a process has it, and a process has it until its end was told: it is always with one of the two.
- A process that was hit as it was heard, or sent to, is killed: its calls end as those of a process that dies. Where
  something that it said is lost, all of them do, for nobody knows which have run. Likewise the template.
- While there are calls, somebody looks every second for what was not done: gevent stops a watcher whose callback was
  hit, and what was to be done once may not have been. No flag says so; it is seen by what has to hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..hub.home import is_main_thread

if TYPE_CHECKING:
    from .processes import Processes

__all__ = ["MENDED_EVERY", "Mending"]

MENDED_EVERY = 1.0  # seconds


class Mending:
    """A part of its pool, at which it looks while that has calls. Of no effect in another thread than the main one."""

    def __init__(self, pool: Processes) -> None:
        self._pool = pool
        self._timer: Any = pool._loop.timer(MENDED_EVERY, MENDED_EVERY) if is_main_thread() else None

    def begin(self) -> None:
        """There is a call."""
        timer = self._timer
        if timer is not None and not timer.active:
            timer.start(self.look)

    def end(self) -> None:
        """There are none, and there won't be any."""
        if self._timer is not None:
            self._timer.stop()

    def look(self) -> None:
        """Do what should have been done a while ago."""
        pool = self._pool
        processes = list(pool._population.members.values())
        if not pool._waiting and not any(process.calls for process in processes):
            self.end()
            return
        pool._population.mend()
        for process in processes:
            if process.ready and not process.retiring and not process.calls:
                pool._idle[process.slot] = process
        pool._dispatch()
