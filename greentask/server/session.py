"""greentask's protocol on one connection: lines become calls, calls become lines.

Everything happens in the hub's thread. The connection's greenlet (``serve``) reads; answers come from whatever greenlet
or callback ends a call, and leave through the connection's outlet in the order in which they were given to it.
"""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING

import gevent
from gevent.event import Event

from ..errors import CallError, Draining, LineTooLong, Overloaded, refusal
from ..runner import Running
from ..wire.json import dumps
from ..wire.message import BadRequest, Call, Id, More, decode_request, error_member, line, member
from .batch import Batch
from .connection import LineConnection
from .own import OWN, call_own

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Answer", "Session"]


class Answer:
    """The ``Listener`` of one call. Where the call has no id, ``body`` waits here for its turn."""

    __slots__ = ("body", "id", "running", "session")

    def __init__(self, session: Session, id: Id | None) -> None:
        self.session = session
        self.id = id
        self.body: bytes | None = None
        self.running: Running | Batch | None = None

    def done(self, result: bytes) -> None:
        self.session.finish(self, member("result", result))

    def failed(self, error: bytes) -> None:
        self.session.finish(self, member("error", error))

    def refuse(self, error: CallError) -> None:
        """End it with one of the protocol's own errors."""
        self.failed(dumps(refusal(error)))

    def progress(self, report: bytes) -> None:
        if not self.session.connection.is_behind:  # who reads slowly sees fewer
            self.session.connection.send(line(self.id, member("progress", report)))

    def item(self, item: bytes) -> None:
        self.session.connection.send(line(self.id, member("item", item)))


class Session:
    """The calls of one connection. ``serve`` is the life of it."""

    def __init__(self, server: Server, connection: LineConnection) -> None:
        self.server = server
        self.connection = connection
        self._by_id: dict[Id, Answer] = {}
        self._in_order: deque[Answer] = deque()  # calls without id
        self._in_flight = 0
        self._fewer = Event()  # set whenever a call ends
        self._draining = False

    def serve(self) -> None:
        """Read and answer until the peer has shut down its side and has every answer that it is owed."""
        try:
            while (lines := self.connection.read()) is not None:
                self._take_all(lines)
        except LineTooLong as error:
            self._take_all(error.lines)
            self.connection.send(line(None, error_member(error)))
        except OSError:
            self.connection.abort()
        if self.connection.gone and self.server.cancel_abandoned:
            self._cancel_all()
        while self._in_flight:
            self._fewer.clear()
            self._fewer.wait()
        self.connection.flush()

    def drain(self) -> None:
        """Start no more calls; close the connection after the last answer."""
        self._draining = True
        if not self._in_flight:
            self.connection.end_reading()

    def cancel(self, id: Id) -> bool:
        """Cancel a call of this connection; False where none is in flight under that id."""
        answer = self._by_id.get(id)
        if answer is None or answer.running is None:
            return False
        answer.running.cancel()
        return True

    def finish(self, answer: Answer, body: bytes) -> None:
        """A call has ended."""
        self._in_flight -= 1
        self.server.in_flight -= 1
        if answer.id is not None:
            del self._by_id[answer.id]
            self.connection.send(line(answer.id, body))
        else:
            answer.body = body
            while self._in_order and (ready := self._in_order[0].body) is not None:
                self._in_order.popleft()
                self.connection.send(line(None, ready))
        self._fewer.set()
        if self._draining and not self._in_flight:
            self.connection.end_reading()

    def _take_all(self, lines: list[bytes] | tuple[bytes, ...]) -> None:
        limit = self.server.limits.max_in_flight
        for number, text in enumerate(lines):
            while self._in_flight >= limit:
                self._fewer.clear()
                self._fewer.wait()
            if number % 64 == 63:
                gevent.sleep(0)  # whoever sends a thousand lines at once doesn't hold up the others
                self.connection.wait_until_read()
            self._take(text)

    def _take(self, text: bytes) -> None:
        try:
            request = decode_request(text)
        except CallError as error:
            self._begin(Answer(self, None), getattr(error, "id", None)).refuse(error)
            return
        if isinstance(request, More):
            answer = self._by_id.get(request.id)
            if answer is not None and answer.running is not None:
                answer.running.grant(request.items)
            return
        if request.id is not None and request.id in self._by_id:
            # Not a call of its own: it has no line of answers that could be told from the first one's.
            in_use = BadRequest(f"id {dumps(request.id).decode()} belongs to a call that is still in flight")
            self.connection.send(line(request.id, error_member(in_use)))
            return
        answer = self._begin(Answer(self, None), request.id)
        try:
            self._start(request, text, answer)
        except CallError as error:
            answer.refuse(error)

    def _begin(self, answer: Answer, id: Id | None) -> Answer:
        self._in_flight += 1
        self.server.in_flight += 1
        if id is not None and id not in self._by_id:
            answer.id = id
            self._by_id[id] = answer
        else:
            self._in_order.append(answer)
        return answer

    def _start(self, call: Call, text: bytes, answer: Answer) -> None:
        server = self.server
        if call.function in OWN:
            answer.done(dumps(call_own(self, call)))
            return
        if self._draining:
            raise Draining("this server is going away and starts nothing new: call another, or again in a moment")
        if server.in_flight > server.limits.max_calls:
            raise Overloaded(
                f"{server.limits.max_calls} calls are in flight on this server, and it takes no more (max_calls): "
                "try again later"
            )
        deadline = None if call.timeout is None else time.monotonic() + call.timeout
        if call.batch is not None:
            answer.running = Batch(server.runner, call, call.batch, deadline, answer)
        else:
            answer.running = server.runner.start(call, text, answer, deadline)

    def _cancel_all(self) -> None:
        for answer in [*self._by_id.values(), *self._in_order]:
            if answer.running is not None:
                answer.running.cancel()
