"""gevent-websocket's server side, made safe to leave open.

gevent-websocket 0.10.1 interleaves frames that two greenlets send, takes messages of any size, doesn't look at where a
page comes from, sends close frames without a code, waits for ever on a peer that doesn't read, and answers some bad
handshakes with a traceback. Here is what is added, on the library's own extension points (a subclass of its handler
and of its WebSocket). The frames themselves (RFC 6455) stay the library's.
"""

from __future__ import annotations

import base64
import binascii
import socket
import struct
from collections.abc import Callable, Iterable
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from geventwebsocket.exceptions import ProtocolError, WebSocketError
from geventwebsocket.handler import WebSocketHandler
from geventwebsocket.websocket import Header, Stream
from geventwebsocket.websocket import WebSocket as BareWebSocket

from ..hub.http import Head, break_off

__all__ = ["DEFAULT_MAX_MESSAGE", "GOING_AWAY", "Handler", "WebSocket"]

#: Bytes. The library unmasks and checks a message in pure Python, which holds the loop: 0.2 s for 1 MiB of text.
DEFAULT_MAX_MESSAGE = 256 * 1024

# Close codes of RFC 6455, section 7.4.1.
NORMAL, GOING_AWAY, PROTOCOL_ERROR, INVALID_DATA, TOO_BIG = 1000, 1001, 1002, 1007, 1009
_REASON_LIMIT = 123  # a control frame's 125 bytes less the code's two

_SEND_WITHIN = 20.0  # seconds that a peer has for taking one frame
_FRAME_COSTS = 16  # bytes of the message's budget: a message of endless empty fragments ends as well
_LINGER = 1.0  # seconds
_SILENT_FOR = 25.0  # seconds of silence after which we ping, and after as many again give up


class WebSocket(BareWebSocket):  # type: ignore[misc]
    """One browser. Any greenlet may send; one receives."""

    closed: bool

    def __init__(self, environ: dict[str, Any], handler: Handler, max_message: int) -> None:
        super().__init__(environ, Stream(handler), handler)
        self.max_message = max_message
        self._socket = handler.socket
        self._lock = BoundedSemaphore(1)  # guards the socket's sending side: a frame goes out whole
        self._budget = max_message
        self._heard = True  # since the last ping

    def receive(self) -> str | bytes | None:
        """The next message; None at the end, whatever its reason."""
        if self.closed:
            return None
        self._budget = self.max_message
        try:
            message = super().receive()
        except WebSocketError:
            return None
        return bytes(message) if isinstance(message, bytearray) else message

    def send(self, message: str | bytes, binary: bool | None = None) -> None:
        """Send a message. Raises ``WebSocketError`` (an ``OSError``) where the browser is gone or doesn't read."""
        super().send(message, isinstance(message, bytes) if binary is None else binary)

    def close(self, code: int = NORMAL, message: bytes | str | None = b"") -> None:
        """Close it with a code and a reason. Does nothing where it is closed."""
        if self.closed:
            return
        reason = message.encode() if isinstance(message, str) else bytes(message or b"")
        try:
            self.send_frame(struct.pack("!H", code) + reason[:_REASON_LIMIT], self.OPCODE_CLOSE)
        except OSError:
            pass  # it is gone, which is as good
        self.closed = True

    def keep_alive(self) -> None:
        """Ping whenever it has been silent, and cut it off when it doesn't answer. To be run in a greenlet."""
        while not self.closed:
            self._heard = False
            gevent.sleep(_SILENT_FOR)
            if not self._heard and not self.closed:
                try:
                    self.send_frame(b"", self.OPCODE_PING)
                except OSError:
                    return
                gevent.sleep(_SILENT_FOR)
                if not self._heard:
                    self.cut_off()

    def linger(self) -> None:
        """After the last message, read on for a moment: a reset would cost the browser the close frame."""
        try:
            self._socket.shutdown(socket.SHUT_WR)
            with gevent.Timeout(_LINGER, False):  # type: ignore[arg-type]
                while self._socket.recv(65536):
                    pass
        except OSError:
            pass  # gone, as it should be

    def cut_off(self) -> None:
        """Give it up, without a word that it wouldn't read."""
        self.closed = True
        try:
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever reads or writes
        except OSError:
            pass

    # ---- The library's extension points

    def send_frame(self, message: str | bytes, opcode: int) -> None:
        if self.closed:
            raise WebSocketError("the connection is closed")
        payload = message.encode() if isinstance(message, str) else bytes(message)
        header = Header.encode_header(True, opcode, b"", len(payload), 0)
        try:
            with gevent.Timeout(_SEND_WITHIN, OSError("the browser does not read")), self._lock:
                self._socket.sendall(header + payload)
        except OSError as error:
            self.cut_off()
            raise WebSocketError(str(error)) from None

    def read_frame(self) -> tuple[Any, bytes]:
        gevent.sleep(0)  # reading doesn't wait while there is something: the others must get their turn
        header = Header.decode_header(self.stream)
        self._heard = True
        self._budget -= _FRAME_COSTS
        if header.flags:
            raise ProtocolError("reserved bits are set")
        if not header.mask:
            raise ProtocolError("frames from a browser are masked (RFC 6455, section 5.1)")
        self._budget -= header.length
        if self._budget < 0:
            self.close(TOO_BIG, f"a message is longer than {self.max_message} bytes")
            raise WebSocketError("the message is too long")
        if not header.length:
            return header, b""
        payload = self.raw_read(header.length)
        if len(payload) != header.length:
            raise WebSocketError("the connection ended within a frame")
        return header, header.unmask_payload(payload)


