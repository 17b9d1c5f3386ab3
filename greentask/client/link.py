"""One connection to a server, with any number of calls on it."""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent import getcurrent, monkey
from gevent.event import Event
from gevent.socket import getaddrinfo
from gevent.socket import socket as GreenSocket

from ..errors import (
    CallError,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    InvalidMessage,
    LineTooLong,
    Unauthenticated,
    from_wire,
)
from ..hub.bell import Bell
from ..hub.home import Home
from ..hub.outlet import Outlet
from ..wire.address import Address
from ..wire.message import Call, Reply, decode_reply, encode_call
from ..wire.proof import Secrets
from ..wire.text import LineSplitter
from .proving import prove

__all__ = ["Link", "Receiver"]

_blocking_getaddrinfo: Any = monkey.get_original("socket", "getaddrinfo")

_CHUNK = 64 * 1024  # more would be memory that is mapped anew for each read
#: Seconds that a server has, past a call's timeout, for telling whether the task had begun.
_ANSWER_MARGIN = 0.5
_LINES_AT_ONCE = 200  # then others get their turn
_SENT_WITHIN = 1.0  # seconds, on closing
#: Seconds before each further try of a call that a server refused because it is going away, about.
_PAUSES = (0.0, 0.05, 0.1, 0.2, 0.4, 0.8)


class Receiver(Protocol):
    """Who waits for a call. Told in the home's thread, where nothing may block."""

    def ended(self, value: Any, error: BaseException | None) -> None:
        """Its result, or its error. Told once."""

    def progress(self, report: dict[str, Any]) -> None:
        """It is so far."""

    def item(self, item: Any) -> None:
        """It streams one more item."""


class _Sent:
    __slots__ = ("connection", "data", "receiver", "refusal", "timer", "tries")

    def __init__(self, data: bytes, receiver: Receiver) -> None:
        self.data = data  # for another try
        self.receiver = receiver
        self.connection: _Connection | None = None  # on which it was sent
        self.timer: Any = None
        self.tries = 0  # that were refused by a server that is going away
        self.refusal: CallError | None = None


class _Connection:
    """An open connection, read by a greenlet of its own."""

    __slots__ = ("address", "complaint", "outlet", "socket")

    def __init__(self, address: Address, sock: GreenSocket, outlet: Outlet) -> None:
        self.address = address
        self.socket = sock
        self.outlet = outlet
        self.complaint: str | None = None  # an error about the connection and not about a call

    def close(self) -> None:
        self.outlet.close()
        self.socket.close()


