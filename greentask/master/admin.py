"""How ``greentask reload`` and its like reach a master: an abstract Unix socket that bears its process id.

There is no file to be left behind, or to be written where nothing can be. The kernel says who is at the other end:
only the master's own user may ask, and root.
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Callable, Mapping
from typing import Any

from gevent.server import StreamServer
from gevent.socket import socket as GreenSocket

from .channel import Channel, ChannelError

__all__ = ["AdminServer", "answers", "connect", "socket_name"]

logger = logging.getLogger(__name__)

_CREDENTIALS = struct.Struct("3i")  # process, user, group (unix(7), SO_PEERCRED)


def socket_name(pid: int) -> str:
    """The name of the socket of the master that has this process id where we are.

    Names are one for all in a network, which containers may share (those of a pod do), and each has its process 1.
    """
    try:
        namespace = os.stat("/proc/self/ns/pid").st_ino
    except OSError:  # /proc is not there, or another namespace's
        namespace = 0
    return f"\0greentask-master-{namespace}-{pid}"


def _peer(sock: GreenSocket) -> tuple[int, int]:
    """The process and the user at the other end."""
    pid, user, _ = _CREDENTIALS.unpack(sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size))
    return pid, user


class AdminServer:
    """Answers the questions of those who may ask, from ``start`` to ``close``."""

    def __init__(self, handlers: Mapping[str, Callable[..., Any]]) -> None:
        self._handlers = handlers
        self._server: StreamServer | None = None

    def start(self) -> None:
        """Listen; without the name (anybody on the machine can take it) there are still the signals."""
        sock = GreenSocket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            sock.bind(socket_name(os.getpid()))
        except OSError as error:
            sock.close()
            logger.warning("greentask reload and stop can't reach this server, but signals do: %s", error.strerror)
            return
        sock.listen(16)
        self._server = StreamServer(sock, self._serve)
        self._server.start()

    def close(self) -> None:
        if self._server is not None:
            self._server.close()

    def _serve(self, sock: GreenSocket, _address: Any) -> None:
        pid, user = _peer(sock)
        if user not in (0, os.getuid()):
            logger.warning("process %d of user %d wanted to tell this server what to do, and may not", pid, user)
            return
        Channel(sock, self._handlers).wait_closed()


def answers(pid: int) -> bool:
    """Whether the process of this id is a master of ours that runs."""
    try:
        connect(pid).close()
    except ChannelError:
        return False
    return True


def connect(pid: int) -> Channel:
    """A channel to the master that has this process id. Raises ``ChannelError``."""
    sock = GreenSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.connect(socket_name(pid))
    except OSError:
        sock.close()
        raise ChannelError(f"process {pid} is no greentask server on this machine") from None
    user = _peer(sock)[1]
    if os.getuid() not in (0, user) and user != 0:
        sock.close()
        raise ChannelError(f"process {pid} is not yours but user {user}'s: ask as that user")
    return Channel(sock, {})
