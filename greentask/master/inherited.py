"""Listening sockets that systemd opened for us: sd_listen_fds(3), ``Sockets=`` of a unit."""

from __future__ import annotations

import os
import socket

from gevent.socket import socket as GreenSocket

from ..errors import ConfigurationError

__all__ = ["inherited_sockets"]

_FIRST = 3  # SD_LISTEN_FDS_START


def inherited_sockets() -> list[GreenSocket]:
    """The sockets that were passed to this process; none where it was not started by socket activation.

    Raises ``ConfigurationError`` for what is no listening stream socket.
    """
    owner, count = os.environ.pop("LISTEN_PID", ""), os.environ.pop("LISTEN_FDS", "")
    os.environ.pop("LISTEN_FDNAMES", None)
    if owner != str(os.getpid()) or not count.isdigit():
        return []
    sockets = []
    for fd in range(_FIRST, _FIRST + int(count)):
        try:
            sock = GreenSocket(fileno=fd)
            listens = sock.type == socket.SOCK_STREAM and sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)
        except OSError:
            listens = False
        if not listens:
            raise ConfigurationError(f"LISTEN_FDS: descriptor {fd} is no listening stream socket: see ListenStream=")
        if sock.family == socket.AF_UNIX and not str(sock.getsockname()).startswith("/"):
            raise ConfigurationError(f"LISTEN_FDS: descriptor {fd} has no path: write ListenStream=/absolute/path")
        sock.setblocking(False)
        os.set_inheritable(fd, False)
        sockets.append(sock)
    return sockets
