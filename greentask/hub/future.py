"""A ``concurrent.futures.Future`` that is cheap, and can be waited for in any kind of program."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED, PENDING
from typing import Any

from gevent import monkey

from .bell import Bell
from .held import come_again, take_or_come_again
from .home import Home

__all__ = ["HomeFuture"]

logger = logging.getLogger("concurrent.futures")

_CANCELLED = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED})
_ENDED = _CANCELLED | {FINISHED}
_NativeLock: Any = monkey.get_original("_thread", "RLock")


class HomeFuture(Future[Any]):
    """A future that is ended in its home's thread, by ``ended``.

    That thread doesn't wait for whoever holds the future's lock, or one that its waiters have: the main thread may have
    been interrupted as it held it, by a signal handler which waits for an answer, and that is the home's to bring.

    The standard library's has a condition of ``threading``'s. In a patched program that is gevent's, which may switch,
    or fail in the hub, where another thread holds it; and to make one costs more than all the rest of a future.
    """

    #: Callbacks are being called, by whoever has set this, and takes it back however that ends. None: they will be, by
    #: whoever is about to set the result.
    _is_telling: bool | None = False
    _is_relied_on = False  # somebody else wanted to meanwhile, and left them to that one

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

    # Without the lock, which is of no use for a look at what doesn't change any more: the home's thread looks, too.

    def done(self) -> bool:
        """Whether it has ended."""
        return self._state in _ENDED

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state in _CANCELLED

    def ended(self, value: Any, error: BaseException | None) -> None:
        """It has come to this; of no effect where it was cancelled before, or has ended."""
        gate = self._gate
        home = gate.home
        try:
            if gate._is_owned() and home.is_here():  # by a greenlet that was interrupted by a handler which waits
                may_tell = False
            elif home.is_interrupted():  # a Ctrl-C could come between taking the lock and the next line
                with gate:
                    may_tell = not self._waiters or not home.is_here() or self._may_tell_waiters()
                    if may_tell:
                        self._set(value, error)
            elif take_or_come_again(gate, home, self.ended, value, error):
                try:
                    may_tell = not self._waiters or not home.is_here() or self._may_tell_waiters()
                    if may_tell:
                        self._set(value, error)
                finally:
                    gate.release()
            else:
                return
            if may_tell:
                self._invoke_callbacks()
            else:
                come_again(home, self.ended, value, error)
        except InvalidStateError:  # cancelled in this moment, or a Ctrl-C came between its end and the word of it
            self.tell_again()
        except KeyboardInterrupt:
            raise  # it hit us by chance, and is the main greenlet's
        except BaseException:  # of a callback: SystemExit, say, which would end the greenlet that reads for everybody
            logger.exception("a callback of a call's future raised an error")

    def _set(self, value: Any, error: BaseException | None) -> None:
        """With the lock, which is not for callbacks."""
        before, self._is_telling = self._is_telling, None
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        finally:
            self._is_telling = before

    def _may_tell_waiters(self) -> bool:
        """Whether those who wait with the standard library's functions can be told now: nobody holds their locks."""
        # Looked at, and not taken: a Ctrl-C would come before it is given back.
        for waiter in self._waiters:
            event = getattr(waiter, "event", None)  # the client's own waiters have none
            gate = getattr(event, "_cond", None)
            for lock in (getattr(waiter, "lock", None), getattr(gate, "_lock", None)):
                if lock is not None and lock.locked():
                    return False
        return True

    def tell_again(self) -> None:
        """Go on telling that it has ended, where a Ctrl-C cut that short. A callback that was hit is called again."""
        with self._condition:
            if self._state == FINISHED:
                for waiter in self._waiters:
                    finished = getattr(waiter, "finished_futures", None)
                    if finished is None:  # it is none of the standard library's, and may be told twice
                        waiter.add_result(self)
                        continue
                    if self not in finished:
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
        if not callbacks:
            return
        if self._is_telling is not False:
            if self._is_telling:  # in a callback, which lets other greenlets run
                self._is_relied_on = True
            return
        self._is_telling = True
        if self._is_relied_on:
            self._is_relied_on = False
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
            if callbacks and self._is_relied_on:  # a Ctrl-C, and who would go on after one has come by already
                self._gate.home.soon(self._invoke_callbacks)


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
