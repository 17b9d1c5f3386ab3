"""Turns: of one task only so many calls run at once, and the others wait in the order in which they came.

``Turns`` is the arithmetic, without clock or I/O. ``TurnCall`` is a call that may have to wait, in the hub.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Protocol

from gevent.hub import get_hub

from ..errors import CallError, Cancelled, GreentaskError, Overloaded, out_of_time
from ..pool.calls import Listener
from ..pool.frames import Body
from .readers import NOBODY, Reader

__all__ = ["Leaving", "Running", "TurnCall", "Turns"]


class Running(Protocol):
    """A call that was started."""

    def cancel(self) -> None:
        """End it; its listener hears ``Cancelled``."""

    def grant(self, items: int) -> None:
        """The reader of its stream takes so many more items."""


class Turns:
    """Gives ``most`` turns at once. Whoever gets one gives it back with ``leave``, once.

    ``max_waiting`` is how many may wait for one; None: any number, which whoever asks must bound.
    """

    __slots__ = ("_giving", "_waiting", "max_waiting", "most", "name", "running")

    def __init__(self, name: str, most: int, max_waiting: int | None = None) -> None:
        self.name = name
        self.most = most
        self.max_waiting = max_waiting
        self.running = 0
        self._waiting: OrderedDict[int, Callable[[], object]] = OrderedDict()
        self._giving = False

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)

    def ask(self, key: int, begin: Callable[[], object], *, is_admitted: bool = False) -> bool:
        """Have ``begin`` called when its turn has come, at once or later; True where it was at once.

        ``key`` is for ``withdraw``. Raises ``Overloaded`` where too many wait, unless it was admitted before.
        """
        if self.running < self.most and not self._waiting:
            self.running += 1
            begin()
            return True
        if self.max_waiting is not None and len(self._waiting) >= self.max_waiting and not is_admitted:
            raise Overloaded(
                f"{self.name} runs {self.most} at a time (max_running), and {self.max_waiting} wait (max_waiting): "
                "try again later"
            )
        self._waiting[key] = begin
        return False

    def withdraw(self, key: int) -> bool:
        """Wait no longer; False where its turn has come."""
        return self._waiting.pop(key, None) is not None

    def leave(self) -> None:
        """A turn is over. The next one's ``begin`` is called, which may end at once and leave as well."""
        self.running -= 1
        if self._giving:
            return  # in a loop and not deeper and deeper: there may be thousands that end at once
        self._giving = True
        try:
            while self._waiting and self.running < self.most:
                _, begin = self._waiting.popitem(last=False)
                self.running += 1
                begin()
        finally:
            self._giving = False


class TurnCall:
    """A call that runs when its turn has come. It may be cancelled, and get out of time, while it waits.

    ``start`` starts it, and is given what to call when its turn is over.
    """

    __slots__ = ("_granted", "_is_held", "_listener", "_reader", "_running", "_start", "_timer", "_turns")

    def __init__(
        self,
        turns: Turns,
        start: Callable[[Callable[[], None]], Running],
        listener: Listener,
        deadline: float | None,
        reader: Reader = NOBODY,
    ) -> None:
        self._turns = turns
        self._reader = reader
        self._is_held = False  # its turn had come, and others have it, for its reader was behind
        self._start = start
        self._listener = listener
        self._running: Running | None = None
        self._granted = 0
        self._timer: Any = None
        has_begun = turns.ask(id(self), self._begin) and not self._is_held
        if deadline is not None and not has_begun:
            self._timer = get_hub().loop.timer(max(0.0, deadline - time.monotonic()))
            self._timer.start(self._out_of_time, update=True)

    def cancel(self) -> None:
        if self._running is not None:
            self._running.cancel()
        else:
            self._give_up(Cancelled("cancelled by its caller", started=False))

    @property
    def is_waiting(self) -> bool:
        """Whether it has not begun: its turn has not come, or no process has it yet."""
        return self._running is None or bool(getattr(self._running, "is_waiting", False))

    def grant(self, items: int) -> None:
        if self._running is not None:
            self._running.grant(items)
        else:
            self._granted += items

    def _begin(self) -> None:
        if self._reader.lags and self._reader.is_behind:
            self._is_held = True
            self._reader.hold(self._ask_again)
            self._turns.leave()
            return
        self._stop_timer()
        try:
            self._running = self._start(self._turns.leave)
        except BaseException as error:
            self._turns.leave()
            if not isinstance(error, GreentaskError):
                raise
            # The pool was closed meanwhile, say.
            self._listener.refuse(error if isinstance(error, CallError) else Cancelled(str(error), started=False))
            return
        if self._granted:
            self._running.grant(self._granted)

    def _ask_again(self) -> None:
        if self._is_held:
            self._is_held = False
            self._turns.ask(id(self), self._begin, is_admitted=True)

    def _out_of_time(self) -> None:
        self._give_up(out_of_time(started=False))

    def _give_up(self, error: CallError) -> None:
        if self._turns.withdraw(id(self)) or self._is_held:
            self._is_held = False
            self._stop_timer()
            self._listener.refuse(error)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None


class Leaving:
    """A ``Listener`` that hands everything on, and gives the turn back with the call's end."""

    __slots__ = ("_leave", "_listener", "item", "progress")

    def __init__(self, listener: Listener, leave: Callable[[], None]) -> None:
        self._listener = listener
        self._leave = leave
        self.progress = listener.progress
        self.item = listener.item

    def done(self, result: Body) -> None:
        try:
            self._listener.done(result)
        finally:
            self._leave()

    def failed(self, error: bytes) -> None:
        try:
            self._listener.failed(error)
        finally:
            self._leave()

    def refuse(self, error: CallError) -> None:
        try:
            self._listener.refuse(error)
        finally:
            self._leave()
