"""Listening sockets that systemd opened for us: sd_listen_fds(3), ``Sockets=`` of a unit."""

from __future__ import annotations

import os
import socket
from dataclasses import replace
from itertools import zip_longest

from gevent.socket import socket as GreenSocket

from ..errors import ConfigurationError
from ..server.listening import bound_address
from ..wire.address import Address

__all__ = ["inherited_sockets"]

_FIRST = 3  # SD_LISTEN_FDS_START
_TLS = "tls"  # the name of those on which TLS is to be spoken


def inherited_sockets() -> list[tuple[GreenSocket, Address]]:
    """The sockets that were passed to this process, and where they listen; none where nobody has passed any.

    TLS is spoken on those that their unit calls ``tls`` (``FileDescriptorName=``). Raises ``ConfigurationError`` for
    what is no listening stream socket.
    """
    owner, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(":")
    if owner != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for fd, name in zip_longest(range(_FIRST, _FIRST + int(count)), names[: int(count)]):
        try:
            sock = GreenSocket(fileno=fd)
            listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            listens = False
        if not listens:
            raise ConfigurationError(f"LISTEN_FDS: descriptor {fd} is no listening stream socket: see ListenStream=")
        if sock.family == socket.AF_UNIX and not str(sock.getsockname()).startswith("/"):
            raise ConfigurationError(f"LISTEN_FDS: descriptor {fd} has no path: write ListenStream=/absolute/path")
        address = bound_address(sock)
        if name == _TLS:
            if address.scheme == "unix":
                raise ConfigurationError(f"LISTEN_FDS: {address} is named tls, which is not spoken on unix sockets")
            address = replace(address, scheme=_TLS)
        sock.setblocking(False)
        os.set_inheritable(fd, False)
        sockets.append((sock, address))
    return sockets
