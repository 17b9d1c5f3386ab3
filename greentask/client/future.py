"""What the futures of a client have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from concurrent.futures import InvalidStateError
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, FINISHED
from typing import Any

from ..hub.future import HomeFuture
from ..hub.held import take_or_come_again
from .carrier import Carrier

__all__ = ["ClientFuture"]

logger = logging.getLogger(__name__)

_CANCELLED = frozenset({CANCELLED, CANCELLED_AND_NOTIFIED})
_ENDED = _CANCELLED | {FINISHED}


class ClientFuture(HomeFuture, ABC):
    """Ended in the home's thread; cancelling it cancels what is on the server."""

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier.home)
        self._carrier = carrier
        self._not_cancelled = [True]  # who takes it out cancels: several threads may try

    # Without the lock, which is of no use for a look at what doesn't change any more: the home's thread looks, too.

    def done(self) -> bool:
        """Whether it has ended."""
        return self._state in _ENDED

    def cancelled(self) -> bool:
        """Whether it was cancelled."""
        return self._state in _CANCELLED

    def result(self, timeout: float | None = None) -> Any:
        """The call's result, or its error raised; waits up to ``timeout`` seconds for it."""
        try:
            if self._state != FINISHED:
                self.check_may_wait()
                return super().result(timeout)
            if self._exception is not None:
                raise self._exception
            return self._result
        finally:
            del self  # or the error would keep this frame, and this frame the error

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The call's error, None where it has none; waits up to ``timeout`` seconds for its end."""
        if self._state != FINISHED:
            self.check_may_wait()
            return super().exception(timeout)
        return self._exception

    def cancel(self) -> bool:
        """Cancel the call on the server; False where its end was here before."""
        if not super().cancel():
            return False
        with self._condition:
            if self._state == CANCELLED:
                self.set_running_or_notify_cancel()  # for concurrent.futures.wait and as_completed
        self._invoke_callbacks()  # those that a Ctrl-C kept from being called, the last time
        try:
            self._not_cancelled.pop()
        except IndexError:
            return True
        self._carrier.home.soon(self._cancel_call)  # not at once: an iterator that cancels may be garbage
        return True

    def ended(self, value: Any, error: BaseException | None) -> None:
        """It has come to this; of no effect where it was cancelled before."""
        home = self._carrier.home
        try:
            if home.is_interrupted():  # a Ctrl-C could come between taking the lock and the next line
                with self._condition:
                    self._end(value, error)
            elif take_or_come_again(self._condition, home, self.ended, value, error):
                try:
                    self._end(value, error)
                finally:
                    self._condition.release()
            else:
                return
            self._invoke_callbacks()
        except InvalidStateError:  # cancelled in this moment, or a Ctrl-C came between its end and the word of it
            self.tell_again()
        except KeyboardInterrupt:
            raise  # it hit us by chance, and is the main greenlet's
        except BaseException:  # of a callback: SystemExit, say, which would end the greenlet that reads for everybody
            logger.exception("a callback of a call's future raised an error")

    def _end(self, value: Any, error: BaseException | None) -> None:
        """With the lock, which is not for callbacks."""
        before, self._is_telling = self._is_telling, True
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        finally:
            self._is_telling = before

    @abstractmethod
    def _cancel_call(self) -> None:
        """In the home's thread."""

    def check_may_wait(self) -> None:
        """Raise ``RuntimeError`` where waiting for it would keep its answer from being read."""
        if not self.done():
            self._carrier.check_may_wait()
