"""Accepts connections of lines on some addresses: what ``Server`` and ``TextServer`` share."""

from __future__ import annotations

import contextlib
import errno
import logging
import select
import socket
import time
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import gevent
from gevent.monkey import get_original
from gevent.pool import Pool as GreenletPool
from gevent.server import StreamServer
from gevent.socket import socket as GreenSocket

from ..hub.files import Renewed, TLSFiles
from ..pool.linux import give_memory_back
from ..wire.address import Address, parse_addresses
from .connection import LineConnection
from .held import Crowd
from .limits import Limits
from .listening import SocketFile, bound_address, check_tls_is_spoken, listen_on, socket_files
from .origin import Networks, ip_of, origin_of
from .shares import Shares

if TYPE_CHECKING:
    from ssl import SSLContext

    from ..hub.tls import TLSSocket

__all__ = ["Acceptor"]

logger = logging.getLogger(__name__)

_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
_MANY = 1_000  # connections whose memory is worth to be given back, once they are closed
_PAUSE = 0.5  # seconds until the next try
_LEFT_TO_OTHERS = 0.002  # seconds for which a connection is left to a front that has fewer
_TOLD_EVERY = 60.0  # seconds
_SPARED = 10.0  # seconds: who has been idle for less keeps its place
_CLOSED_FOR = {  # limits past which a connection is closed, and that is told
    "max_line": "a line of it was too long",
    "max_unsent": "it did not read what it was sent",
    "read_timeout": "it did not read what it was sent",
    "dead_after": "its machine or network gave no sign of life",
}
_TURN = 2.0  # seconds between looks at the age of connections
_SLICE = 100  # connections that grow older before other greenlets have a turn


