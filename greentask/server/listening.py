"""Listening sockets: taking addresses, and giving them back.

Whoever calls ``listen_on`` is the binder: it alone removes the files of unix sockets (``socket_files``), and not those
that it hands the sockets to.
"""

from __future__ import annotations

import errno
import grp
import os
import pwd
import re
import socket
import stat
from collections.abc import Iterable
from dataclasses import dataclass

from gevent.socket import socket as GreenSocket

from ..errors import ConfigurationError
from ..hub.files import TLSFiles
from ..wire.address import Address, parse_address

__all__ = [
    "SECRET_REMEDY",
    "SocketFile",
    "bound_address",
    "check_address",
    "check_tls_is_spoken",
    "listen_for_metrics",
    "listen_on",
    "parse_mode",
    "socket_files",
]

#: What else opens an address to other machines, for ``listen_on``.
SECRET_REMEDY = (
    "or have callers prove who they are with --secret-file (secret_file=), or on tls:// with --tls-client-ca, "
)
_BACKLOG = 1024


@dataclass(frozen=True, slots=True)
class SocketFile:
    """The file of a unix socket, and how to know it again."""

    path: str
    device: int
    inode: int
    pid: int  # of the process that bound it

    def remove(self) -> None:
        """Remove it, if it is still the one that this process bound.

        To be called before the socket is closed: until then nobody takes it for a stale one and puts a file of
        their own there, which might get the same inode.
        """
        if self.pid != os.getpid():
            return
        try:
            found = os.lstat(self.path)
            if (found.st_dev, found.st_ino) == (self.device, self.inode):
                os.unlink(self.path)
        except OSError:
            pass  # it is gone already, or the folder is no longer ours to write to


def listen_on(
    addresses: Iterable[Address],
    *,
    insecure: bool = False,
    remedy: str = "",
    tls: TLSFiles | None = None,
    socket_mode: int | None = None,
    socket_owner: str | None = None,
) -> list[GreenSocket]:
    """A listening socket for each address. Raises ``ConfigurationError``; then none is left open.

    insecure
        Also where other machines can call.
    remedy
        What else would do there, for the error: ``"or …, "``.
    tls
        What ``tls://`` addresses have; one where callers must have a certificate may be reached by anybody.
    socket_mode
        Permissions of a unix socket's file; None: what the umask leaves. Whoever may write to it can connect.
    socket_owner
        Whose the file is: ``user``, ``user:group`` or ``:group``, by name or number; None: this process's.
    """
    sockets: list[GreenSocket] = []
    try:
        for address in addresses:
            check_address(address, tls, insecure=insecure, remedy=remedy)
            if address.scheme == "unix":
                sockets.append(_unix(address, socket_mode, _ids(socket_owner or "")))
            else:
                sockets.append(_tcp(address))
    except BaseException:
        for file in socket_files(sockets):
            file.remove()
        for sock in sockets:
            sock.close()
        raise
    return sockets


def listen_for_metrics(text: str, *, insecure: bool = False) -> GreenSocket:
    """A listening socket where metrics are read. Raises ``ConfigurationError``.

    insecure
        Also where other machines can read them.
    """
    address = parse_address(text)
    if address.scheme != "tcp":
        raise ConfigurationError(f"{address}: metrics are read by plain HTTP over TCP: write host:port")
    if not address.is_loopback and not insecure:
        raise ConfigurationError(
            f"{address} can be reached from other machines, and anybody there could read which tasks there are and how "
            "often they are called: have metrics on 127.0.0.1, or pass --insecure (insecure=True) to mean it"
        )
    return _tcp(address, "--metrics")


def socket_files(sockets: Iterable[GreenSocket]) -> list[SocketFile]:
    """The files of the unix sockets among them. To be asked for as soon as they are bound."""
    files = []
    for sock in sockets:
        if sock.family == socket.AF_UNIX:
            path = sock.getsockname()
            try:
                found = os.lstat(path)
            except OSError:
                continue  # somebody was quick to remove it
            files.append(SocketFile(path, found.st_dev, found.st_ino, os.getpid()))
    return files


def parse_mode(text: str) -> int:
    """Permissions in octal. Raises ``ConfigurationError``.

    >>> parse_mode("0660") == 0o660
    True
    """
    if not re.fullmatch("0?[0-7]{3}", text):
        raise ConfigurationError(f"{text!r} is no mode of a socket: write three octal digits, such as 660")
    return int(text, 8)