class Link:
    """Connects at the first call, and again at the next one after the connection was lost.

    A server that is going away (``Draining``) answers what it has begun on the old connection; what it has not begun
    is sent again on a new one, which another server may answer.

    Belongs to its home's thread; every method but ``check_may_wait`` is called there, and none blocks.
    """

    def __init__(
        self,
        home: Home,
        addresses: tuple[Address, ...],
        connect_timeout: float,
        max_line: int,
        secrets: Callable[[], Secrets] | None = None,
    ) -> None:
        self.home = home
        self.dropped = 0  # lines that nobody waited for
        self._addresses = addresses
        self._connect_timeout = connect_timeout
        self._max_line = max_line
        self._secrets = secrets  # to be proven first, where there is one
        self._calls: dict[int, _Sent] = {}
        self._unsent: list[int] = []  # until the connection is there
        self._greenlet: gevent.Greenlet[..., Any] | None = None  # which connects, and then reads
        self._connected = Event()  # or it failed
        self._open: _Connection | None = None
        self._leaving: dict[_Connection, gevent.Greenlet[..., Any] | None] = {}  # to servers that are going away
        self._is_left = False

    def check_may_wait(self) -> None:
        """Raise ``RuntimeError`` where waiting for a call would keep its answer from being read."""
        current = getcurrent()
        if current is self.home.hub or current is self._greenlet or current in self._leaving.values():
            raise RuntimeError(
                "a callback of the client (or one of gevent's hub) can't wait for a call: no answer would be read "
                "meanwhile. Use submit there, or wait in a greenlet or thread of your own"
            )

    def start(self, id: int, data: bytes, receiver: Receiver, timeout: float | None) -> None:
        """Send a call's line; ``receiver`` hears what comes of it."""
        sent = self._calls[id] = _Sent(data, receiver)
        if timeout is not None:
            sent.timer = self.home.hub.loop.timer(timeout + _ANSWER_MARGIN)
            sent.timer.start(self._out_of_time, id, timeout, update=True)
        self._send(id, sent)

    def _send(self, id: int, sent: _Sent) -> None:
        if self._open is not None:
            sent.connection = self._open
            self._open.outlet.write(sent.data)
        else:
            self._unsent.append(id)
            if self._greenlet is None:
                self._connected.clear()
                self._greenlet = gevent.spawn(self._live)

    def forget(self, id: int) -> None:
        """Nobody waits any more: cancel the call, and drop what comes."""
        sent = self._take(id)
        if sent is not None:
            if sent.connection is not None:
                sent.connection.outlet.write(encode_call(Call("greentask.cancel", {"id": id}, f"cancel-{id}")))
            self._end_if_left()

    def send(self, id: int, data: bytes) -> None:
        """Send a line about a call, if that was sent."""
        sent = self._calls.get(id)
        if sent is not None and sent.connection is not None:
            sent.connection.outlet.write(data)

    def flush(self, done: Bell) -> None:
        """Ring when what is to be sent has left."""
        if self._calls if self._open is None else self._open.outlet.unsent:
            gevent.spawn(self._flush, done)
        else:
            done.ring()

    def finish(self, closed: Bell) -> None:
        """Close the connection when what is to be sent has left; then ring ``closed``."""

        def run() -> None:
            self._flush()
            self.close()
            closed.ring()

        gevent.spawn(run)

    def leave(self) -> None:
        """There will be no more calls: close the connection when none is in flight."""
        self._is_left = True
        self._end_if_left()

    def close(self, why: str | Unauthenticated = "the client was closed") -> None:
        """Close the connection; calls in flight fail with ``ConnectionLost``, or that error."""
        leaving, self._leaving = self._leaving, {}
        for connection in leaving:
            connection.close()
        self._end(self._open, why)
        for id in list(self._calls):
            self._fail(id, why)

    def abandon(self) -> None:
        """In a forked child: drop our copy of the connection, without a word to the server.

        The parent's greenlets that wait for calls are here as well, in a patched program. They go on waiting: what they
        would do then is done in the parent.
        """
        calls, self._calls, self._greenlet = self._calls, {}, None
        connections = [*self._leaving, *([self._open] if self._open is not None else [])]
        self._open, self._leaving = None, {}
        if self.home.is_here():
            for sent in calls.values():
                _stop(sent)
            for connection in connections:
                connection.close()
        else:
            for connection in connections:  # the home's thread, and the sockets' hub, are not in this process
                os.close(connection.socket._sock.detach())  # type: ignore[attr-defined]

    def _flush(self, done: Bell | None = None) -> None:
        gevent.with_timeout(_SENT_WITHIN, self._wait_sent, timeout_value=None)
        if done is not None:
            done.ring()

    def _wait_sent(self) -> None:
        if self._calls and self._unsent:
            self._connected.wait()
        if self._open is not None:
            self._open.outlet.wait_below(0)

    # ---- The connection

    def _live(self) -> None:
        """The life of a connection: it is opened, read until its end, and closed."""
        why: str | Unauthenticated = "the client's own greenlet was killed"
        connection, errors = None, []
        refused = False
        try:
            for address in self._addresses:
                sock = None
                rest = b""
                try:
                    sock = _open(address, self._connect_timeout)
                    if self._secrets is not None:
                        rest = prove(sock, self._secrets(), self._connect_timeout)
                except (OSError, UnicodeError, Unauthenticated) as error:  # a UnicodeError: no name can be like that
                    errors.append(f"{address}: {getattr(error, 'strerror', None) or error}")
                    refused = refused or isinstance(error, Unauthenticated)
                    if sock is not None:
                        sock.close()
                        sock = None
                if self._greenlet is not getcurrent():  # it was closed meanwhile
                    if sock is not None:
                        sock.close()
                    return
                if sock is not None:
                    connection = self._begin(address, sock)
                    why = self._serve(connection, rest)
                    return
            if refused:
                why = Unauthenticated(f"no call was sent to {'; '.join(errors)}")
            else:
                why = f"can't connect to {'; '.join(errors)}; is a server running there?"
        finally:
            if connection is not None or self._greenlet is getcurrent():
                self._end(connection, why)

    def _begin(self, address: Address, sock: GreenSocket) -> _Connection:
        def failed(error: OSError) -> None:
            self._end(connection, f"the connection to {address} was lost: {error.strerror or error}")

        connection = self._open = _Connection(address, sock, Outlet(self.home.hub.loop, sock.fileno(), failed))
        unsent, self._unsent = self._unsent, []
        for id in unsent:
            sent = self._calls.get(id)
            if sent is not None:  # else it was cancelled before it could be sent
                self._send(id, sent)
        self._connected.set()
        return connection

    def _serve(self, connection: _Connection, first: bytes) -> str | Unauthenticated:
        """Hear (``first`` has been heard); returns why that came to its end."""
        address = connection.address
        try:
            self._read(connection, first)
        except Unauthenticated as error:
            return error
        except OSError as error:
            return f"the connection to {address} was lost: {error.strerror or error}"
        except InvalidMessage as error:
            return connection.complaint or f"{address} sent what is no reply of a greentask server: {error}"
        return connection.complaint or f"{address} closed the connection before it answered"

    def _end(self, connection: _Connection | None, why: str | Unauthenticated) -> None:
        """Close a connection (None: it could not be opened); its calls fail with ``ConnectionLost``, or that error."""
        if connection is self._open:
            self._open = None
            self._greenlet = None
            self._connected.set()
            unsent, self._unsent = self._unsent, []
            for id in unsent:
                self._fail(id, why)
        if connection is not None:
            self._leaving.pop(connection, None)
            connection.close()
            for id in [id for id, sent in self._calls.items() if sent.connection is connection]:
                self._fail(id, why)

    def _fail(self, id: int, why: str | Unauthenticated) -> None:
        sent = self._take(id)
        if sent is None:
            return
        error: Exception
        if sent.refusal is not None and sent.connection is None:
            error = sent.refusal
        elif isinstance(why, str):
            error = ConnectionLost(why, sent=sent.connection is not None)
        else:
            error = Unauthenticated(str(why))
        sent.receiver.ended(None, error)

    def _leave(self, connection: _Connection) -> None:
        """Its server is going away: what was begun is answered there, and there will be no more."""
        if connection is self._open:
            self._leaving[connection] = self._greenlet
            self._open = self._greenlet = None

    def _try_again(self, id: int, sent: _Sent, refusal: CallError) -> bool:
        """Send a call again that did not run; False where that was tried often enough."""
        if sent.tries == len(_PAUSES):
            return False
        sent.refusal, sent.connection = refusal, None
        pause = _PAUSES[sent.tries]
        sent.tries += 1

        def send() -> None:
            if self._calls.get(id) is sent:
                self._send(id, sent)

        if pause:
            gevent.spawn_later(pause * random.uniform(0.5, 1.5), send)
        else:
            send()
        return True

    def _read(self, connection: _Connection, first: bytes) -> None:
        splitter = LineSplitter(self._max_line)
        while data := first or connection.socket.recv(_CHUNK):
            first = b""
            try:
                lines = splitter.feed(data)
            except LineTooLong as error:
                for text in error.lines:
                    self._hear(decode_reply(text), connection)
                raise
            for number, text in enumerate(lines, 1):
                self._hear(decode_reply(text), connection)
                if number % _LINES_AT_ONCE == 0:
                    gevent.sleep(0)
            gevent.sleep(0)  # recv doesn't wait while there is something: timers and the others must get their turn

    def _hear(self, reply: Reply, connection: _Connection) -> None:
        if reply.id is None and reply.kind == "error":
            if reply.value.get("type") == Unauthenticated.__name__:
                raise Unauthenticated(f"{connection.address}: {reply.value.get('message')}")
            error = from_wire(reply.value)
            connection.complaint = f"{reply.value.get('type')}: {reply.value.get('message')}"
            if isinstance(error, Draining):  # it has not read what we sent since, and never will
                self._leave(connection)
                for unread, unheard in list(self._calls.items()):
                    if unheard.connection is connection:
                        self._refused(unread, unheard, error)
            return
        id = reply.id if type(reply.id) is int else None  # ours are, and neither true nor 1.0 is 1
        # What has an index is about an item of a batch, and ends no call: a client sends no batches.
        sent = None if id is None or reply.index is not None else self._calls.get(id)
        if id is None or sent is None or sent.connection is not connection:
            self.dropped += not str(reply.id).startswith("cancel-")
        elif reply.kind == "progress":
            sent.receiver.progress(reply.value if isinstance(reply.value, dict) else {"note": reply.value})
        elif reply.kind == "item":
            sent.receiver.item(reply.value)
        elif reply.kind == "result":
            self._take(id)
            sent.receiver.ended(reply.value, None)
            self._end_if_left()
        else:
            raised = self._error(reply.value, connection)
            if isinstance(raised, Draining):
                self._leave(connection)
                self._refused(id, sent, raised)
            else:
                self._take(id)
                sent.receiver.ended(None, raised)
                self._end_if_left()

    def _refused(self, id: int, sent: _Sent, refusal: CallError) -> None:
        if not self._try_again(id, sent, refusal):
            self._take(id)
            sent.receiver.ended(None, refusal)
            self._end_if_left()

    def _error(self, described: dict[str, Any], connection: _Connection) -> Exception:
        error = from_wire(described)
        if not isinstance(error, CallError) and hasattr(error, "add_note"):  # since Python 3.11
            error.add_note(f"raised by the task, on {connection.address}")
        return error

    # ---- The calls

    def _take(self, id: int) -> _Sent | None:
        sent = self._calls.pop(id, None)
        if sent is not None:
            _stop(sent)
        return sent

    def _out_of_time(self, id: int, timeout: float) -> None:
        sent = self._calls.get(id)
        if sent is not None:
            self.forget(id)
            was_sent = sent.connection is not None
            where = "from the server" if was_sent else "and no connection"
            error: CallError = DeadlineExceeded(f"no answer {where} within {timeout:g} s")
            error.started = None if was_sent else False
            sent.receiver.ended(None, error)

    def _end_if_left(self) -> None:
        if self._is_left and not self._calls:
            self.finish(Bell())


