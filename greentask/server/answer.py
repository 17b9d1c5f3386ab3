"""Who waits for one call of a connection: what becomes of it goes out as lines, or waits for its turn."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import CallError, refusal
from ..pool.frames import Body, size_of
from ..runner import Running, too_large
from ..wire.json import dumps
from ..wire.message import Id
from ..wire.reply import line, member
from .batch import Batch
from .durable import Pending
from .stream import Stream

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Answer"]


class Answer:
    """The ``Listener`` of one call. Where the call has no id, ``body`` waits here for its turn."""

    __slots__ = ("body", "bulk", "id", "running", "session", "size", "stream")

    def __init__(self, session: Session, id: Id | None) -> None:
        self.session = session
        self.id = id
        self.body: tuple[bytes, ...] | None = None
        self.running: Running | Batch | Pending | None = None
        self.stream: Stream | None = None
        self.size = 0  # bytes that its line takes up, where that is much
        self.bulk: list[Any] | None = None  # what came in it then

    @property
    def is_stream(self) -> bool:
        """Whether its items are wanted one by one."""
        return self.stream is not None

    def done(self, result: Body) -> None:
        session, stream = self.session, self.stream
        if stream is not None and stream.cut_off is not None:
            session.finish(self, stream.cut_off)
        elif type(result) is bytes and len(result) <= session.server.limits.max_unsent:
            session.finish(self, b'"result":' + result)
        else:
            self._done_large(result)

    def _done_large(self, result: Body) -> None:
        size, most = size_of(result), self.session.server.limits.max_unsent
        if size > most:
            self.refuse(too_large(size, most))
        else:
            self.session.finish(self, b'"result":', *result)  # nobody copies what is large

    def failed(self, error: bytes) -> None:
        cut_off = None if self.stream is None else self.stream.cut_off
        self.session.finish(self, cut_off or member("error", error))

    def refuse(self, error: CallError) -> None:
        """End it with one of the protocol's own errors."""
        self.failed(dumps(refusal(error)))

    def progress(self, report: bytes) -> None:
        if not self.session.connection.is_behind:  # who reads slowly sees fewer
            self.session.connection.send(line(self.id, member("progress", report)))

    def item(self, item: bytes) -> None:
        if self.stream is None or self.stream.takes(len(item)):
            self.session.connection.send(line(self.id, member("item", item)))
        elif self.running is not None:
            self.running.cancel()

    def grant(self, items: int) -> None:
        """The reader of the stream takes so many more items."""
        if self.stream is not None:
            self.stream.grant(items)

    def grant_no_more(self) -> None:
        """The reader has shut down its side."""
        if self.stream is not None:
            self.stream.grant_no_more()

    def abandon(self) -> None:
        """The connection is broken. What waits for a grant would do so for ever; the rest is as configured."""
        if self.running is None:
            return
        if self.is_stream or self.session.server.cancel_abandoned or getattr(self.running, "waits", False):
            self.running.cancel()
