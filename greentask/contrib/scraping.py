"""A page over HTTP for those who scrape: small, bounded in all, and made piece by piece, so that it holds up no calls.

Each connection is asked once and closed: whoever is silent, or reads slowly, is so for ``request_timeout`` at most.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import gevent
from gevent.lock import BoundedSemaphore
from gevent.pool import Pool
from gevent.pywsgi import WSGIHandler, WSGIServer
from gevent.socket import socket as GreenSocket

from ..hub.http import DEFAULT_MAX_HEAD, Head, break_off, check_limits
from ..server.listening import bound_address

__all__ = ["DEFAULT_CONNECTIONS", "DEFAULT_MAX_HEAD", "DEFAULT_REQUEST", "ScrapeServer"]

logger = logging.getLogger(__name__)

DEFAULT_CONNECTIONS = 8
#: Seconds that one connection has in all, which is how long Prometheus waits by default.
DEFAULT_REQUEST = 10.0
_TURN = 1e-9  # seconds: everybody who is ready gets a turn
_CLOSE_WITHIN = 1.0  # seconds


class ScrapeServer:
    """Serves one page on a listening socket, which is its own from now on.

    path
        Where the page is.
    kind
        Its Content-Type.
    page
        Makes it, in pieces; between two of them everybody else is served. One page is made at a time.
    max_connections
        At once; further ones wait in the kernel's queue.
    request_timeout
        Seconds that a connection has in all.
    max_head
        Bytes of a request's head; a longer one is answered with 400.
    """

    def __init__(
        self,
        sock: GreenSocket,
        path: str,
        kind: str,
        page: Callable[[], Iterator[bytes]],
        *,
        max_connections: int = DEFAULT_CONNECTIONS,
        request_timeout: float = DEFAULT_REQUEST,
        max_head: int = DEFAULT_MAX_HEAD,
    ) -> None:
        check_limits(max_connections=max_connections, request_timeout=request_timeout, max_head=max_head)
        self._path = path
        self._kind = kind
        self._page = page
        self._making = BoundedSemaphore()  # guards nothing: it keeps two pages from being made at once
        address = bound_address(sock)
        self.address = str(address).partition("://")[2]
        self._server = _Server(
            sock,
            self._application,
            spawn=Pool(max_connections),
            handler_class=_Handler,
            log=None,
            error_log=None,  # what strangers send is no news
            environ={"SERVER_NAME": address.host, "SERVER_PORT": str(address.port)},  # or they are asked of the DNS
        )
        self._server.request_timeout, self._server.max_head = request_timeout, max_head

    def start(self) -> None:
        """Serve from now on."""
        self._server.start()

    def stop(self) -> None:
        """Take nobody more; those who are there have a second."""
        self._server.stop(_CLOSE_WITHIN)

    def _application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        def answer(status: str, kind: str, body: list[bytes]) -> list[bytes]:
            length = str(sum(map(len, body)))
            headers = [("Content-Type", kind), ("Content-Length", length), ("X-Content-Type-Options", "nosniff")]
            start_response(status, [*headers, ("Cache-Control", "no-store"), ("Connection", "close")])
            return body if environ["REQUEST_METHOD"] != "HEAD" else []

        plain = "text/plain; charset=utf-8"
        if environ["PATH_INFO"] != self._path:
            return answer("404 Not Found", plain, [f"nothing here but {self._path}\n".encode()])
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return answer("405 Method Not Allowed", plain, [b"only GET here\n"])
        try:
            with self._making:
                body = [*self._pieces()]
        except Exception as error:
            logger.warning("%s can't be answered just now: %s: %s", self._path, type(error).__name__, error)
            return answer("503 Service Unavailable", plain, [b"not just now: see the log\n"])
        return answer("200 OK", self._kind, body)

    def _pieces(self) -> Iterator[bytes]:
        for piece in self._page():
            yield piece
            gevent.sleep(_TURN)


class _Server(WSGIServer):
    """With what the handler asks it for."""

    request_timeout: float
    max_head: int


class _Handler(WSGIHandler):
    """One connection: one request, of a bounded size, within a bounded time."""

    server: _Server

    def __init__(self, sock: GreenSocket, address: Any, server: _Server) -> None:
        super().__init__(sock, address, server)
        self.rfile = Head(self.rfile, server.max_head)  # type: ignore[assignment]

    def handle(self) -> None:
        too_late = gevent.spawn_later(self.server.request_timeout, break_off, self.socket)
        try:
            super().handle()
        except OSError:
            pass  # it is gone, or too late
        finally:
            too_late.kill(block=False)

    def handle_error(self, t: Any, v: Any, tb: Any) -> None:
        if issubclass(t, OSError):  # it is gone, or too late, which is nothing to tell of
            self.close_connection = True
        else:
            super().handle_error(t, v, tb)

    def read_request(self, raw_requestline: str) -> Any:
        done = super().read_request(raw_requestline)
        self.close_connection = True
        return done