class Handler(WebSocketHandler):  # type: ignore[misc]
    """Refuses bad handshakes and pages of strangers, and makes the sockets ours. Bounds requests.

    The server carries ``max_message``, ``request_timeout``, ``max_head`` and ``is_welcome(origin, host)``.
    """

    websocket: Any
    _too_late: gevent.Greenlet[..., None] | None = None

    def handle(self) -> None:
        try:
            super().handle()
        except OSError:
            pass  # it is gone, or too late

    def handle_one_request(self) -> Any:
        self._too_late = gevent.spawn_later(self.server.request_timeout, break_off, self.socket)
        try:
            return super().handle_one_request()
        finally:
            self._too_late.kill(block=False)

    def MessageClass(self, file: Any, *more: Any) -> Any:
        return super().MessageClass(Head(file, self.server.max_head), *more)

    def upgrade_websocket(self) -> Any:
        if "HTTP_UPGRADE" in self.environ and (refused := self._refuse()):
            status, reason = refused
            self.start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
            return [reason.encode() + b"\n"]
        return super().upgrade_websocket()

    def upgrade_connection(self) -> Any:
        result = super().upgrade_connection()
        if getattr(self, "websocket", None) is not None:
            self.websocket.closed = True  # the library's own, which would say goodbye when it is collected
            self.websocket = WebSocket(self.environ, self, self.server.max_message)
            self.environ["wsgi.websocket"] = self.websocket
            if self._too_late is not None:
                self._too_late.kill(block=False)  # from now on, its own limits count
        return result

    def _refuse(self) -> tuple[str, str] | None:
        environ = self.environ
        if not self.server.is_welcome(environ.get("HTTP_ORIGIN"), environ.get("HTTP_HOST", "")):
            return "403 Forbidden", "this page's origin may not connect here"
        if environ.get("HTTP_SEC_WEBSOCKET_VERSION") != "13":
            return "400 Bad Request", "only version 13 of the WebSocket protocol is spoken here"
        try:
            key = base64.b64decode(environ.get("HTTP_SEC_WEBSOCKET_KEY", ""), validate=True)
        except (binascii.Error, ValueError):
            key = b""
        return None if len(key) == 16 else ("400 Bad Request", "Sec-WebSocket-Key is not 16 bytes in base64")


def welcome(allowed: Iterable[str], *, loopback: bool) -> Callable[[str | None, str], bool]:
    """Says which pages may connect: those of this very server, and of the ``allowed`` origins.

    A server on loopback is only ever called by a loopback name, so a name that somebody else points here (DNS
    rebinding) is refused. Programs that are no browser send no Origin, and are let in.
    """
    origins = {origin.rstrip("/").lower() for origin in allowed}

    def is_welcome(origin: str | None, host: str) -> bool:
        if loopback and _without_port(host) not in ("localhost", "127.0.0.1", "[::1]"):
            return False
        if origin is None:
            return True
        return origin.lower() in origins or origin.lower().partition("://")[2] == host.lower()

    return is_welcome


def _without_port(host: str) -> str:
    name, colon, port = host.lower().rpartition(":")
    return name if colon and port.isdigit() else host.lower()
