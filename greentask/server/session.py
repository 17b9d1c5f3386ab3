"""greentask's protocol on one connection: lines become calls, calls become lines.

Everything happens in the hub's thread. The connection's greenlet (``serve``) reads; answers come from whatever greenlet
or callback ends a call, and leave through the connection's outlet in the order in which they were given to it.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from ..errors import CallError, Draining, InvalidMessage, Overloaded
from ..hub.steps import run_in_turns
from ..wire.json import dumps
from ..wire.jsonrpc import PARSE_ERROR, refused
from ..wire.message import BadRequest, Call, Id, JsonRpc, More, decode_request, decode_request_in_steps
from ..wire.reply import error_member, line, line_around
from ..wire.steps import LARGE, take_apart
from ..wire.text import is_http
from .answer import Answer
from .batch import Batch
from .connection import LineConnection
from .durable import QUEUE_FUNCTIONS, queue_of
from .held import COUNTED, weigh
from .jsonrpc import RpcBatch, RpcCall, take
from .own import OWN, call_own
from .stream import Stream

if TYPE_CHECKING:
    from .server import Server

__all__ = ["Session"]

#: As many of the longest lines may be in flight on one connection; where they are large, the next one waits.
_MOST_LINES = 4
_FEW_BYTES = 4 * 1024 * 1024  # and where the longest line is short, four times this


# For all connections that have nothing in order: an empty deque takes 760 bytes.
_NOBODY: deque[Answer] = deque(maxlen=0)

_NO_HTTP = InvalidMessage(
    "this is HTTP, and the server takes lines of JSON: nothing of it is run, for a web page may have sent it; "
    "browsers call through a Gateway"
)
_GOING_AWAY = "this server is going away and starts nothing new: call another, or again in a moment"
_GOODBYE = Draining(_GOING_AWAY)
_IDLE_GOODBYE = Draining("this connection was idle and is closed: open another for a call")


class _Foreign(Exception):
    """The peer speaks another protocol: nothing that it has sent, or will send, is taken."""


class Session:
    """The calls of one connection. ``serve`` is the life of it."""

    __slots__ = (
        "__weakref__",
        "_asked",
        "_by_id",
        "_changed",
        "_draining",
        "_goes_after_this",
        "_goodbye",
        "_held",
        "_in_flight",
        "_in_order",
        "_is_full",
        "_is_last",
        "_item_slots",
        "_size",
        "_speaks_rpc",
        "_streams",
        "_taking",
        "_unclaimed",
        "connection",
        "server",
    )

    def __init__(self, server: Server, connection: LineConnection) -> None:
        self.server = server
        self.connection = connection
        self._by_id: dict[Any, Answer | RpcCall | RpcBatch] = {}  # JSON-RPC has some that have no name but themselves
        self._in_order = _NOBODY  # calls without id
        self._in_flight = 0
        self._streams = 0  # in flight
        self._held = 0  # bytes of answers that wait for their turn
        self._size = 0  # bytes that lines take up whose calls are in flight
        self._unclaimed = 0  # of them, those of a line that is being read
        self._is_full = False  # waiting until another call may be in flight
        self._is_last = False  # nothing more is read
        self._item_slots: Semaphore | None = None  # where it has sent a batch
        self._changed = Event()  # set when a call ends, and when the connection breaks
        self._draining = False
        self._asked = False  # a line has come
        self._goes_after_this = False  # it drains when the lines that have come are taken
        self._taking = False
        self._speaks_rpc = False  # a line of JSON-RPC has come
        self._goodbye = _GOODBYE
        connection.on_break = self._broke
        connection.is_patient = True  # what has begun, ends
        connection.owner = self

    def serve(self, first: Sequence[bytes] = ()) -> None:
        """Read and answer until the peer has shut down its side and has every answer that it is owed.

        ``first`` are lines that were read before.
        """
        try:
            if first:
                self._take_all(first)
            while (lines := self.connection.read()) is not None:
                if lines:
                    self._take_all(lines)
        except _Foreign:
            self.connection.fault, self._taking = _NO_HTTP, False
        if self.connection.fault is not None and self._speaks_rpc:
            self.connection.send(refused(None, self.connection.fault), b"\n")
        elif self.connection.fault is not None:
            self._begin(None).refuse(self.connection.fault)
        for answer in list(self._by_id.values()):
            answer.grant_no_more()
        self._is_last = True
        while self._in_flight:
            if self.connection.gone:
                self.connection.close()  # they may go on for an hour, and need no descriptor
            self._wait()
        self.connection.finish()

    def drain(self, patience: float = 0.0) -> None:
        """Start no more calls; close the connection after the last answer.

        A peer that hasn't asked for anything yet has come just now, and has ``patience`` seconds for its first call.
        """
        if patience and not self._asked:
            self._goes_after_this = True
            gevent.spawn_later(patience, self.drain)
            return
        self._draining = True
        self._say_goodbye()

    def went_idle(self) -> None:
        """Close the connection, for it has been idle; a call that comes just now is told that it did not run."""
        self._goodbye = _IDLE_GOODBYE
        self.drain()

    def _say_goodbye(self) -> None:
        """Close the connection, when all is answered and nothing has arrived that wants an answer.

        The last line is a ``Draining`` that belongs to no call. What the peer sends until it has read it is forgotten:
        so for the peer all of its calls that are unanswered then have not run.
        """
        if not (self._in_flight or self._taking or self.connection.has_input()):
            told = refused(None, self._goodbye) + b"\n" if self._speaks_rpc else line(None, error_member(self._goodbye))
            self.connection.end_with(told)

    @property
    def weight(self) -> tuple[int, int]:
        """What makes it worth a look: calls in flight, and bytes that its peer has not read."""
        return self._in_flight, self.connection.unsent

    def describe(self) -> dict[str, Any]:
        """Whose it is, and what it is about."""
        connection = self.connection
        return {
            "peer": connection.peer,
            "in_flight": self._in_flight,
            "unsent": connection.unsent,
            "read": connection.bytes_read,
            "written": connection.bytes_written,
        }

    @property
    def is_full(self) -> bool:
        """Whether nothing is read until a call has ended; of a peer that tells lines apart by their ids.

        So too where calls are cancelled for which nobody waits, and the peer has ended its side: whether it has gone
        as well is only seen when it is sent something.
        """
        return (
            (self._is_full or (self._is_last and self.server.cancel_abandoned))
            and len(self._by_id) > 0
            and not self._speaks_rpc
        )

    def is_busy(self) -> bool:
        """Whether a call is in flight."""
        return self._in_flight > 0

    def cancel(self, id: Id) -> bool:
        """Cancel a call of this connection; False where none is in flight under that id."""
        answer = self._by_id.get(id)
        if answer is None or answer.running is None:
            return False
        answer.running.cancel()
        return True

    def cancel_all(self) -> None:
        """Cancel what is in flight: nobody hears of it any more."""
        for answer in [*self._by_id.values(), *self._in_order]:
            if answer.running is not None:
                answer.running.cancel()

    def finish(self, answer: Answer, *body: bytes) -> None:
        """A call has ended; the pieces of its line's body."""
        self.server.in_flight -= 1
        if answer.stream is not None:
            self._streams -= 1
            answer.stream.end()
        answer.running = answer.stream = None  # which know whom they answer
        if answer.size:
            self._let_go(answer.size, answer.bulk)
        if answer.id is not None:
            del self._by_id[answer.id]
            if len(body) == 1 and self._in_flight > 1:
                self._in_flight -= 1
                self.connection.send_line(line(answer.id, body[0]))  # as most often
            else:
                self._send(answer.id, body)
        else:
            answer.body = body = () if self.connection.gone else body
            size = sum(map(len, body))
            self._held += size
            if self._held > LARGE:
                self.connection.grew(size)
            while self._in_order and (ready := self._in_order[0].body) is not None:
                self._in_order.popleft()
                if not self._in_order:
                    self._in_order = _NOBODY
                self._held -= sum(map(len, ready))
                self._send(None, ready)
            if self._held > self.server.limits.max_unsent:
                self.connection.leave_unread()
        self._changed.set()
        if self._draining:
            self._say_goodbye()

    def enter(self, key: Any, entry: RpcCall | RpcBatch) -> None:
        """Something of JSON-RPC is in flight from now on, under its id or another ``key``."""
        self._in_flight += 1
        self.server.in_flight += 1
        self._by_id[key] = entry

    def leave(self, key: Any, entry: RpcCall | RpcBatch, *data: bytes) -> None:
        """It has ended; the pieces of its line, where it has one."""
        self.server.in_flight -= 1
        self._in_flight -= 1
        entry.running = None
        if entry.size:
            self._let_go(entry.size, entry.bulk)
        del self._by_id[key]
        if data:
            self.connection.send(*data)
        self._changed.set()
        if self._draining:
            self._say_goodbye()

    def is_in_flight(self, key: Any) -> bool:
        """Whether something is, under that id."""
        return key in self._by_id

    @property
    def item_slots(self) -> Semaphore:
        """Of all its batches, for the items that run: whoever doesn't read leaves room for those of others."""
        if self._item_slots is None:
            self._item_slots = Semaphore(self.server.limits.max_in_flight)
        return self._item_slots

    @property
    def held(self) -> int:
        """Bytes of answers that wait for their turn, or for what they are sent with."""
        return self._held

    def hold(self, size: int) -> bool:
        """Count so many bytes more (or fewer) that wait for what they are sent with; False where that is too many."""
        self._held += size
        if size > 0 and self._held > LARGE:
            self.connection.grew(size)
        return self._held <= self.server.limits.max_unsent // 2

    def _send(self, id: Id | None, body: tuple[bytes, ...]) -> None:
        self._in_flight -= 1  # an answer that waits for its turn counts, or there could be any number of them
        if len(body) != 1:
            begin, end = line_around(id)
            self.connection.send(begin, *body, end)
        elif self._in_flight:
            self.connection.send(line(id, body[0]))
        else:
            self.connection.send_now(line(id, body[0]))  # the peer has nothing to do but to wait for it

    def _broke(self) -> None:
        """Nobody reads any more: what waits for its turn to be sent is forgotten."""
        for answer in self._in_order:
            if answer.body is not None:
                self._held -= sum(map(len, answer.body))
                answer.body = ()
        for entry in self._by_id.values():
            if isinstance(entry, RpcBatch):
                entry.forget()
        self._changed.set()

    def _wait(self) -> None:
        """Wait until a call has ended."""
        self._changed.clear()
        if self.connection.gone:
            for answer in [*self._by_id.values(), *self._in_order]:
                answer.abandon()
        self._changed.wait()

    def _take_all(self, lines: Iterable[bytes]) -> None:
        arrived = time.monotonic()
        self._asked = self._taking = True
        for number, text in enumerate(lines):
            if number and not number % 64:
                gevent.sleep(1e-9)  # whoever sends a thousand lines at once doesn't hold up the others: a whole turn
                self.connection.wait_until_read()
            if len(text) < COUNTED:
                self._take(text, arrived)
            else:
                self._take_counted(text, arrived)
        self._taking = False
        if self._goes_after_this:
            self.drain()
        elif self._draining:
            self._say_goodbye()

    def _take_counted(self, text: bytes, arrived: float) -> None:
        try:
            self._take(text, arrived)
        finally:
            size = self.claim()
            if size:  # it was no call
                self._let_go(size, None)

    def _take(self, text: bytes, arrived: float) -> None:
        limits = self.server.limits
        try:
            if len(text) < COUNTED:
                request = decode_request(text, limits.max_depth, limits.max_steps)
            else:
                request = self._decode_counted(text)
        except CallError as error:
            self._refuse_line(text, error)
            return
        if not isinstance(request, Call):
            if isinstance(request, JsonRpc):
                self._speaks_rpc |= request.is_certain
                take(self, request, text, arrived)
            elif request.id in self._by_id:
                self._by_id[request.id].grant(request.items)
            return
        has_room = (
            # As most often.
            (self._in_flight < limits.max_in_flight and not self._held and not self._size)
            # These are answered at once. They don't wait, so that a connection that is full can cancel a call.
            or (request.id is not None and request.function in OWN)
            or self.has_room()
        )
        id = request.id
        if id is None:
            answer = self._begin(None)
        elif id not in self._by_id:
            self._in_flight += 1
            self.server.in_flight += 1
            answer = self._by_id[id] = Answer(self, id)
        else:
            # Not a call of its own: it has no line of answers that could be told from the first one's.
            in_use = BadRequest(f"id {dumps(id).decode()} belongs to a call that is still in flight")
            self.connection.send(line(id, error_member(in_use)))
            return
        if self._unclaimed:
            answer.size = self.claim()
            answer.bulk = [value for value in (request.args, request.batch) if value]
        self.try_to_start(request, text, answer, arrived, has_room)

    def _refuse_line(self, text: bytes, error: CallError) -> None:
        """Answer what is no message. Who has spoken JSON-RPC, or tried to, is told in its form."""
        could_be_read = isinstance(error, BadRequest)
        if not could_be_read and is_http(text):
            # Any page that a browser shows may have it send a request here, with calls in its body.
            raise _Foreign from None
        if self._speaks_rpc or (not could_be_read and b'"jsonrpc"' in text):
            id, code = getattr(error, "id", None), None if could_be_read else PARSE_ERROR
            self.connection.send(refused(id, error, code), b"\n")
        else:
            self.has_room()
            self._begin(getattr(error, "id", None)).refuse(error)

    def _decode_counted(self, text: bytes) -> Call | More | JsonRpc:
        server, limits = self.server, self.server.limits
        size = run_in_turns(weigh(text))
        server.room.enter(size)
        self._size += size
        self._unclaimed = size
        try:
            if len(text) <= LARGE:
                return decode_request(text, limits.max_depth, limits.max_steps)
            decoding = decode_request_in_steps(text, limits.max_depth, server.runner.is_carried, limits.max_steps)
            request = run_in_turns(decoding)
            if isinstance(request, Call) and not (request.args or request.batch):
                self._let_go(size - len(text), None, 0)  # what is only carried is not kept as values
                self._unclaimed = len(text)
            return request
        finally:
            server.room.was_read()

    def claim(self) -> int:
        """The bytes that the line takes up that is being read. Its call has them now, and gives them back."""
        size, self._unclaimed = self._unclaimed, 0
        return size

    def _let_go(self, size: int, bulk: list[Any] | None, lines: int = 1) -> None:
        """So many bytes of lines are not held any more, nor what was in them."""
        self._size -= size
        self.server.room.leave(size, lines)
        if bulk and size > LARGE:
            gevent.spawn(run_in_turns, take_apart(bulk))

    def has_room(self) -> bool:
        """Wait until another call may be in flight; False where that could take for ever."""
        limits = self.server.limits
        while (
            self._in_flight >= limits.max_in_flight
            or self._held > limits.max_unsent // 4
            or self._size - self._unclaimed > _MOST_LINES * max(limits.max_line, _FEW_BYTES)
        ):
            if self._streams:  # the lines that let them go on may be behind this one
                return False
            self._is_full = True
            self._wait()
            self._is_full = False
        return True

    def _begin(self, id: Id | None) -> Answer:
        self._in_flight += 1
        self.server.in_flight += 1
        if id is not None and id not in self._by_id:
            answer = self._by_id[id] = Answer(self, id)
        else:
            answer = Answer(self, None)
            if self._in_order is _NOBODY:
                self._in_order = deque()
            self._in_order.append(answer)
        return answer

    def why_not(self, *, has_room: bool, is_heavy: bool) -> CallError | None:
        """Why a call is not started now; None where it is."""
        limits = self.server.limits
        if not has_room:
            told = "too many calls are in flight on this connection, with streams among them (max_in_flight)"
        elif self._draining:
            return Draining(_GOING_AWAY)
        elif self.server.in_flight > limits.max_calls:
            told = f"{limits.max_calls} calls are in flight on this server, and it takes no more (max_calls)"
        elif is_heavy and self.server.room.is_full:
            told = "the lines of calls in flight on this server take up too much memory (max_held)"
        else:
            return None
        return Overloaded(f"{told}: try again later")

    def try_to_start(self, call: Call, text: bytes, answer: Answer | RpcCall, arrived: float, has_room: bool) -> None:
        """Start a call, or refuse it."""
        server = self.server
        try:
            if has_room and call.function in OWN and call.enqueue is None:
                answer.done(dumps(call_own(self, call)))
                return
            if not has_room or self._draining or answer.size or server.in_flight > server.limits.max_calls:
                why_not = self.why_not(has_room=has_room, is_heavy=answer.size > 0)
                if why_not is not None:
                    server.runner.refuse(call, answer, why_not, self.connection)
                    return
            if call.enqueue is not None:
                queue_of(server).enqueue(call, text, answer, self.connection.peer)
                return
            if call.function in QUEUE_FUNCTIONS:
                answer.running = queue_of(server).call(call, answer, self.connection.peer)
                return
            deadline = None if call.timeout is None else arrived + call.timeout
            if call.batch is not None and isinstance(answer, Answer):  # JSON-RPC has other batches, and no streams
                answer.running = Batch(server, call, call.batch, deadline, answer)
                return
            if call.stream and isinstance(answer, Answer):
                answer.stream = Stream(answer, call.stream)
                call.stream = answer.stream.window
                self._streams += 1
            answer.running = server.runner.start(call, text, answer, deadline, self.connection)
        except CallError as error:
            answer.refuse(error)
