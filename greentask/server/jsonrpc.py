"""JSON-RPC 2.0 on a connection: its requests are started as any other call, and answered in its own form.

A notification is a call in flight as well, of which nobody hears. A batch is one call in flight: what it holds until
its last request has ended is bounded, and so is how many of its requests run at once.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

import gevent

from ..errors import CallError, InvalidResult, refusal
from ..pool.frames import Body, whole
from ..runner import Running
from ..wire.json import dumps
from ..wire.jsonrpc import Request, batch_response, decode, error_response, refused, result_response
from ..wire.message import BadRequest, JsonRpc
from .backlog import wait_to_begin
from .durable import QUEUE_FUNCTIONS, queue_of
from .items import PAUSED_EVERY, Items
from .own import OWN, call_own

if TYPE_CHECKING:
    from .session import Session

__all__ = ["RpcBatch", "RpcCall", "take"]


def take(session: Session, line: JsonRpc, text: bytes, arrived: float) -> None:
    """Take a line of the connection: a request or a batch. It waits while too much is in flight."""
    if isinstance(line.message, list) and line.message and line.unfit is None:
        has_room = session.has_room()
        batch = RpcBatch(session, line.message)
        session.enter(batch, batch)
        batch.run(session.why_not(has_room=has_room, is_heavy=batch.size > 0))
        return
    try:
        if isinstance(line.message, list):
            raise BadRequest(line.unfit or "a batch has at least one request")
        request = decode(line.message, line.unfit)
    except BadRequest as error:
        session.connection.send(refused(error.id, error), b"\n")
        return
    # As in the session: these are answered at once, so that a connection that is full can cancel a call.
    has_room = (not request.is_notification and request.call.function in OWN) or session.has_room()
    if isinstance(request.id, (str, int)) and session.is_in_flight(request.id):
        in_use = BadRequest(f"id {dumps(request.id).decode()} belongs to a call that is still in flight")
        session.connection.send(refused(request.id, in_use), b"\n")
        return
    answer = RpcCall(session, request)
    session.enter(answer.key, answer)
    session.try_to_start(request.call, text, answer, arrived, has_room=has_room)


class _Listener(ABC):
    """Puts what comes of a request into a response, which is empty for a notification."""

    __slots__ = ("_request", "_session")

    def __init__(self, session: Session, request: Request) -> None:
        self._session = session
        self._request = request

    def done(self, result: Body) -> None:
        is_heard = not self._request.is_notification
        self._ended(result_response(self._request.id, whole(result)) if is_heard else b"")

    def failed(self, error: bytes) -> None:
        is_heard = not self._request.is_notification
        self._ended(error_response(self._request.id, error) if is_heard else b"")

    def refuse(self, error: CallError) -> None:
        """End it with one of the protocol's own errors."""
        self.failed(dumps(refusal(error)))

    def progress(self, report: bytes) -> None:  # noqa: B027 (not for subclasses to define)
        """There is no place for it."""

    def item(self, item: bytes) -> None:
        raise AssertionError("JSON-RPC has no streams")

    @abstractmethod
    def _ended(self, response: bytes) -> None:
        """Take the response to where it belongs."""


class RpcCall(_Listener):
    """A request that came alone.

    In the session it is known by its id, as other calls are, or by itself where that is no name: null, a fraction.
    """

    __slots__ = ("bulk", "key", "running", "size")

    is_stream = False

    def __init__(self, session: Session, request: Request) -> None:
        super().__init__(session, request)
        is_name = isinstance(request.id, (str, int))
        self.key: Any = request.id if is_name else self
        self.running: Running | None = None
        self.size = session.claim()  # bytes that its line takes up, where that is much
        self.bulk: list[Any] = [request.call.args] if self.size and request.call.args else []

    def grant(self, items: int) -> None:
        """It is no stream."""

    def grant_no_more(self) -> None:
        """It is no stream."""

    def abandon(self) -> None:
        """The connection is broken."""
        if self.running is not None and self._session.server.cancel_abandoned:
            self.running.cancel()

    def _ended(self, response: bytes) -> None:
        self._session.leave(self.key, self, *((response, b"\n") if response else ()))


