"""TLS under a connection: what leaves through the outlet is encrypted there, what arrives is decrypted as it is read.

The TLS engine itself does no I/O (``ssl.MemoryBIO``), so writing still never waits, and a connection still has one
writer. Belongs to the hub in which it is used. Imported where TLS is used, and not before: gevent can't patch ``ssl``
well once it is in use.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

import gevent
from gevent.socket import socket as GreenSocket

from ..errors import ConfigurationError
from .files import TLSFiles, check_private
from .outlet import Outlet

__all__ = ["TLSOutlet", "TLSSocket", "client_context", "server_context"]

_CHUNK = 64 * 1024


def server_context(files: TLSFiles) -> ssl.SSLContext:
    """For a server. Raises ``ConfigurationError`` naming the file that can't be used."""
    if files.cert is None:
        raise ConfigurationError("a tls:// address needs a certificate: pass --tls-cert and --tls-key")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    _load(context, files)
    if files.ca is not None:
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_context(files: TLSFiles) -> ssl.SSLContext:
    """For a client, which checks the server's name. Raises ``ConfigurationError``."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    if files.ca is None:
        context.load_default_certs()
    _load(context, files)
    return context


def _load(context: ssl.SSLContext, files: TLSFiles) -> None:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if files.key is not None and files.cert is None:
        raise ConfigurationError("a TLS key needs its certificate: pass --tls-cert")
    try:
        if files.key is not None:
            check_private(files.key, os.stat(files.key))
        if files.cert is not None:
            context.load_cert_chain(files.cert, files.key, password=_refuse_password)
        if files.ca is not None:
            context.load_verify_locations(files.ca)
    except OSError as error:  # an SSLError, too
        what = " or ".join(files.paths)
        raise ConfigurationError(f"TLS: {what} can't be used: {error.strerror or error}") from None


def _refuse_password() -> str:
    raise ConfigurationError(
        "TLS: the key is encrypted, and there is nobody to ask for its password: store it in clear"
    )


class TLSSocket:
    """A connected socket with TLS on it, as its reader uses it. Its one writer is the outlet that it makes."""

    def __init__(self, sock: GreenSocket, context: ssl.SSLContext, *, server_name: str | None = None) -> None:
        self.raw = sock
        self.family = sock.family
        self._incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._engine = context.wrap_bio(
            self._incoming, self.outgoing, server_side=server_name is None, server_hostname=server_name
        )
        self._outlet: TLSOutlet | None = None

    def handshake(self, timeout: float) -> None:
        """Agree on keys. Raises ``OSError`` (``ssl.SSLError`` is one), also after ``timeout`` seconds."""
        with gevent.Timeout(timeout, TimeoutError(f"no TLS handshake within {timeout:g} s")):
            while True:
                try:
                    self._engine.do_handshake()
                    break
                except ssl.SSLWantReadError:
                    self._send()
                    self._receive()
                except ssl.SSLError:
                    self._send()  # which tells the other side why
                    raise
            self._send()

    def make_outlet(self, loop: Any, failed: Callable[[OSError], None]) -> Outlet:
        """The outlet through which everything leaves from now on."""
        self._outlet = TLSOutlet(loop, self.raw.fileno(), failed, self)
        return self._outlet

    def encrypt(self, data: bytes) -> None:
        """Put what has to be sent for it into ``outgoing``."""
        self._engine.write(data)

    def recv(self, size: int) -> bytes:
        """What has arrived; waits for something. Nothing at the end, with or without a farewell."""
        while True:
            try:
                data = self._engine.read(size)
            except ssl.SSLWantReadError:
                self._send()  # an answer to what was no data: a change of keys, say
                self._receive()
                continue
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return b""
            self._send()
            return data

    def sendall(self, data: bytes) -> None:
        """Send before there is an outlet, and wait for that."""
        self._engine.write(data)
        self._send()

    def has_input(self) -> bool:
        """Whether something was decrypted, and not read."""
        return self._engine.pending() > 0

    def _receive(self) -> None:
        data = self.raw.recv(_CHUNK)
        if data:
            self._incoming.write(data)
        else:
            self._incoming.write_eof()

    def _send(self) -> None:
        if not self.outgoing.pending:
            return
        if self._outlet is not None:
            self._outlet.write_encrypted()
        else:
            self.raw.sendall(self.outgoing.read())

    # ---- As of any socket

    def fileno(self) -> int:
        return int(self.raw.fileno())

    def setsockopt(self, level: int, option: int, value: int) -> None:
        self.raw.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int, size: int = 0) -> Any:
        return self.raw.getsockopt(level, option, size) if size else self.raw.getsockopt(level, option)

    def getsockname(self) -> Any:
        return self.raw.getsockname()

    def shutdown(self, how: int) -> None:
        """Shut down a side, or both. Ours ends with a farewell, where everything before it has left."""
        if how == socket.SHUT_WR and (self._outlet is None or not self._outlet.unsent):
            try:
                self._engine.unwrap()
            except ssl.SSLError:
                pass  # it wants the other side's farewell as well, which we don't wait for
            try:
                self.raw.send(self.outgoing.read())
            except OSError:
                pass
        self.raw.shutdown(how)

    def close(self) -> None:
        self.raw.close()


class TLSOutlet(Outlet):
    """Encrypts what is written to it, in the order in which it is."""

    __slots__ = ("_tls",)

    def __init__(self, loop: Any, fd: int, failed: Callable[[OSError], None], tls: TLSSocket) -> None:
        super().__init__(loop, fd, failed)
        self._tls = tls

    def write(self, *pieces: bytes) -> None:
        if self._closed:
            return
        try:
            self._tls.encrypt(b"".join(pieces))
        except ssl.SSLError as error:  # what arrived has broken the engine
            self.close()
            self._loop.run_callback(self._failed, error)
        except BaseException:  # a Ctrl-C, and perhaps it is encrypted
            self.write_encrypted()
            raise
        else:
            self.write_encrypted()

    def write_now(self, piece: bytes) -> None:
        self.write(piece)

    def write_encrypted(self) -> None:
        """Send what the TLS engine has encrypted, and what it has to say itself."""
        outgoing = self._tls.outgoing
        taking = map(outgoing.read, (-1,))
        if not self._pending:
            self._have_deque()
        # No call from here to where it is counted, as the loop itself makes this one, in C: what a signal handler took
        # out behind us would be sent before us, and the other side would understand neither.
        size = outgoing.pending
        if self._closed or not size:
            return
        for data in taking:
            pending = self._pending
            pending += (data,)
            self.unsent += size
            break
        self._schedule()

    def mend(self) -> None:
        self.write_encrypted()
        super().mend()
