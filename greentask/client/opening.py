"""How a connection to a server is opened."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from gevent.socket import socket as GreenSocket

from .balance import Target

if TYPE_CHECKING:
    from ssl import SSLContext

    from ..hub.tls import TLSSocket

__all__ = ["Hold", "open_socket"]

#: Told of a socket before it is connected.
Hold = Callable[[GreenSocket], None]


def open_socket(
    target: Target, timeout: float, tls: Callable[[], SSLContext] | None, hold: Hold
) -> GreenSocket | TLSSocket:
    """Connect, with TLS where its address asks for that, which is known of it. Raises ``OSError``."""
    assert target.where is not None
    address, (family, where) = target.address, target.where
    sock = _connect(family, where, timeout, hold)
    if address.scheme == "unix":
        return sock
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    _notice_silence(sock)
    if address.scheme != "tls":
        return sock
    assert tls is not None
    from ..hub.tls import TLSSocket

    try:
        secured = TLSSocket(sock, tls(), server_name=address.host)
        secured.handshake(timeout)
    except BaseException:
        sock.close()
        raise
    return secured


def _connect(family: int, where: Any, timeout: float, hold: Hold) -> GreenSocket:
    sock = GreenSocket(family, socket.SOCK_STREAM)
    try:
        hold(sock)
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
