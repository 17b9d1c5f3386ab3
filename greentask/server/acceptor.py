"""Accepts connections of lines on some addresses: what ``Server`` and ``TextServer`` share."""

from __future__ import annotations

import errno
import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.pool import Pool as GreenletPool
from gevent.server import StreamServer
from gevent.socket import socket as GreenSocket

from ..wire.address import Address, parse_addresses
from .connection import LineConnection
from .limits import Limits
from .listening import SocketFile, bound_address, listen_on, socket_files

__all__ = ["Acceptor"]

logger = logging.getLogger(__name__)

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_PAUSE = 0.5  # seconds until the next try
_TOLD_EVERY = 60.0  # seconds


class Acceptor:
    """Runs ``serve(connection)`` in a greenlet for each connection, and closes it after that.

    ``open`` holds the connections that are being served.
    """

    def __init__(
        self,
        listen: str | Iterable[str],
        serve: Callable[[LineConnection], None],
        limits: Limits,
        *,
        insecure: bool = False,
        remedy: str = "",
    ) -> None:
        self.limits = limits
        self.open: set[LineConnection] = set()
        self._listen = parse_addresses(listen)
        self._insecure = insecure
        self._remedy = remedy
        self._serve = serve
        self._sockets: list[GreenSocket] = []
        self._files: list[SocketFile] = []
        self._servers: list[StreamServer] = []
        self._greenlets = GreenletPool(limits.max_connections)

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, with the ports that the kernel chose."""
        return [bound_address(sock) for sock in self._sockets]

    def bind(self) -> None:
        """Take the addresses: from now on the kernel queues connections. Raises ``ConfigurationError``."""
        self._sockets = listen_on(self._listen, insecure=self._insecure, remedy=self._remedy)
        self._files = socket_files(self._sockets)

    def start(self) -> None:
        """Serve."""
        for sock in self._sockets:
            server = _Listener(sock, self._accepted, spawn=self._greenlets)
            server.start()
            self._servers.append(server)

    def close(self) -> None:
        """Accept nothing more; the connections go on."""
        while self._files:
            self._files.pop().remove()
        for server in self._servers:
            server.close()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()

    def join(self, timeout: float) -> bool:
        """Wait until every connection is closed; after ``timeout`` seconds cut off what is left, and say False."""
        ended: bool = self._greenlets.join(timeout)
        if not ended:
            for connection in list(self.open):
                connection.abort()
            self._greenlets.kill(timeout=1.0)
        return ended

    def _accepted(self, sock: GreenSocket, peer: Any) -> None:
        connection = LineConnection(sock, peer, self.limits)
        self.open.add(connection)
        try:
            self._serve(connection)
        finally:
            self.open.discard(connection)
            connection.close()


class _Listener(StreamServer):
    """gevent's, which by itself shows a traceback for each connection that can't be accepted."""

    _told_at = -_TOLD_EVERY

    def do_read(self) -> Any:
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            if time.monotonic() - self._told_at >= _TOLD_EVERY:
                self._told_at = time.monotonic()
                logger.warning("no more connections can be accepted for now: %s", error.strerror)
            self.stop_accepting()
            gevent.spawn_later(_PAUSE, self._go_on)
            return None

    def _go_on(self) -> None:
        if self.started:
            self.start_accepting()
