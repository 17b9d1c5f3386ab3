"""Where a server can be reached: an IP address is known as such, a name may have several."""

from __future__ import annotations

import socket
from typing import Any

from gevent import monkey
from gevent.socket import getaddrinfo

from ..wire.address import Address

__all__ = ["Where", "look_up", "where_of"]

_blocking_getaddrinfo: Any = monkey.get_original("socket", "getaddrinfo")

#: A family, and what its sockets connect to.
Where = tuple[int, Any]


def where_of(address: Address) -> Where | None:
    """That of an address which is no name: without gevent's threads, and for as long as the client lives."""
    if address.scheme == "unix":
        return socket.AF_UNIX, address.path
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, address.host)
        except OSError:
            continue
        return family, (address.host, address.port)
    return None


def look_up(address: Address) -> list[Where]:
    """Those of a name, each once. Raises ``OSError``, and ``UnicodeError`` where no name can be like that."""
    host, port = address.host, address.port
    try:
        found = getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except RuntimeError:  # gevent can't make its threads at the interpreter's exit; what blocks there holds up nobody
        found = _blocking_getaddrinfo(host, port, type=socket.SOCK_STREAM)
    if not found:
        raise OSError("the name has no address")
    return list(dict.fromkeys((family, where) for family, _, _, _, where in found))
