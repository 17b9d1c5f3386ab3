"""Where a connection comes from: what its failures are counted under."""

from __future__ import annotations

import ipaddress
import socket
import struct
from typing import Any

__all__ = ["IPAddress", "ip_of", "origin_of"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address

_SITE = 64  # bits of an IPv6 address that one customer has at least: the rest he chooses as he likes


def ip_of(peer: Any) -> IPAddress | None:
    """The IP address of what ``accept`` named; None for a Unix socket. An IPv4 one that came as IPv6 is IPv4."""
    if not isinstance(peer, tuple):
        return None
    ip = ipaddress.ip_address(peer[0].partition("%")[0])
    return getattr(ip, "ipv4_mapped", None) or ip


def origin_of(sock: Any, peer: Any) -> str:
    """An IPv4 address, an IPv6 network of one site, or the user at the other end of a Unix socket."""
    ip = ip_of(peer)
    if ip is None:
        return f"user {_user_of(sock)}"
    if ip.version == 6:
        return str(ipaddress.IPv6Network((ip, _SITE), strict=False))
    return str(ip)


def _user_of(sock: Any) -> str:
    if not hasattr(socket, "SO_PEERCRED"):
        return "unknown"
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return str(user)
