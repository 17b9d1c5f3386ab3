"""A ``concurrent.futures.Future`` that is cheap, and can be waited for in any kind of program."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures._base import CANCELLED, FINISHED, PENDING
from typing import Any

from gevent import monkey

from .bell import Bell
from .home import Home

__all__ = ["HomeFuture"]

logger = logging.getLogger("concurrent.futures")

_NativeLock: Any = monkey.get_original("_thread", "RLock")


class HomeFuture(Future[Any]):
    """A future that is ended in its home's thread.

    The standard library's has a condition of ``threading``'s. In a patched program that is gevent's, which may switch,
    or fail in the hub, where another thread holds it; and to make one costs more than all the rest of a future.
    """

    _is_telling = False  # callbacks are being called

    def __init__(self, home: Home) -> None:
        # In place of Future.__init__, which makes a condition; a test compares what it sets.
        gate = self._condition = _Gate()
        gate.home = home
        gate.bell = None
        self._state = PENDING
        self._result = None
        self._exception = None
        self._waiters = []
        self._done_callbacks: list[Callable[[Future[Any]], object]] = []

    @property
    def _gate(self) -> _Gate:
        gate: Any = self._condition
        assert isinstance(gate, _Gate)
        return gate

    def tell_again(self) -> None:
        """Go on telling that it has ended, where a Ctrl-C cut that short. A callback that was hit is called again."""
        with self._condition:
            if self._state == FINISHED:
                for waiter in self._waiters:
                    if self not in waiter.finished_futures:
                        waiter.add_result(self)
                    waiter.event.set()
            elif not self._gate.home.is_interrupted():
                return  # another thread cancels it, and tells of that
            elif self._state == CANCELLED:
                self.set_running_or_notify_cancel()
            self._condition.notify_all()
        self._invoke_callbacks()

    def _invoke_callbacks(self) -> None:
        # In place of Future's, which would begin again with the first one.
        callbacks = self._done_callbacks
        if not callbacks or self._is_telling:  # in a callback, which lets other greenlets run
            return
        self._is_telling = True
        try:
            while callbacks:
                callback = callbacks[0]
                try:
                    callback(self)
                except Exception:
                    logger.exception("exception calling callback for %r", self)
                if callbacks and callbacks[0] is callback:
                    del callbacks[0]
        finally:
            self._is_telling = False


class _Gate(_NativeLock):  # type: ignore[misc]
    """What a future needs of a condition: held for a moment by any thread, waited for with a bell."""

    __slots__ = ("bell", "home")  # set by its maker: an __init__ of its own would cost as much as the lock

    home: Home
    bell: Bell | None

    def wait(self, timeout: float | None = None) -> None:
        """Let go of it until ``notify_all``, or for ``timeout`` seconds."""
        bell = Bell(self.home)
        if self.bell is None:  # no call from here to the next line, in which a signal handler could end the future
            self.bell = bell
        bell = self.bell
        self.release()
        try:
            bell.wait(timeout)
        finally:
            self.acquire()

    def notify_all(self) -> None:
        """Wake all who wait, or are about to. A future does so once, when it has ended."""
        if self.bell is None:
            self.bell = _RUNG
        self.bell.ring()


_RUNG = Bell()  # of all that have ended before anybody waited
_RUNG.ring()