def bound_address(sock: GreenSocket) -> Address:
    """Where a socket really listens: with the port that the kernel chose, if it was to."""
    name = sock.getsockname()
    if sock.family == socket.AF_UNIX:
        return Address("unix", path=name)
    return Address("tcp", host=name[0], port=name[1])


def check_address(address: Address, tls: TLSFiles | None = None, *, insecure: bool, remedy: str) -> None:
    """Raise ``ConfigurationError`` for one that needs a certificate, or that strangers could reach."""
    if address.scheme == "tls":
        if tls is None or tls.cert is None:
            raise ConfigurationError(f"{address} needs a certificate: pass --tls-cert and --tls-key (tls=TLSFiles(…))")
        insecure = insecure or tls.ca is not None
    if not address.is_loopback and not insecure:
        raise ConfigurationError(
            f"{address} can be reached from other machines, and anybody there could run the tasks: listen on "
            f"127.0.0.1, {remedy}or pass --insecure (insecure=True) to mean it"
        )


def check_tls_is_spoken(addresses: Iterable[Address], tls: TLSFiles | None) -> None:
    """Raise ``ConfigurationError`` where there is a certificate, and no address on which it would be shown.

    Whoever gives one means to be encrypted; he would never notice that he isn't.
    """
    addresses = list(addresses)
    if tls is not None and not any(address.scheme == "tls" for address in addresses):
        raise ConfigurationError(
            f"TLS is spoken on tls:// addresses only, and {', '.join(map(str, addresses))} is none: write "
            "--listen tls://host:port, or leave out --tls-cert, --tls-key and --tls-client-ca (tls=)"
        )


def _tcp(address: Address, flag: str = "--listen") -> GreenSocket:
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
        raise ConfigurationError(f"can't listen on {address}: {_remedy(error, address, flag)}") from None
    return sock


def _unix(address: Address, mode: int | None, owner: tuple[int, int]) -> GreenSocket:
    sock = GreenSocket(socket.AF_UNIX, socket.SOCK_STREAM)
    bound: list[SocketFile] = []
    try:
        _remove_stale(address.path)
        # It has its mode from the beginning, and its owner before anybody can connect, for that is from listen on.
        if mode is None:
            sock.bind(address.path)
        else:
            before = os.umask(0o777 & ~mode)
            try:
                sock.bind(address.path)
            finally:
                os.umask(before)
        bound = socket_files([sock])
        if owner != (-1, -1):
            os.chown(address.path, *owner, follow_symlinks=False)
        sock.listen(_BACKLOG)
    except OSError as error:
        for file in bound:
            file.remove()
        sock.close()
        why = (
            "only root can give a file to somebody else; leave --socket-owner out" if bound else _remedy(error, address)
        )
        raise ConfigurationError(f"can't listen on {address}: {why}") from None
    return sock


def _ids(owner: str) -> tuple[int, int]:
    """The numbers of a user and of a group; -1: as it is."""
    user, _, group = owner.partition(":")
    try:
        return (
            int(user or -1) if user.isdecimal() or not user else pwd.getpwnam(user).pw_uid,
            int(group or -1) if group.isdecimal() or not group else grp.getgrnam(group).gr_gid,
        )
    except KeyError:
        raise ConfigurationError(
            f"{owner!r} is no owner of a socket: there is no such user or group; write user, user:group or :group"
        ) from None


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


def _remedy(error: OSError, address: Address, flag: str = "--listen") -> str:
    remedies = {
        errno.EADDRINUSE: f"another program listens there; stop it, or choose another port ({flag})",
        errno.EACCES: f"permission denied; ports below 1024 need privileges, choose a higher one ({flag})",
        errno.EADDRNOTAVAIL: f"this machine has no address {address.host}",
        errno.ENOENT: f"there is no directory {os.path.dirname(address.path)}",
    }
    if address.scheme == "unix":
        remedies[errno.EADDRINUSE] = "a server answers there already; stop it, or choose another path (--listen)"
        remedies[errno.EACCES] = "permission denied; choose another path (--listen)"
        remedies[errno.EPERM] = "only root can give a file to somebody else; leave --socket-owner out"
    return remedies.get(error.errno or 0, error.strerror or str(error))
