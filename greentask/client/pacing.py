"""Calls that a server has no room for, of callers that go on with others meanwhile: how fast they are sent again.

``map`` and an executor have as many calls in flight as their window says, and that may be more than a server takes of
a task (``max_waiting``) or in all (``max_calls``). What it refuses waits here, in order, and so does what is started
after it. One is sent when another one of its task has ended, for which there was room; and one more now and then, in
case that there is room for more. So a server gets about as many as it takes, and is asked in vain about once a second.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ..hub.home import Home
from .sent import Sent

__all__ = ["Pacing"]

_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0  # seconds; it doubles while nothing is taken
_chance = random.SystemRandom()  # the program's own generator may have been seeded, and is its own


class _Line:
    """The calls of one task that wait."""

    __slots__ = ("calls", "is_refused", "pause", "timer")

    def __init__(self, timer: Any) -> None:
        self.calls: OrderedDict[int, Sent] = OrderedDict()
        self.pause = _FIRST_PAUSE
        self.is_refused = False  # the one that was sent last, before it had left: no server is left to it
        self.timer = timer  # runs while there is a line


class Pacing:
    """A part of its router, whose ``send`` sends a call, or puts it here again. In the home's thread."""

    def __init__(self, home: Home, send: Callable[[int, Sent], None]) -> None:
        self.lines: dict[bytes, _Line] = {}  # by task
        self._home = home
        self._send = send

    def __contains__(self, id: int) -> bool:
        return any(id in line.calls for line in self.lines.values())

    def begin(self, task: bytes) -> None:
        """Let calls of that task wait from now on."""
        if task not in self.lines:
            self.lines[task] = _Line(self._home.hub.loop.timer(_FIRST_PAUSE))
            self._try_later(task)

    def join(self, id: int, sent: Sent) -> bool:
        """Wait behind the others of its task; False where none waits."""
        line = self.lines.get(sent.task)
        if line is not None:
            line.calls[id] = sent
        return line is not None

    def refused(self, id: int, sent: Sent) -> None:
        """There was no room for it: it waits, before the others."""
        task = sent.task
        self.begin(task)
        line = self.lines[task]
        line.calls[id] = sent
        line.calls.move_to_end(id, last=False)
        line.is_refused = True
        line.pause = min(line.pause * 2, _LONGEST_PAUSE)

    def has_room(self, task: bytes) -> None:
        """One of its calls has ended."""
        line = self.lines.get(task)
        if line is not None:
            line.pause = _FIRST_PAUSE
            self._send_first(task, line)

    def forget(self, id: int, sent: Sent) -> None:
        """It has ended."""
        line = self.lines.get(sent.task)
        if line is not None:
            line.calls.pop(id, None)

    def clear(self) -> None:
        """Forget all."""
        while self.lines:
            self._end(next(iter(self.lines)))

    def mend(self) -> None:
        """Do what a Ctrl-C may have taken the place of. Of no effect where it hasn't."""
        for task, line in self.lines.items():
            if not line.timer.active:
                self._try_later(task)

    def _send_first(self, task: bytes, line: _Line) -> None:
        while line.calls:
            id, sent = next(iter(line.calls.items()))
            is_next = sent.link is None  # else it was sent, and a Ctrl-C came before that was noted
            line.is_refused = False
            if is_next:
                self._send(id, sent)
            if not line.is_refused:
                line.calls.pop(id, None)
            if is_next:
                break
        if not line.calls:
            self._end(task)

    def _try(self, task: bytes) -> None:
        line = self.lines.get(task)
        if line is not None:
            self._send_first(task, line)
            if self.lines.get(task) is line:
                self._try_later(task)

    def _try_later(self, task: bytes) -> None:
        line = self.lines[task]
        line.timer.stop()
        line.timer.close()
        line.timer = self._home.hub.loop.timer(_chance.uniform(0.5, 1.5) * line.pause)
        line.timer.start(self._try, task, update=True)

    def _end(self, task: bytes) -> None:
        line = self.lines.pop(task, None)
        if line is not None:
            line.timer.stop()
            line.timer.close()
