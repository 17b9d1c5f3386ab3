"""The ways of waiting for a call: in a greenlet, with a future, or event by event."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import Any

from gevent.hub import Waiter

from .mailbox import Mailbox

__all__ = ["CallFuture", "Ended", "EventReceiver", "Item", "Progress", "WaitingGreenlet"]


class WaitingGreenlet:
    """For a greenlet beside the I/O: the answer is one switch away."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: Waiter[Any] = Waiter()

    def wait(self) -> Any:
        return self._waiter.get()

    def ended(self, value: Any, error: BaseException | None) -> None:
        if error is None:
            self._waiter.switch(value)
        else:
            self._waiter.throw(error)

    def progress(self, report: dict[str, Any]) -> None:
        """Nobody asked."""

    def item(self, item: Any) -> None:
        """Nobody asked."""


class CallFuture(Future[Any]):
    """The future of a call. Cancelling it cancels the call on the server, until the answer is here.

    ``progress`` is called in the thread of the I/O: it must be quick and must not block.
    """

    def __init__(self, forget: Callable[[], None], progress: Callable[[dict[str, Any]], None] | None = None) -> None:
        super().__init__()
        self._forget = forget
        self._progress = progress

    def cancel(self) -> bool:
        if self.cancelled():
            return True
        cancelled = super().cancel()
        if cancelled:
            self.set_running_or_notify_cancel()  # for concurrent.futures.wait and as_completed
            self._forget()
        return cancelled

    def ended(self, value: Any, error: BaseException | None) -> None:
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except InvalidStateError:
            pass  # cancelled in this moment

    def progress(self, report: dict[str, Any]) -> None:
        if self._progress is not None:
            self._progress(report)

    def item(self, item: Any) -> None:
        """A future has one result."""


class Ended:
    """The event of a call's end."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self.value = value
        self.error = error

    def result(self) -> Any:
        """The result; raises the error."""
        if self.error is not None:
            raise self.error
        return self.value


class Progress:
    """The event of a progress report."""

    __slots__ = ("report",)

    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report


class Item:
    """The event of a stream's item."""

    __slots__ = ("item",)

    def __init__(self, item: Any) -> None:
        self.item = item


#: Reports that may wait for a caller who is slower than they come; then the newest replaces the one before it.
_MOST_REPORTS = 100


class EventReceiver:
    """Puts everything that is heard of a call into a mailbox."""

    __slots__ = ("mailbox",)

    def __init__(self) -> None:
        self.mailbox: Mailbox[Ended | Progress | Item] = Mailbox()

    def ended(self, value: Any, error: BaseException | None) -> None:
        self.mailbox.put(Ended(value, error))

    def progress(self, report: dict[str, Any]) -> None:
        self.mailbox.put_latest(Progress(report), _MOST_REPORTS)

    def item(self, item: Any) -> None:
        self.mailbox.put(Item(item))
