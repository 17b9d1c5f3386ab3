"""Listening sockets for addresses, with errors that say what to do."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Iterable

from gevent.socket import socket as GreenSocket

from ..errors import ConfigurationError
from ..wire.address import Address

__all__ = ["bound_address", "listen_on"]

_BACKLOG = 1024


def listen_on(addresses: Iterable[Address], *, insecure: bool = False) -> list[GreenSocket]:
    """A listening socket for each address. Raises ``ConfigurationError``; then none is left open."""
    sockets: list[GreenSocket] = []
    try:
        for address in addresses:
            _check(address, insecure=insecure)
            sockets.append(_unix(address) if address.scheme == "unix" else _tcp(address))
    except BaseException:
        for sock in sockets:
            sock.close()
        raise
    return sockets


def bound_address(sock: GreenSocket) -> Address:
    """Where a socket really listens: with the port that the kernel chose, if it was to."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return Address("unix", path=name)
    return Address("tcp", host=name[0], port=name[1])


def _check(address: Address, *, insecure: bool) -> None:
    if address.scheme == "tls":
        raise ConfigurationError(f"{address}: this server speaks no TLS; listen on tcp:// behind a proxy that does")
    if not address.is_loopback and not insecure:
        raise ConfigurationError(
            f"{address} can be reached from other machines, and anybody there could run the tasks: listen on "
            "127.0.0.1, or pass --insecure (insecure=True) to mean it"
        )


def _tcp(address: Address) -> GreenSocket:
    try:
        found = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError as error:
        raise ConfigurationError(f"can't listen on {address}: {error.strerror or error}") from None
    family, kind, protocol, _, where = found[0]
    sock = GreenSocket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(where)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigurationError(f"can't listen on {address}: {_remedy(error, address)}") from None
    return sock


def _unix(address: Address) -> GreenSocket:
    sock = GreenSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale(address.path)
        sock.bind(address.path)
        sock.listen(_BACKLOG)
    except OSError as error:
        sock.close()
        raise ConfigurationError(f"can't listen on {address}: {_remedy(error, address)}") from None
    return sock


def _remove_stale(path: str) -> None:
    """Remove the socket of a server that is gone; leave one that answers, and what is no socket."""
    try:
        if not stat.S_ISSOCK(os.stat(path).st_mode):
            raise OSError(errno.EEXIST, "the file is there, and is no socket")
    except FileNotFoundError:
        return
    probe = GreenSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        probe.settimeout(1.0)
        probe.connect(path)
    except ConnectionRefusedError:
        os.unlink(path)
    except TimeoutError:  # it has too much to do just now
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE)) from None
    else:
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    finally:
        probe.close()


def _remedy(error: OSError, address: Address) -> str:
    remedies = {
        errno.EADDRINUSE: "another program listens there; stop it, or choose another port with --listen",
        errno.EACCES: "permission denied; ports below 1024 need privileges, choose a higher one with --listen",
        errno.EADDRNOTAVAIL: f"this machine has no address {address.host}",
        errno.ENOENT: f"there is no directory {os.path.dirname(address.path)}",
    }
    if address.scheme == "unix":
        remedies[errno.EADDRINUSE] = "a server answers there already; stop it, or choose another path with --listen"
        remedies[errno.EACCES] = "permission denied; choose another path with --listen"
    return remedies.get(error.errno or 0, error.strerror or str(error))
