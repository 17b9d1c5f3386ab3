"""Peers whose machine or network is gone: nothing of them is heard, and no end of their connections either."""

from __future__ import annotations

import socket
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gevent.socket import socket as GreenSocket

    from ..hub.tls import TLSSocket

__all__ = ["ask_after", "silent_for"]

_PROBES = 4  # of the kernel's, in the second half of the time that a peer may be silent
_MOST = 32_767  # seconds that the kernel takes for one of its times
#: Where Linux's ``struct tcp_info`` has the segments that have not been acknowledged, the milliseconds since something
#: last was, and the bytes that wait for the peer to make room.
_UNACKNOWLEDGED, _LAST_HEARD, _NOT_SENT = 24, 56, 144
_INFO: int | None = getattr(socket, "TCP_INFO", None)


def ask_after(sock: GreenSocket | TLSSocket, seconds: float) -> None:
    """Have the kernel ask a silent peer for signs of life, and give it up after so many seconds without any.

    It asks only while nothing is on its way to the peer; for the rest see ``silent_for``.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    pause = min(max(1, int(seconds / 2 / _PROBES)), _MOST)
    idle = min(max(1, int(seconds - pause * _PROBES)), _MOST)
    for option, value in (("TCP_KEEPIDLE", idle), ("TCP_KEEPINTVL", pause), ("TCP_KEEPCNT", _PROBES)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)


def silent_for(sock: GreenSocket | TLSSocket) -> float | None:
    """For how many seconds a peer has not acknowledged what was sent to it; None where there is nothing of that kind.

    Not ``TCP_USER_TIMEOUT``, which also ends a connection whose peer is well and takes its time for reading: such a one
    is asked by the kernel in ever longer pauses, and so is silent in between (0.0).
    """
    info = b"" if _INFO is None else sock.getsockopt(socket.IPPROTO_TCP, _INFO, _NOT_SENT + 4)
    if len(info) < _NOT_SENT + 4:  # another system, or an older one
        return None
    unacknowledged, heard, not_sent = (
        struct.unpack_from("I", info, at)[0] for at in (_UNACKNOWLEDGED, _LAST_HEARD, _NOT_SENT)
    )
    if unacknowledged:
        return float(heard) / 1000
    return 0.0 if not_sent else None