class Acceptor:
    """Runs ``serve(connection)`` in a greenlet for each connection, and closes it after that.

    ``open`` holds the connections that are being served, ``refused`` counts those past the limit of their address,
    ``late`` those that were closed for a line that took too long, ``crowd.closed`` those that held too much,
    ``failed_handshakes`` those that could not agree on TLS, ``past`` those that were closed for other limits, by name.

    While there are any, one greenlet lets all of them grow older, every two seconds, or every tenth of the shortest
    time limit: by so much later a limit may be noticed.
    """

    def __init__(
        self,
        listen: str | Iterable[str],
        serve: Callable[[LineConnection], None],
        limits: Limits,
        *,
        insecure: bool = False,
        remedy: str = "",
        sockets: Iterable[GreenSocket] | None = None,
        socket_mode: int | None = None,
        socket_owner: str | None = None,
        allow: Iterable[str] = (),
        tls: TLSFiles | None = None,
        shares: Shares | None = None,
    ) -> None:
        self.limits = limits
        self.not_allowed = 0  # connections that were closed at once
        self.open: set[LineConnection] = set()
        self.crowd = Crowd(limits, self.open)
        self.refused = 0
        self.late = 0
        self.failed_handshakes = 0
        self.past = dict.fromkeys((*_CLOSED_FOR, "idle_timeout", "max_connections"), 0)
        self._listen = parse_addresses(listen)
        self._insecure = insecure
        self._remedy = remedy
        self._socket_mode = socket_mode
        self._socket_owner = socket_owner
        networks = [allow] if isinstance(allow, str) else list(allow)
        self._allowed = Networks(networks) if networks else None
        self._serve = serve
        self._tls = tls
        self._shares = shares
        self._context: Renewed[SSLContext] | None = None
        self._shaking: set[GreenSocket] = set()  # on which a TLS handshake is under way
        self._given = None if sockets is None else list(sockets)
        self._sockets: list[GreenSocket] = []
        self._files: list[SocketFile] = []
        self._servers: list[_Listener] = []
        self._greenlets = GreenletPool(limits.max_connections)
        self._origins: Counter[str] = Counter()  # where the open ones come from, if that is limited
        times = (limits.line_timeout, limits.idle_timeout, limits.dead_after, limits.read_timeout)
        self._turn = max(0.05, min(_TURN, *(0.1 * time or _TURN for time in times)))
        self._ageing: gevent.Greenlet[[], None] | None = None
        self._went_past = self._count_past  # one for all of them
        self._told: dict[str, float] = {}  # when a warning was last given

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, with the ports that the kernel chose."""
        return [
            replace(bound_address(sock), scheme=address.scheme) for address, sock in zip(self._listen, self._sockets)
        ]

    def bind(self) -> None:
        """Take the addresses: from now on the kernel queues connections.

        Raises ``ConfigurationError``, also for a certificate that can't be used; then none is taken.
        """
        if self._tls is not None and any(address.scheme == "tls" for address in self._listen):
            self._tls_context()  # or it raises now, and not when task processes have been started
        if self._given is None:
            check_tls_is_spoken(self._listen, self._tls)
            self._sockets = listen_on(
                self._listen,
                tls=self._tls,
                insecure=self._insecure,
                remedy=self._remedy,
                socket_mode=self._socket_mode,
                socket_owner=self._socket_owner,
            )
            self._files = socket_files(self._sockets)
        else:
            self._sockets = self._given

    def start(self) -> None:
        """Serve."""
        if self._shares is not None:
            self._shares.enter()
        for address, sock in zip(self._listen, self._sockets):
            context = self._tls_context() if address.scheme == "tls" else None
            server = _Listener(sock, partial(self._accepted, context), spawn=self._greenlets)
            server.warn = self._warn
            if self._allowed is not None and sock.family != socket.AF_UNIX:
                server.takes = self._takes
            if self._shares is not None:
                server.is_ahead = self._is_ahead
            server.start()
            self._servers.append(server)

    def close(self) -> None:
        """Accept nothing more; the connections go on."""
        if self._shares is not None:
            self._shares.leave()
        while self._files:
            self._files.pop().remove()
        for server in self._servers:
            server.close()
        for sock in self._sockets:
            sock.close()
        self._sockets.clear()
        for sock in self._shaking:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)

    def is_serving(self, greenlet: object) -> bool:
        """Whether this is the greenlet of a connection."""
        return any(one is greenlet for one in self._greenlets)

    def join(self, timeout: float) -> bool:
        """Wait until every connection is closed; after ``timeout`` seconds cut off what is left, and say False."""
        ended: bool = self._greenlets.join(timeout)
        if not ended:
            for connection in list(self.open):
                connection.abort()
            self._greenlets.kill(timeout=1.0)
        return ended

    def _is_ahead(self) -> bool:
        """Whether another front has fewer connections than this one."""
        return self._shares is not None and self._shares.is_ahead(len(self._greenlets))

    def _tell(self, connections: int) -> None:
        if self._shares is not None:
            self._shares.tell(connections)

    def _takes(self, peer: Any) -> bool:
        ip = ip_of(peer)
        if self._allowed is None or ip is None or ip in self._allowed:
            return True
        self.not_allowed += 1
        told = "the connection from %s is closed, for its address is not allowed (%d so far; told once a minute)"
        self._warn(told, ip, self.not_allowed)
        return False

    def _tls_context(self) -> Renewed[SSLContext]:
        from ..hub.tls import server_context

        files = self._tls or TLSFiles()
        if self._context is None:
            self._context = Renewed(files.paths, partial(server_context, files))
        return self._context

    def _secure(self, context: Renewed[SSLContext], sock: GreenSocket, peer: Any) -> TLSSocket | None:
        from ..hub.tls import TLSSocket

        secured = TLSSocket(sock, context.get())
        self._shaking.add(sock)
        try:
            secured.handshake(self.limits.handshake_timeout)
        except OSError as error:
            self.failed_handshakes += 1
            self._warn("the TLS handshake with %s failed (told once a minute): %s", ip_of(peer), error)
            return None
        finally:
            self._shaking.discard(sock)
        return secured

    def _accepted(self, context: Renewed[SSLContext] | None, sock: GreenSocket, peer: Any) -> None:
        most = self.limits.max_connections_per_address
        origin = origin_of(sock, peer) if most and ip_of(peer) else None
        if origin is None:
            self._take(context, sock, peer)
            return
        if self._origins[origin] >= most:
            sock.close()
            self.refused += 1
            told = "connections from %s are refused: it has %d, and more are not taken (max_connections_per_address)"
            self._warn(told, origin, most)
            return
        self._origins[origin] += 1
        try:
            self._take(context, sock, peer)
        finally:
            self._origins[origin] -= 1
            if not self._origins[origin]:
                del self._origins[origin]

    def _take(self, context: Renewed[SSLContext] | None, sock: GreenSocket, peer: Any) -> None:
        secured = sock if context is None else self._secure(context, sock, peer)
        if secured is None:
            sock.close()
            return
        connection = LineConnection(secured, peer, self.limits, self.crowd.grew, self._went_past)
        self.open.add(connection)
        self._tell(len(self._greenlets))
        if self._ageing is None:
            self._ageing = gevent.spawn(self._let_age)
        try:
            self._serve(connection)
        finally:
            self.open.discard(connection)
            connection.close()
            self._tell(len(self._greenlets) - 1)

    def _count_past(self, limit: str, peer: str) -> None:
        if limit not in self.past:
            return
        self.past[limit] += 1
        if limit in _CLOSED_FOR:
            told = (
                f"the connection from %s is closed, for {_CLOSED_FOR[limit]} ({limit}; %d so far, told once a minute)"
            )
            self._warn(told, peer, self.past[limit])

    def _let_age(self) -> None:
        most, crowded = 0, self.crowd.closed
        try:
            while self.open:
                gevent.sleep(self._turn)
                most = max(most, len(self.open))
                if most - len(self.open) >= _MANY:
                    most = len(self.open)
                    give_memory_back()
                late = self._age_all()  # in a function of its own, which keeps no connection while we sleep
                if late:
                    self.late += late
                    self._warn("lines took too long (line_timeout), and their connections are closed: %d", late)
                self._make_room()
                self.crowd.look()
                if self.crowd.closed > crowded:
                    crowded = self.crowd.closed
                    told = (
                        "connections together hold too much (max_held): some are closed (%d so far; told once a minute)"
                    )
                    self._warn(told, crowded)
        finally:
            self._ageing = None

    def _age_all(self) -> int:
        """Let all of them grow older; how many lines took too long."""
        late = 0
        for number, connection in enumerate(list(self.open)):
            if number % _SLICE == _SLICE - 1:
                gevent.sleep(0)
            late += not connection.gone and connection.grow_older(self._turn)
        return late

    def _make_room(self) -> None:
        """Where others wait for a place, let those go that have been idle for longest, a tenth of all at most."""
        if not any(server.keeps_waiting() for server in self._servers):
            return
        idle = sorted((one for one in self.open if one.idle >= _SPARED), key=lambda one: one.idle, reverse=True)
        for connection in idle[: len(self.open) // 10 + 1]:
            connection.end_idle("max_connections")
        if idle:
            self._warn("others wait for a place (%d connections are open): idle ones are closed", len(self.open))

    def _warn(self, message: str, *values: object) -> None:
        """Log a warning that may come often, and is given once a minute."""
        now = time.monotonic()
        if now - self._told.get(message, -_TOLD_EVERY) >= _TOLD_EVERY:
            self._told[message] = now
            logger.warning(message, *values)


class _Listener(StreamServer):
    """gevent's, which by itself shows a traceback for each connection that can't be accepted."""

    max_accept = 10  # at once: whoever brings thousands of connections doesn't hold up those that are there
    warn: Callable[..., None]
    takes: Callable[[Any], bool] | None = None  # whether a peer is to be heard at all
    is_ahead: Callable[[], bool] | None = None  # of other fronts
    _lacks = False  # descriptors or memory

    def do_handle(self, *args: Any) -> None:
        sock, peer = args
        if self.takes is None or self.takes(peer):
            super().do_handle(sock, peer)
        else:
            sock.close()

    def do_read(self) -> Any:
        if self.is_ahead is None or not self.is_ahead():
            return self._read_one()
        self.stop_accepting()
        self._timer = self.loop.timer(_LEFT_TO_OTHERS)  # which stop_accepting closes
        self._timer.start(self._take_what_is_left)
        return None

    def _read_one(self) -> Any:
        try:
            return super().do_read()
        except OSError as error:
            if error.errno not in _EXHAUSTED:
                raise
            self.warn("no more connections can be accepted for now: %s", error.strerror)
            self._lacks = True
            self.stop_accepting()
            gevent.spawn_later(_PAUSE, self._go_on)
            return None

    def keeps_waiting(self) -> bool:
        """Whether somebody wants to be accepted, and can't be."""
        if not (self.started and (self._lacks or self.full())):
            return False
        kernel = get_original("select", "poll")()
        kernel.register(self.socket.fileno(), select.POLLIN)
        return bool(kernel.poll(0))

    def _take_what_is_left(self) -> None:
        if not self.started:
            return
        self.start_accepting()
        for _ in range(self.max_accept):
            accepted = None if self.full() else self._read_one()
            if accepted is None:
                break
            self.do_handle(*accepted)

    def _go_on(self) -> None:
        self._lacks = False
        if self.started:
            self.start_accepting()
