"""Calls that their caller waits for event by event: for reports, or a stream's items."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from ..tasks.remote import ProgressCallback
from ..wire.message import More, encode_more
from .carrier import Carrier, Receiver
from .receivers import Ended, EventReceiver, Item, Progress

__all__ = ["forget", "wait_reporting", "wait_streaming"]

#: Starts the call.
Start = Callable[[Receiver], None]


def forget(carrier: Carrier, id: int) -> None:
    """Nobody waits for it any more; of no effect where it has ended."""
    if not carrier.home.is_deserted():
        carrier.home.soon(carrier.forget, id)  # not at once: we may be in a generator that is garbage


def wait_reporting(carrier: Carrier, id: int, start: Start, progress: ProgressCallback) -> Any:
    """The result of a call, whose reports go to ``progress`` meanwhile."""
    receiver = EventReceiver()
    carrier.check_may_wait()
    try:
        start(receiver)
        while True:
            event = receiver.mailbox.take()
            if isinstance(event, Progress):
                progress(event.report)
            elif isinstance(event, Ended):
                return event.result()
    except BaseException:
        forget(carrier, id)
        raise


def wait_streaming(
    carrier: Carrier, id: int, start: Start, window: int, progress: ProgressCallback | None
) -> Iterator[Any]:
    """The items of a stream, and its reports between them. Closing it cancels the call."""
    receiver = EventReceiver(window=window)
    carrier.check_may_wait()
    taken = 0
    try:
        start(receiver)
        while True:
            event = receiver.mailbox.take()
            if isinstance(event, Item):
                yield event.item
                taken += 1
                if taken * 2 >= window:
                    carrier.home.run(carrier.send, id, encode_more(More(id, taken)))
                    taken = 0
            elif isinstance(event, Progress):
                if progress is not None:  # else nobody asked the server for it
                    progress(event.report)
            elif isinstance(event, Ended):
                event.result()
                return
    finally:
        forget(carrier, id)
