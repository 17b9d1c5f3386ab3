"""JSON-RPC 2.0 on a connection: what came in one line, and the line that answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from ..errors import CallError, Cancelled, InvalidResult, Overloaded, refusal
from ..pool.frames import Body, whole
from ..runner import Running
from ..wire.json import dumps, loads
from ..wire.jsonrpc import NoRequest, Request, decode, error, result
from ..wire.message import Call
from .batch import WINDOW
from .own import OWN, call_own

if TYPE_CHECKING:
    from .session import Session

__all__ = ["Exchange"]


class Exchange:
    """A request, or a batch of them: run, and answered in one line when all have ended.

    A batch runs in a greenlet of its own, which waits while ``WINDOW`` of its requests run.
    """

    def __init__(self, session: Session, message: Any, *, has_room: bool) -> None:
        self.session = session
        self._is_batch = isinstance(message, list) and bool(message)
        self._requests: list[Any] = message if self._is_batch else [message]
        self._has_room = has_room
        self._slots = Semaphore(min(WINDOW, session.server.limits.max_in_flight))
        self._running: dict[_Member, Running | None] = {}
        self._none_running = Event()
        self._answers: list[bytes] = []
        self._size = 0  # bytes of them
        self._cancelled = False
        self._all_taken = False

    def start(self) -> None:
        """Run it."""
        self.session.enter(self)
        if self._is_batch:
            gevent.spawn(self._run)
        else:
            self._take(self._requests[0])
            self._all_taken = True
            if not self._running:
                self._end()

    def cancel(self) -> None:
        """Cancel what runs, and start no more."""
        self._cancelled = True
        for running in list(self._running.values()):
            if running is not None:
                running.cancel()

    def _run(self) -> None:
        item_slots = self.session.server.item_slots
        for request in self._requests:
            self._slots.acquire()
            item_slots.acquire()
            self.session.connection.wait_until_read()
            self._take(request)
        while self._running:
            self._none_running.clear()
            self._none_running.wait()
        self._end()

    def _take(self, value: Any) -> None:
        member = _Member(self, None)
        self._running[member] = None
        try:
            request = decode(value)
        except NoRequest as invalid:
            member.id = invalid.id
            member.refuse(invalid)
            return
        member.id = request.id
        try:
            running = self._start(request, member)
        except CallError as error:
            member.refuse(error)
        else:
            if member in self._running:
                self._running[member] = running

    def _start(self, request: Request, member: _Member) -> Running | None:
        id = None if request.id is None else loads(request.id)
        call = Call(request.method, request.params, id if isinstance(id, (str, int)) else None)
        session = self.session
        if call.function in OWN:
            member.done(dumps(call_own(session, call)))
            return None
        why_not = self._why_not()
        if why_not is not None:
            session.server.runner.refuse(call, member, why_not, session.connection.peer)
            return None
        return session.server.runner.start_item(call, call.args, member, None, session.connection.peer)

    def _why_not(self) -> CallError | None:
        if self._cancelled:
            return Cancelled("cancelled by its caller", started=False)
        if not self._has_room:
            return Overloaded("too many calls are in flight on this connection (max_in_flight): try again later")
        return self.session.why_not()

    def ended(self, member: _Member, answer: bytes) -> None:
        """A request has ended, with this response, or none for a notification."""
        del self._running[member]
        if answer:
            self._answers.append(answer)
            self._size += len(answer)
        if self._is_batch:
            self._slots.release()
            self.session.server.item_slots.release()
            if not self._running:
                self._none_running.set()
        elif self._all_taken:
            self._end()

    def has_room_for(self, answer: Body) -> bool:
        """Whether a peer may get that as well in one line."""
        return self._size + sum(map(len, answer if isinstance(answer, list) else [answer])) <= self._limit

    @property
    def _limit(self) -> int:
        return self.session.server.limits.max_unsent

    def _end(self) -> None:
        if self._is_batch and self._answers:
            line = b"[%b]\n" % b",".join(self._answers)
        else:
            line = b"".join(answer + b"\n" for answer in self._answers)
        self.session.leave(self, line)


class _Member:
    """The ``Listener`` of one request. ``id`` is its JSON; None where nobody wants an answer."""

    __slots__ = ("_exchange", "id")

    def __init__(self, exchange: Exchange, id: bytes | None) -> None:
        self._exchange = exchange
        self.id = id

    def done(self, body: Body) -> None:
        if not self._exchange.has_room_for(body):
            too_much = "the results of this batch are more than max_unsent: ask for less at once, or raise it"
            self.refuse(InvalidResult(too_much))
        else:
            self._exchange.ended(self, b"" if self.id is None else result(self.id, whole(body)))

    def failed(self, described: bytes) -> None:
        self._end(loads(described))

    def refuse(self, why: CallError) -> None:
        self._end(refusal(why))

    def progress(self, report: bytes) -> None:
        """JSON-RPC has no place for it."""

    def item(self, item: bytes) -> None:
        raise AssertionError("nothing streams in JSON-RPC")

    def _end(self, described: dict[str, Any]) -> None:
        self._exchange.ended(self, b"" if self.id is None else error(self.id, described))
