"""``TextServer``: lines in, lines out, for protocols that aren't greentask's own.

Everything happens in the hub's thread. A connection's greenlet reads, and calls ``on_connect``, ``on_message``,
``on_error`` and ``on_close``; whoever sends calls ``on_buffer_full``, a greenlet of its own ``on_buffer_drain``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from itertools import count
from types import SimpleNamespace

import gevent
from gevent.event import Event

from ..hub.files import TLSFiles
from ..hub.signals import stop_at_signals
from ..wire.address import Address
from .acceptor import Acceptor
from .connection import LineConnection
from .limits import Limits

__all__ = ["DEFAULT_STOP", "TextConnection", "TextServer"]

logger = logging.getLogger(__name__)

#: Seconds that connections have for finishing when the server stops.
DEFAULT_STOP = 10.0


class TextConnection:
    """One peer of a ``TextServer``.

    id
        A number that no other connection of this server has had.
    server
        The ``TextServer``.
    closing
        Whether ``close`` or ``destroy`` was called.
    lines_read, lines_sent
        How many of them there were.
    on_message, on_close, on_error, on_buffer_full, on_buffer_drain
        To begin with, the server's. Set one to have another for this connection.
    """

    __slots__ = (
        "__weakref__",
        "_context",
        "_is_full",
        "_lines",
        "_resumed",
        "closing",
        "id",
        "lines_read",
        "lines_sent",
        "on_buffer_drain",
        "on_buffer_full",
        "on_close",
        "on_error",
        "on_message",
        "server",
    )

    def __init__(self, server: TextServer, id: int, lines: LineConnection) -> None:
        self.server = server
        self.id = id
        self.closing = False
        self.lines_read = 0
        self.lines_sent = 0
        self.on_message = server.on_message
        self.on_close = server.on_close
        self.on_error = server.on_error
        self.on_buffer_full = server.on_buffer_full
        self.on_buffer_drain = server.on_buffer_drain
        self._lines = lines
        self._context: SimpleNamespace | None = None
        self._resumed: Event | None = None  # there while it is paused
        self._is_full = False

    def __repr__(self) -> str:
        return f"<TextConnection {self.id} from {self.peer}>"

    @property
    def context(self) -> SimpleNamespace:
        """A place for what you want to know about this peer: ``connection.context.name = "Ann"``."""
        if self._context is None:
            self._context = SimpleNamespace()
        return self._context

    # ---- Who it is, and how it is

    @property
    def peer(self) -> str:
        """Its address, as ``host:port``."""
        return self._lines.peer

    @property
    def remote_host(self) -> str:
        """Its IP address; empty for a unix socket."""
        return self._lines.remote[0]

    @property
    def remote_port(self) -> int:
        """Its port; 0 for a unix socket."""
        return self._lines.remote[1]

    @property
    def local(self) -> str:
        """Our address on this connection, as ``host:port`` (or a path); empty once it is closed."""
        return self._lines.local

    @property
    def is_open(self) -> bool:
        """Whether what was sent can still arrive."""
        return not self._lines.gone

    @property
    def is_paused(self) -> bool:
        """Whether its lines wait, for ``pause`` was called."""
        return self._resumed is not None

    @property
    def is_full(self) -> bool:
        """Whether it reads too slowly: from ``on_buffer_full`` until ``on_buffer_drain``."""
        return self._is_full

    @property
    def unsent(self) -> int:
        """Bytes that it has not taken yet."""
        return self._lines.unsent

    @property
    def pending(self) -> int:
        """Bytes of a line whose end has not come yet."""
        return self._lines.pending

    @property
    def bytes_read(self) -> int:
        """Bytes that have come from it."""
        return self._lines.bytes_read

    @property
    def bytes_written(self) -> int:
        """Bytes that it has taken."""
        return self._lines.bytes_written

    # ---- Sending

    def send(self, line: str | bytes) -> bool:
        """Send one line; the newline is added. Never waits. False where it can't arrive any more.

        From a quarter of ``Limits.max_unsent`` on that the peer has not taken, ``is_full`` says to hold back; past
        ``max_unsent`` the peer is cut off. Raises ``ValueError`` for a line with a newline in it.
        """
        return self._send(_encode(line))

    def flush(self, timeout: float | None = None) -> bool:
        """Let other greenlets run until it has taken all that was sent; False if not within so many seconds."""
        return self._lines.flush(timeout) and self.is_open

    def close(self, last: str | bytes | None = None) -> None:
        """Send one more line, if there is one, and take no more of its lines; closed when it has what was sent."""
        if last is not None:
            self.send(last)
        self.closing = True
        self.resume()
        self._lines.end_reading()

    def destroy(self) -> None:
        """Close at once, and forget what is not sent."""
        self.closing = True
        self._lines.abort()

    # ---- Receiving

    def pause(self) -> None:
        """Take no more of its lines until ``resume``; it can send no more than some buffers hold.

        That it has gone is noticed when something is sent, or after ``resume``.
        """
        if self._resumed is None and self.is_open and not self.closing:
            self._resumed = Event()

    def resume(self) -> None:
        """Take lines again."""
        resumed, self._resumed = self._resumed, None
        if resumed is not None:
            resumed.set()

    def pipe(self, other: TextConnection) -> None:
        """Send all its lines to another connection, as quickly as that reads, and close that one when this one ends."""
        on_close = self.on_close

        def hand_over(source: TextConnection, line: str) -> None:
            if not other.send(line):
                source.close()
            other._lines.wait_until_read()

        def end(source: TextConnection) -> None:
            other.close()
            if on_close is not None:
                on_close(source)

        self.on_message = hand_over
        self.on_close = end

    # ---- For the server

    def _send(self, data: bytes) -> bool:
        lines = self._lines
        if self.closing or lines.gone:
            return False
        self.lines_sent += 1
        lines.send(data, b"\n")
        if lines.is_behind and not self._is_full:
            self._is_full = True
            gevent.spawn(self._empty)
            self._call(self.on_buffer_full)
        return not lines.gone

    def _empty(self) -> None:
        emptied = self.flush()
        self._is_full = False
        if emptied and not self.closing:
            self._call(self.on_buffer_drain)

    def _take(self, line: bytes) -> None:
        while self._resumed is not None:
            self._resumed.wait()
        self._lines.wait_until_read()
        if not self.closing:
            self.lines_read += 1
            try:
                self.on_message(self, line.decode("utf-8", "surrogateescape"))
            except Exception as error:
                self._failed(error)

    def _call(self, function: Callable[[TextConnection], object] | None) -> None:
        if function is not None:
            try:
                function(self)
            except Exception as error:
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        if self.on_error is None:
            logger.error("the connection from %s is closed, for its handler failed", self.peer, exc_info=error)
        else:
            self._report(error)
        self.close()

    def _report(self, error: Exception) -> None:
        if self.on_error is not None:
            try:
                self.on_error(self, error)
            except Exception:
                logger.exception("on_error failed for the connection from %s", self.peer)


class TextServer:
    """Calls ``on_message(connection, line)`` for every line: the counterpart of a Workerman ``Text://`` worker.

    Lines of one connection are handled one after another, in that connection's greenlet; other connections go on
    meanwhile. A line is ``str``; bytes that aren't UTF-8 are in it as surrogates, and ``send`` turns them back.

    on_connect, on_close
        ``f(connection)`` when a peer has come, and when it has gone, or was closed; always both.
    on_error
        ``f(connection, error)`` when one of the functions has raised an exception, and for what the peer did: a line
        that was too long (``LineTooLong``), took too long (``DeadlineExceeded``) or had no room (``Overloaded``), a
        connection that broke, or that
        was cut off, for it didn't read (``ConnectionError``). Then the connection is closed. Without ``on_error``
        exceptions of the functions are logged.
    on_buffer_full, on_buffer_drain
        ``f(connection)`` when the peer has a quarter of ``limits.max_unsent`` to read, and when it has taken all.
    on_start, on_stop
        ``f(server)`` when it listens and hasn't accepted anybody yet, and when it has stopped.
    limits
        See ``Limits``.
    tls
        Certificate, key and (for mutual TLS) authority of ``tls://`` addresses.
    allow
        Take connections from these networks only.
    insecure
        Listen on addresses that other machines can reach, though anybody there can connect.
    socket_mode, socket_owner
        Permissions of a unix socket's file (``0o660``), and whose it is: ``user``, ``user:group`` or ``:group``.

    ``connections`` has the open ones by their id: make a list of them before a loop that waits.

    >>> def on_message(connection, line):
    ...     connection.send("hello " + line)
    >>> server = TextServer("Text://127.0.0.1:0", on_message)
    >>> server.start(); str(server.addresses[0]).startswith("tcp://127.0.0.1:")
    True
    >>> server.stop()
    """

    def __init__(
        self,
        address: str | Iterable[str],
        on_message: Callable[[TextConnection, str], object],
        *,
        on_connect: Callable[[TextConnection], object] | None = None,
        on_close: Callable[[TextConnection], object] | None = None,
        on_error: Callable[[TextConnection, Exception], object] | None = None,
        on_buffer_full: Callable[[TextConnection], object] | None = None,
        on_buffer_drain: Callable[[TextConnection], object] | None = None,
        on_start: Callable[[TextServer], object] | None = None,
        on_stop: Callable[[TextServer], object] | None = None,
        limits: Limits | None = None,
        tls: TLSFiles | None = None,
        allow: Iterable[str] = (),
        insecure: bool = False,
        socket_mode: int | None = None,
        socket_owner: str | None = None,
    ) -> None:
        self.on_message = on_message
        self.on_connect = on_connect
        self.on_close = on_close
        self.on_error = on_error
        self.on_buffer_full = on_buffer_full
        self.on_buffer_drain = on_buffer_drain
        self.on_start = on_start
        self.on_stop = on_stop
        self.connections: dict[int, TextConnection] = {}
        self._ids = count(1)
        self._started = False
        self._is_on = False  # on_start has been called, and on_stop has not
        self._stopped = Event()
        self._acceptor = Acceptor(
            address,
            self._serve,
            limits or Limits(),
            tls=tls,
            insecure=insecure,
            socket_mode=socket_mode,
            socket_owner=socket_owner,
            allow=allow,
        )

    @property
    def addresses(self) -> list[Address]:
        """Where it listens."""
        return self._acceptor.addresses

    def start(self) -> None:
        """Listen. Raises ``ConfigurationError`` where that can't be."""
        self._acceptor.bind()
        self._started = self._is_on = True
        try:
            if self.on_start is not None:
                self.on_start(self)
        except BaseException:
            self._acceptor.close()
            raise
        self._acceptor.start()

    def serve_forever(self, timeout: float = DEFAULT_STOP) -> None:
        """Start (unless that was done), and serve until SIGTERM or SIGINT has stopped it, or ``stop`` was called.

        A second signal doesn't wait for connections. For the main thread.
        """
        if not self._started:
            self.start()
        with stop_at_signals(self.stop, timeout):
            self._stopped.wait()

    def stop(self, timeout: float = DEFAULT_STOP) -> None:
        """Accept nothing more, let every connection finish what has arrived and its output, then close it.

        After ``timeout`` seconds what is left is cut off. Called in one of a connection's functions, which it would
        otherwise wait for, it returns at once, and the server stops after that.
        """
        if self._acceptor.is_serving(gevent.getcurrent()):
            gevent.spawn(self._stop, timeout)
        else:
            self._stop(timeout)

    def broadcast(self, line: str | bytes, *, without: TextConnection | None = None) -> int:
        """Send a line to every connection, or every other one; to how many it went."""
        data = _encode(line)
        return sum(one._send(data) for one in list(self.connections.values()) if one is not without)

    def _stop(self, timeout: float) -> None:
        self._acceptor.close()
        for lines in list(self._acceptor.open):
            lines.end_reading()
        self._acceptor.join(timeout)
        was_on, self._is_on = self._is_on, False
        try:
            if was_on and self.on_stop is not None:
                self.on_stop(self)
        finally:
            self._stopped.set()

    def _serve(self, lines: LineConnection) -> None:
        lines.keep_empty_lines()
        connection = TextConnection(self, next(self._ids), lines)
        lines.on_break = connection.resume
        self.connections[connection.id] = connection
        try:
            connection._call(self.on_connect)
            while not connection.closing and (arrived := lines.read()) is not None:
                for number, line in enumerate(arrived):
                    if number % 64 == 63:
                        gevent.sleep(0)  # whoever sends a thousand lines at once doesn't hold up the others
                    connection._take(line)
            error = lines.fault or lines.error
            if error is not None and not connection.closing:
                connection._report(error)
        finally:
            del self.connections[connection.id]
            connection._call(connection.on_close)
        lines.finish()


def _encode(line: str | bytes) -> bytes:
    data = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line
    if b"\n" in data:
        raise ValueError("a line can't contain a newline: it would arrive as two")
    return data
