"""The ways of waiting for a call: in a greenlet, with a future, or event by event."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import InvalidStateError
from typing import Any

from gevent.hub import Waiter

from ..hub.future import HomeFuture
from .carrier import Carrier
from .mailbox import Mailbox

__all__ = ["CallFuture", "Ended", "EventReceiver", "Item", "Progress", "WaitingGreenlet"]

logger = logging.getLogger(__name__)


class WaitingGreenlet:
    """For a greenlet beside the I/O: the answer is one switch away."""

    __slots__ = ("_waiter",)

    def __init__(self) -> None:
        self._waiter: Waiter[Any] = Waiter()

    def wait(self) -> Any:
        return self._waiter.get()

    def ended(self, value: Any, error: BaseException | None) -> None:
        # Only the hub may switch to who waits, and we are told in the greenlet that reads.
        run = self._waiter.hub.loop.run_callback
        if error is None:
            run(self._waiter.switch, value)
        else:
            run(self._waiter.throw, error)

    def progress(self, report: dict[str, Any]) -> None:
        """Nobody asked."""

    def item(self, item: Any) -> None:
        """Nobody asked."""


class CallFuture(HomeFuture):
    """The future of a call. Cancelling it cancels the call on the server, until the answer is here.

    ``progress`` is called in the thread of the I/O: it must be quick and must not block.
    """

    def __init__(self, carrier: Carrier, id: int, progress: Callable[[dict[str, Any]], None] | None = None) -> None:
        super().__init__(carrier.home)
        self._carrier = carrier
        self._id = id
        self._progress = progress
        self._not_cancelled = [True]  # who takes it out cancels: several threads may try

    def result(self, timeout: float | None = None) -> Any:
        """The call's result, or its error raised; waits up to ``timeout`` seconds for it."""
        self._check_may_wait()
        return super().result(timeout)

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The call's error, None where it has none; waits up to ``timeout`` seconds for its end."""
        self._check_may_wait()
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
        self._carrier.home.run(self._carrier.forget, self._id)
        return True

    def ended(self, value: Any, error: BaseException | None) -> None:
        try:
            if error is None:
                self.set_result(value)
            else:
                self.set_exception(error)
        except InvalidStateError:
            pass  # cancelled in this moment
        except KeyboardInterrupt:
            raise  # it hit us by chance, and is the main greenlet's
        except BaseException:  # of a callback: SystemExit, say, which would end the greenlet that reads for everybody
            logger.exception("a callback of a call's future raised an error")

    def progress(self, report: dict[str, Any]) -> None:
        if self._progress is not None:
            try:
                self._progress(report)
            except KeyboardInterrupt:
                raise
            except BaseException:
                logger.exception("the progress callback of a call raised an error")

    def item(self, item: Any) -> None:
        """A future has one result."""

    def _check_may_wait(self) -> None:
        if not self.done():
            self._carrier.check_may_wait()


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

    __slots__ = ("_streams", "mailbox")

    def __init__(self, *, streams: bool = False) -> None:
        self._streams = streams
        self.mailbox: Mailbox[Ended | Progress | Item] = Mailbox()

    def ended(self, value: Any, error: BaseException | None) -> None:
        self.mailbox.put(Ended(value, error))

    def progress(self, report: dict[str, Any]) -> None:
        self.mailbox.put_latest(Progress(report), _MOST_REPORTS)

    def item(self, item: Any) -> None:
        if self._streams:  # else nobody asked, and nobody would take it
            self.mailbox.put(Item(item))
