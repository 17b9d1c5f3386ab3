"""``TextServer``: lines in, lines out, for protocols that aren't greentask's own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from gevent.event import Event

from ..wire.address import Address
from .acceptor import Acceptor
from .connection import LineConnection
from .limits import Limits

__all__ = ["TextConnection", "TextServer"]

logger = logging.getLogger(__name__)


class TextConnection:
    """One peer of a ``TextServer``."""

    def __init__(self, lines: LineConnection) -> None:
        self.closing = False
        self._lines = lines

    @property
    def peer(self) -> str:
        """Its address, as ``host:port``."""
        return self._lines.peer

    @property
    def is_open(self) -> bool:
        """Whether what is sent can still arrive."""
        return not self._lines.gone

    def send(self, line: str | bytes) -> None:
        """Send one line; the newline is added. Never waits. Raises ``ValueError`` for a line with a newline in it."""
        data = line.encode("utf-8", "surrogateescape") if isinstance(line, str) else line
        if b"\n" in data:
            raise ValueError("a line can't contain a newline: it would arrive as two")
        self._lines.send(data, b"\n")

    def close(self) -> None:
        """Take no more lines from it; it is closed when it has what was sent."""
        self.closing = True
        self._lines.end_reading()


class TextServer:
    """Calls ``on_message(connection, line)`` for every line: the counterpart of a Workerman ``Text://`` worker.

    Lines of one connection are handled one after another, in that connection's greenlet; other connections go on
    meanwhile. A line is ``str``; bytes that aren't UTF-8 are in it as surrogates, and ``send`` turns them back.
    An exception in one of the functions is logged, and closes the connection that it was called for.

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
        limits: Limits | None = None,
        insecure: bool = False,
    ) -> None:
        self.on_message = on_message
        self.on_connect = on_connect
        self.on_close = on_close
        self.connections: dict[int, TextConnection] = {}
        self._stopped = Event()
        self._acceptor = Acceptor(address, self._serve, limits or Limits(), insecure=insecure)

    @property
    def addresses(self) -> list[Address]:
        """Where it listens."""
        return self._acceptor.addresses

    def start(self) -> None:
        """Listen. Raises ``ConfigurationError`` where that can't be."""
        self._acceptor.bind()
        self._acceptor.start()

    def serve_forever(self) -> None:
        """Listen until ``stop`` is called (by another greenlet)."""
        self.start()
        self._stopped.wait()

    def stop(self, timeout: float = 10.0) -> None:
        """Accept nothing more, let every connection finish what has arrived and its output, then close it.

        After ``timeout`` seconds what is left is cut off.
        """
        self._acceptor.close()
        for lines in list(self._acceptor.open):
            lines.end_reading()
        self._acceptor.join(timeout)
        self._stopped.set()

    def _serve(self, lines: LineConnection) -> None:
        connection = TextConnection(lines)
        self.connections[id(connection)] = connection
        try:
            try:
                if self.on_connect is not None:
                    self.on_connect(connection)
                while not connection.closing and (arrived := lines.read()) is not None:
                    self._handle(connection, arrived)
            finally:
                del self.connections[id(connection)]
                if self.on_close is not None:
                    self.on_close(connection)
        except Exception:
            logger.exception("the connection from %s is closed, for its handler failed", connection.peer)
        lines.finish()

    def _handle(self, connection: TextConnection, arrived: list[bytes]) -> None:
        for line in arrived:
            if connection.closing:
                break
            self.on_message(connection, line.decode("utf-8", "surrogateescape"))
