"""One connection that carries lines: what arrives is read here, what leaves goes through its outlet."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import gevent
from gevent.hub import get_hub
from gevent.socket import socket as GreenSocket

from ..errors import LineTooLong
from ..hub.outlet import Outlet
from ..wire.text import LineSplitter
from .limits import Limits
from .origin import origin_of

__all__ = ["LineConnection"]

_CHUNK = 64 * 1024
_FLUSHED_WITHIN = 30.0  # seconds that a peer has for reading the last answers
_LINGERS = 2.0  # seconds that a peer has for finishing what nobody reads


class LineConnection:
    """A socket, its splitter and its outlet.

    One greenlet reads (``read``) and closes. Writing never waits; the outlet is the socket's only writer.
    """

    __slots__ = (
        "_ended",
        "_limits",
        "_outlet",
        "_peer",
        "_socket",
        "_splitter",
        "gone",
        "on_break",
        "peer",
        "too_long",
    )

    def __init__(self, sock: GreenSocket, peer: Any, limits: Limits) -> None:
        self.peer = _name(peer)
        self._peer = peer
        self.gone = False  # nobody reads any more what we write
        self.too_long: LineTooLong | None = None  # why nothing more is read
        self.on_break: Callable[[], object] | None = None  # called when that is found out
        self._socket = sock
        self._limits = limits
        self._splitter = LineSplitter(limits.max_line)
        self._ended = False  # nothing more can arrive
        if sock.family in (socket.AF_INET, socket.AF_INET6):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._outlet = Outlet(get_hub().loop, sock.fileno(), self._failed)

    @property
    def origin(self) -> str:
        """What it shares with other connections of the same peer."""
        return origin_of(self._socket, self._peer)

    @property
    def pending(self) -> int:
        """Bytes of a line whose end has not come."""
        return self._splitter.pending

    @property
    def max_line(self) -> int:
        """Bytes that a line may have from now on."""
        return self._splitter.max_line

    @max_line.setter
    def max_line(self, most: int) -> None:
        self._splitter.max_line = most

    @property
    def is_behind(self) -> bool:
        """Whether the peer reads its answers too slowly."""
        return self._outlet.unsent > self._limits.max_unsent // 4

    def read(self) -> list[bytes] | None:
        """The next lines (perhaps none yet); None at the end.

        That is where the peer has shut down its side, where the connection broke (``gone``), or after a line that
        can't be followed (``too_long``).
        """
        self.wait_until_read()
        gevent.sleep(0)  # where more has arrived, reading doesn't wait, and a peer that never pauses would hold the hub
        if self.too_long is not None:
            return None
        try:
            data = self._socket.recv(_CHUNK)
        except OSError:
            self.abort()
            return None
        if not data:
            self._ended = True
            return None
        try:
            return self._splitter.feed(data)
        except LineTooLong as error:
            self.too_long = error
            return list(error.lines)

    def wait_until_read(self) -> None:
        """Let other greenlets run until the peer has caught up."""
        if self.is_behind:
            self._outlet.wait_below(self._limits.max_unsent // 8)

    def send(self, *data: bytes) -> None:
        """Send behind what was sent before. Cuts a peer off that doesn't read."""
        if not self.gone:
            self._outlet.write(*data)
            if self._outlet.unsent > self._limits.max_unsent:
                self.abort()

    def end_reading(self) -> None:
        """Make ``read`` come to its end, after what has arrived already."""
        try:
            self._socket.shutdown(socket.SHUT_RD)
        except OSError:
            pass  # the peer was faster

    def finish(self) -> None:
        """Wait until everything is sent, or the peer is gone or does not read."""
        if self.gone:
            return
        self._outlet.wait_below(0, _FLUSHED_WITHIN)
        if not self._ended:
            # A socket that is closed before what has arrived was read resets the connection, and the peer might never
            # see its last answers. So tell it that they are the last, and forget what it sends until it stops.
            try:
                self._socket.shutdown(socket.SHUT_WR)
                gevent.with_timeout(_LINGERS, self._forget_the_rest, timeout_value=None)
            except OSError:
                pass  # the peer was faster

    def abort(self) -> None:
        """Give the peer up at once."""
        self.gone = True
        self._outlet.close()
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the reader
        except OSError:
            pass
        if self.on_break is not None:
            self.on_break()

    def close(self) -> None:
        """Let go of the socket. The reader calls it."""
        self.gone = True
        self._outlet.close()
        self._socket.close()

    def _forget_the_rest(self) -> None:
        while self._socket.recv(_CHUNK):
            gevent.sleep(0)

    def _failed(self, _error: OSError) -> None:
        self.abort()


def _name(peer: Any) -> str:
    if isinstance(peer, tuple):
        host, port = peer[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    return "unix socket"