def _stop(sent: _Sent) -> None:
    if sent.timer is not None:
        sent.timer.stop()
        sent.timer.close()
        sent.timer = None


def _open(address: Address, timeout: float) -> GreenSocket:
    if address.scheme == "unix":
        return _connect(socket.AF_UNIX, address.path, timeout)
    if address.scheme == "tls":
        raise OSError(f"{address}: this client speaks no TLS")
    error = OSError("the name has no address")
    for family, where in _look_up(address.host, address.port):
        try:
            sock = _connect(family, where, timeout)
        except OSError as failed:
            error = failed
        else:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            _notice_silence(sock)
            return sock
    raise error


def _look_up(host: str, port: int) -> list[tuple[int, Any]]:
    """The families and addresses of a name; an IP address has its own, without gevent's threads."""
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host)
        except OSError:
            continue
        return [(family, (host, port))]
    try:
        found = getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except RuntimeError:  # gevent can't make its threads at the interpreter's exit; what blocks there holds up nobody
        found = _blocking_getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [(family, where) for family, _, _, _, where in found]


def _connect(family: int, where: Any, timeout: float) -> GreenSocket:
    sock = GreenSocket(family, socket.SOCK_STREAM)
    try:
        sock.settimeout(timeout)
        sock.connect(where)
        sock.settimeout(None)
    except BaseException:
        sock.close()
        raise
    return sock


def _notice_silence(sock: GreenSocket) -> None:
    """Let the kernel ask after a peer that is silent: about 25 s after a cable was pulled, the connection is lost."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for option, value in (
        ("TCP_KEEPIDLE", 10),
        ("TCP_KEEPINTVL", 5),
        ("TCP_KEEPCNT", 3),
        ("TCP_USER_TIMEOUT", 25_000),
    ):
        if hasattr(socket, option):  # Linux has them all
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
