"""The ways of waiting for a call: in a greenlet, with a future, or event by event."""

from __future__ import annotations

import logging
from typing import Any

from gevent.hub import Waiter

from ..errors import InvalidMessage
from ..tasks.remote import ProgressCallback
from .carrier import Carrier, Receiver
from .future import ClientFuture
from .mailbox import Mailbox

__all__ = ["CallFuture", "Ended", "EventReceiver", "Item", "Progress", "WaitingGreenlet"]

logger = logging.getLogger(__name__)


class WaitingGreenlet(Waiter, Receiver):  # type: ignore[type-arg]  # which it takes in stubs only
    """For a greenlet beside the I/O, which gets the answer with ``get``: it is one switch away."""

    __slots__ = ()

    def ended(self, value: Any, error: BaseException | None) -> None:
        # Only the hub may switch to who waits, and we are told in the greenlet that reads.
        if error is None:
            self.hub.loop.run_callback(self.switch, value)
        else:
            self.hub.loop.run_callback(self.throw, error)


class CallFuture(ClientFuture, Receiver):
    """The future of a call. Cancelling it cancels the call on the server, until the answer is here.

    ``progress`` is called in the thread of the I/O: it must be quick and must not block.
    """

    def __init__(self, carrier: Carrier, id: int, progress: ProgressCallback | None = None) -> None:
        super().__init__(carrier)
        self._id = id
        self._progress = progress

    def progress(self, report: dict[str, Any]) -> None:
        if self._progress is not None:
            try:
                self._progress(report)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("the progress callback of a call raised an error")

    def _cancel_call(self) -> None:
        self._carrier.forget(self._id)


class Ended:
    """The event of a call's end."""

    __slots__ = ("error", "value")

    def __init__(self, value: Any, error: BaseException | None) -> None:
        self.value = value
        self.error = error

    def result(self) -> Any:
        """The result; raises the error."""
        error, self.error = self.error, None
        try:
            if error is not None:
                raise error
        finally:
            del error  # or it would keep this frame, and this frame the error
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


class EventReceiver(Receiver):
    """Puts everything that is heard of a call into a mailbox."""

    __slots__ = ("_most", "mailbox")

    def __init__(self, *, window: int = 0) -> None:
        # Items that wait, each perhaps with a report before it; 0: nobody asked for any. A server that counts
        # differently by the window does no harm yet.
        self._most = 4 * window + _MOST_REPORTS if window else 0
        self.mailbox: Mailbox[Ended | Progress | Item] = Mailbox()

    def ended(self, value: Any, error: BaseException | None) -> None:
        self.mailbox.put(Ended(value, error))

    def progress(self, report: dict[str, Any]) -> None:
        self.mailbox.put_latest(Progress(report), _MOST_REPORTS)

    def item(self, item: Any) -> None:
        if not self._most:
            return
        if len(self.mailbox) < self._most:
            self.mailbox.put(Item(item))
        else:
            self._most = 0
            self.mailbox.put(
                Ended(None, InvalidMessage("the server sent a stream's items faster than it was asked to"))
            )
