"""What the futures of a client have in common."""

from __future__ import annotations

import logging
from abc import ABC, abstractmethod
from concurrent.futures import InvalidStateError
from typing import Any

from ..hub.future import HomeFuture
from .carrier import Carrier

__all__ = ["ClientFuture"]

logger = logging.getLogger(__name__)


class ClientFuture(HomeFuture, ABC):
    """Ended in the home's thread; cancelling it cancels what is on the server."""

    def __init__(self, carrier: Carrier) -> None:
        super().__init__(carrier.home)
        self._carrier = carrier
        self._not_cancelled = [True]  # who takes it out cancels: several threads may try

    def result(self, timeout: float | None = None) -> Any:
        """The call's result, or its error raised; waits up to ``timeout`` seconds for it."""
        self.check_may_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The call's error, None where it has none; waits up to ``timeout`` seconds for its end."""
        self.check_may_wait()
        return super().exception(timeout)

    def cancel(self) -> bool:
        """Cancel the call on the server; False where its end was here before."""
        if not super().cancel():
            return False
        try:
            self._not_cancelled.pop()
        except IndexError:
            return True
        self.set_running_or_notify_cancel()  # for concurrent.futures.wait and as_completed
        self._carrier.home.soon(self._cancel_call)  # not at once: an iterator that cancels may be garbage
        return True

    def ended(self, value: Any, error: BaseException | None) -> None:
        """It has come to this; of no effect where it was cancelled before."""
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except InvalidStateError:  # cancelled in this moment, or a Ctrl-C came between its end and the word of it
            with self._condition:
                self._condition.notify_all()
        except KeyboardInterrupt:
            raise  # it hit us by chance, and is the main greenlet's
        except BaseException:  # of a callback: SystemExit, say, which would end the greenlet that reads for everybody
            logger.exception("a callback of a call's future raised an error")

    @abstractmethod
    def _cancel_call(self) -> None:
        """In the home's thread."""

    def check_may_wait(self) -> None:
        """Raise ``RuntimeError`` where waiting for it would keep its answer from being read."""
        if not self.done():
            self._carrier.check_may_wait()
