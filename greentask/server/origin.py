"""Where a connection comes from: whether it may, and what it is counted under."""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigurationError

__all__ = ["IPAddress", "Networks", "ip_of", "origin_of"]

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network

_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")  # IPv4 in IPv6's clothes
_SITE = 64  # bits of an IPv6 address that one customer has at least: the rest he chooses as he likes


class Networks:
    """Networks, written ``10.0.0.0/8`` or ``2001:db8::/32``, or as a single address.

    Raises ``ConfigurationError`` for what is none.

    >>> ipaddress.ip_address("10.1.2.3") in Networks(["10.0.0.0/8"])
    True
    """

    def __init__(self, networks: Iterable[str]) -> None:
        self._networks = tuple(_network(text) for text in networks)

    def __contains__(self, ip: IPAddress) -> bool:
        return any(ip in network for network in self._networks)


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


def _network(text: str) -> IPNetwork:
    try:
        network = ipaddress.ip_network(text.strip())
    except ValueError as error:
        raise ConfigurationError(f"{text!r} is no network: write 10.0.0.0/8 or 2001:db8::/32 ({error})") from None
    if network.version == 6 and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        return ipaddress.IPv4Network((int(mapped or 0), network.prefixlen - _MAPPED.prefixlen))
    return network


def _user_of(sock: Any) -> str:
    if not hasattr(socket, "SO_PEERCRED"):
        return "unknown"
    size = struct.calcsize("3i")
    _, user, _ = struct.unpack("3i", sock.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return str(user)
