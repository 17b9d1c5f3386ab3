"""Sees that the loop is held up: a greenlet task that computes, or blocks in C, while all others wait.

A thread of the system's asks the loop for a sign of life, again and again. Where none comes, it looks at what the
loop's thread is doing, and says so, once for each time that it is held.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from types import FrameType
from typing import Any

import gevent
from gevent import monkey
from gevent.hub import get_hub

from ..tasks.execution import execute
from ..tasks.task import Task

__all__ = ["Watchdog", "task_of"]

logger = logging.getLogger(__name__)

_sleep: Any = monkey.get_original("time", "sleep")
_start_thread: Any = monkey.get_original("_thread", "start_new_thread")
_thread_id: Any = monkey.get_original("_thread", "get_ident")
_MOST_FRAMES = 12


class Watchdog:
    """Watches the loop of the hub in which it is made, from ``start`` to ``stop``.

    ``seconds`` is how long it may be held. ``held`` counts how often it was, ``longest`` is in seconds.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.held = 0
        self.longest = 0.0
        self._thread = _thread_id()
        self._answered = True
        self._asked_at = 0.0
        self._told = False  # of this time
        self._stopped = False
        self._wake: Any = None

    def start(self) -> None:
        """Begin to watch."""
        self._wake = get_hub().loop.async_(ref=False)
        self._wake.start(self._answer)
        _start_thread(self._watch, ())

    def stop(self) -> None:
        """Watch no more."""
        self._stopped = True
        if self._wake is not None:
            self._wake.stop()

    def _answer(self) -> None:
        """In the loop."""
        late = time.monotonic() - self._asked_at
        if late > self.seconds:
            self.longest = max(self.longest, late)
            if not self._told:  # code that held the interpreter's lock: nobody could look at it meanwhile
                self.held += 1
            # In a greenlet: the log may be in use just now, by our thread for one, and nothing here may wait for that.
            gevent.spawn(logger.warning, "the loop goes on, after it was held for %.2f s", late)
        self._told = False
        self._answered = True

    def _watch(self) -> None:
        """In the thread."""
        while not self._stopped:
            if self._answered:
                self._answered = False
                self._asked_at = time.monotonic()
                self._wake.send()
            elif not self._told and time.monotonic() - self._asked_at > self.seconds:
                self._told = True
                self.held += 1
                self._tell(time.monotonic() - self._asked_at)
            _sleep(self.seconds / 2)

    def _tell(self, seconds: float) -> None:
        frame = sys._current_frames().get(self._thread)
        if frame is None:
            return
        task = task_of(frame)
        who = f"the task {task.name}, which runs in a greenlet" if task is not None else "what is shown below"
        stack = "".join(traceback.format_stack(frame)[-_MOST_FRAMES:])
        logger.warning(
            "the loop is held for %.2f s by %s, and all other calls wait: declare it process=True if it computes or "
            "blocks in C\n%s",
            seconds,
            who,
            stack.rstrip(),
        )


def task_of(frame: FrameType | None) -> Task[..., Any] | None:
    """The task that a stack runs, if it does."""
    while frame is not None:
        if frame.f_code is execute.__code__:
            task = frame.f_locals.get("task")
            return task if isinstance(task, Task) else None
        frame = frame.f_back
    return None
