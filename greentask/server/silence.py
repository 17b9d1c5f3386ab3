"""Peers whose machine or network is gone: nothing of them is heard, and no end of their connections either.

And how much of what was sent to a peer is still on its way.
"""

from __future__ import annotations

import fcntl
import math
import socket
import struct
import termios
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gevent.socket import socket as GreenSocket

    from ..hub.tls import TLSSocket

__all__ = ["Silence", "ask_after", "on_its_way"]

_PROBES = 4  # of the kernel's, in the second half of the time that a peer may be silent
_MOST = 32_767  # seconds that the kernel takes for one of its times
#: Where Linux's ``struct tcp_info`` has how often in a row a peer without room was asked for some in vain, the segments
#: that have not been acknowledged, the milliseconds since something last was, and the bytes that wait for room.
_PROBED, _UNACKNOWLEDGED, _LAST_HEARD, _NOT_SENT = 3, 24, 56, 144
_INFO: int | None = getattr(socket, "TCP_INFO", None)


def ask_after(sock: GreenSocket | TLSSocket, seconds: float) -> None:
    """Have the kernel ask a silent peer for signs of life, and give it up after so many seconds without any.

    It asks only while nothing is on its way to the peer; for the rest see ``Silence``.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    pause = min(max(1, int(seconds / 2 / _PROBES)), _MOST)
    idle = min(max(1, int(seconds - pause * _PROBES)), _MOST)
    for option, value in (("TCP_KEEPIDLE", idle), ("TCP_KEEPINTVL", pause), ("TCP_KEEPCNT", _PROBES)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def on_its_way(sock: GreenSocket | TLSSocket) -> int:
    """Bytes that were written, and are not with the peer's machine; 0 where nobody knows.

    The kernel takes megabytes, and takes more only when a third of them has left: of a peer that reads 100 KB a second
    nothing could be seen for ten seconds and more, if what it has read were what was written.
    """
    try:
        told = fcntl.ioctl(sock.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # it is closed, or another system
        return 0
    return int(struct.unpack("i", told)[0])


class Silence:
    """Of one peer, looked at now and then.

    Not ``TCP_USER_TIMEOUT``, which also ends a connection whose peer is well and takes its time for reading. Such a one
    is asked by the kernel for room in pauses that grow to two minutes, and is silent in between: then it counts from
    when it was seen to be asked, and gave no answer.
    """

    __slots__ = ("_asked_at",)

    def __init__(self) -> None:
        self._asked_at = math.inf  # when it was first seen to owe an answer, on the monotonic clock

    def of(self, sock: GreenSocket | TLSSocket, now: float) -> float | None:
        """For how many seconds it has not answered for what was sent to it; None where nothing is on its way."""
        info = b"" if _INFO is None else sock.getsockopt(socket.IPPROTO_TCP, _INFO, _NOT_SENT + 4)
        if len(info) < _NOT_SENT + 4:  # another system, or an older one
            return None
        unacknowledged, heard, not_sent = (
            struct.unpack_from("I", info, at)[0] for at in (_UNACKNOWLEDGED, _LAST_HEARD, _NOT_SENT)
        )
        silent = float(heard) / 1000
        if unacknowledged:
            return silent
        if not info[_PROBED]:
            self._asked_at = math.inf
            return 0.0 if not_sent else None
        if not now - silent < self._asked_at <= now:  # it has answered since, or is asked for the first time
            self._asked_at = now
        return now - self._asked_at
