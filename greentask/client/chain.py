"""``submit(...).then(...)``: the result of a call goes on to the next one, without coming back to the caller."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ..errors import ConnectionLost
from ..hub.held import may_take
from ..tasks.remote import ProgressCallback, TaskFuture
from .carrier import Carrier
from .future import ClientFuture
from .receivers import CallFuture

__all__ = ["ChainedFuture", "PatientFuture", "SubmittedFuture"]

#: ``Client.submit``.
Submit = Callable[..., Future[Any]]


class SubmittedFuture(CallFuture, TaskFuture[Any]):
    """The future that ``submit`` gives."""

    def __init__(self, carrier: Carrier, submit: Submit, id: int, progress: ProgressCallback | None) -> None:
        super().__init__(carrier, id, progress)
        self._submit = submit

    def then(self, function: Any, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        return ChainedFuture(self._carrier, self._submit, self, function, args, kwargs)


class PatientFuture(SubmittedFuture):
    """That of a call which may wait for a server to have room for it."""

    is_patient = True


class ChainedFuture(ClientFuture, TaskFuture[Any]):
    """The future of a call that is made with the result of another one when that is there."""

    def __init__(
        self,
        carrier: Carrier,
        submit: Submit,
        first: Future[Any],
        function: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> None:
        super().__init__(carrier)
        self._submit = submit
        self._function = function
        self._args = args
        self._kwargs = kwargs
        self._context = contextvars.copy_context()  # with the running task, whose time the next call has, too
        self._running = first
        first.add_done_callback(self._first_ended)

    def then(self, function: Any, /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        return ChainedFuture(self._carrier, self._submit, self, function, args, kwargs)

    def _first_ended(self, first: Future[Any]) -> None:
        self._carrier.home.soon(self._go_on, first)  # not at once: a chain may be longer than Python's stack

    def _go_on(self, first: Future[Any]) -> None:
        if self.done():
            self.tell_again()  # a Ctrl-C may have come between its end and the word of it
            return
        if first.cancelled():
            self._cancel()
        elif (error := first.exception()) is not None:
            self.ended(None, error)
        else:
            try:
                following = self._context.run(self._submit, self._function, first.result(), *self._args, **self._kwargs)
                self._running = following
                following.add_done_callback(self._last_ended)
            except Exception as failure:
                self.ended(None, failure)
            except BaseException:
                self.ended(None, ConnectionLost("a Ctrl-C came as it was called", sent=True))
                raise

    def _last_ended(self, last: Future[Any]) -> None:
        if last.cancelled():
            self._cancel()
        elif (error := last.exception()) is not None:
            self.ended(None, error)
        else:
            self.ended(last.result(), None)

    def _cancel_call(self) -> None:
        self._running.cancel()

    def _cancel(self) -> None:
        if may_take(self._condition, self._carrier.home, self._cancel):
            self.cancel()
