"""What the futures of a client have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from concurrent.futures._base import CANCELLED, FINISHED
from typing import Any

from ..hub.future import HomeFuture
from .carrier import Carrier

__all__ = ["ClientFuture"]


class ClientFuture(HomeFuture, ABC):
    """Ended in the home's thread; cancelling it cancels what is on the server."""

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier.home)
        self._carrier = carrier
        self._not_cancelled = [True]  # who takes it out cancels: several threads may try

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

    @abstractmethod
    def _cancel_call(self) -> None:
        """In the home's thread."""

    def check_may_wait(self) -> None:
        """Raise ``RuntimeError`` where waiting for it would keep its answer from being read."""
        if not self.done():
            self._carrier.check_may_wait()