class RpcBatch:
    """Runs the requests of an array in a greenlet of its own, and answers them in one line, in their order.

    Its responses count as held by the session. When there are too many, it ends with one error for all of them.
    """

    is_stream = False

    def __init__(self, session: Session, messages: list[Any]) -> None:
        self.session = session
        self.running: RpcBatch | None = self
        self.size = session.claim()
        self.bulk: list[Any] = [messages] if self.size else []
        self._messages = messages
        self._responses: dict[int, bytes] = {}
        self._held = 0  # bytes of them
        self._requests = Items(session)
        self._is_too_much = False

    def run(self, why_not: CallError | None) -> None:
        """Begin; ``why_not`` refuses all of its requests."""
        gevent.spawn(self._run, why_not)

    def cancel(self) -> None:
        """Cancel the requests that run, and start no more."""
        self._requests.cancel()

    def grant(self, items: int) -> None:
        """It is no stream."""

    def grant_no_more(self) -> None:
        """It is no stream."""

    def abandon(self) -> None:
        """The connection is broken."""
        if self.session.server.cancel_abandoned:
            self.cancel()

    def forget(self) -> None:
        """The connection is broken: its responses are of no use."""
        self.session.hold(-self._held)
        self._held = 0
        self._responses.clear()

    def _run(self, why_not: CallError | None) -> None:
        connection = self.session.connection
        for index, message in enumerate(self._messages):
            if index % PAUSED_EVERY == PAUSED_EVERY - 1:
                gevent.sleep(1e-9)
                wait_to_begin(connection)
            if self._requests.are_cancelled:
                break
            try:
                request = decode(message)
            except BadRequest as error:
                self._hold(index, refused(error.id, error))
            else:
                self._start(index, request, why_not)
        self._requests.wait()
        connection.wait_until_read()
        self.session.hold(-self._held)
        self.session.leave(self, self, *self._line())

    def _start(self, index: int, request: Request, why_not: CallError | None) -> None:
        runner, connection = self.session.server.runner, self.session.connection
        self._requests.take(index)
        item = _Item(self, request, index)
        call = request.call
        try:
            if self._requests.are_cancelled:
                self.ended(index, b"")
            elif call.function in OWN:
                item.done(dumps(call_own(self.session, call)))
            elif why_not is not None:
                runner.refuse(call, item, why_not, connection)
            else:
                running: Running | None
                if call.function in QUEUE_FUNCTIONS:
                    running = queue_of(self.session.server).call(call, item, connection.peer)
                else:
                    running = runner.start_item(call, call.args, item, None, connection, index)
                self._requests.started(index, running)
        except CallError as error:
            item.refuse(error)

    def ended(self, index: int, response: bytes) -> None:
        """A request has ended."""
        self._requests.ended(index)
        if response:
            self._hold(index, response)

    def _hold(self, index: int, response: bytes) -> None:
        if self._is_too_much or self.session.connection.gone:
            return
        self._responses[index] = response
        self._held += len(response)
        if not self.session.hold(len(response)):
            self._is_too_much = True
            self.forget()
            self.cancel()

    def _line(self) -> tuple[bytes, ...]:
        if self._is_too_much:
            most = self.session.server.limits.max_unsent // 2
            error = InvalidResult(
                f"the responses of this batch, with those of others on this connection, take more than half of "
                f"max_unsent ({most} bytes): some of its requests have run; send smaller batches, or raise max_unsent"
            )
            return refused(None, error), b"\n"
        if not self._responses:
            return ()  # all were notifications
        responses = [self._responses.pop(index) for index in sorted(self._responses)]
        return batch_response(responses), b"\n"


class _Item(_Listener):
    """A request of a batch."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: RpcBatch, request: Request, index: int) -> None:
        super().__init__(batch.session, request)
        self._batch = batch
        self._index = index

    def _ended(self, response: bytes) -> None:
        self._batch.ended(self._index, response)
