"""``Gateway``: browsers call tasks through a WebSocket, hear how far they are, and are told when they are done."""

from __future__ import annotations

import importlib.resources
import logging
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event
from gevent.pool import Group, Pool
from gevent.pywsgi import WSGIServer

from ..client import Client
from ..errors import CallError, Overloaded, TaskError, UnknownTask, describe, refusal
from ..hub.http import DEFAULT_MAX_HEAD, check_limits
from ..hub.signals import stop_at_signals
from ..server.listening import SocketFile, bound_address, listen_on, socket_files
from ..wire.address import Address, parse_address
from ..wire.json import DEEPEST, dumps
from ..wire.message import BadRequest, Call, Id, decode_request
from .websocket import DEFAULT_MAX_MESSAGE, GOING_AWAY, Handler, WebSocket, welcome

__all__ = ["DEFAULT_LISTEN", "Gateway"]

logger = logging.getLogger(__name__)

DEFAULT_LISTEN = "127.0.0.1:8080"
#: Seconds that calls have for ending when the gateway stops.
DEFAULT_DRAIN = 10.0
DEFAULT_MAX_CONNECTIONS = 10_000
#: Seconds that an HTTP request has.
DEFAULT_REQUEST = 30.0
_GOODBYE_WITHIN = 1.0  # seconds: a browser that doesn't read takes no goodbye either
_PING = "greentask.ping"


class Gateway:
    """A WebSocket service in front of a task server.

    A browser sends ``{"id": 1, "function": "send_mail", "args": {...}}``, as on the wire; it hears
    ``{"id": 1, "progress": {...}}`` and at the end ``{"id": 1, "result": ..., "message": "tâche terminée"}`` or
    ``{"id": 1, "error": {...}}``. While a task runs, everybody else is served.

    client
        Carries the calls.
    tasks
        The names that browsers may call, besides ``greentask.ping``.
    listen
        Where: host and port; port 0 lets the kernel choose.
    page
        The HTML file that is served at ``/``. It may use ``/greentask.js``.
    done
        The message that comes with a result.
    max_message
        Bytes of one message from a browser; a longer one closes the connection (code 1009).
    max_in_flight
        Calls in flight for one browser; a further one is refused with ``Overloaded``.
    max_connections
        Browsers' connections at once; further ones wait in the kernel's queue until one is closed.
    request_timeout
        Seconds that an HTTP request has for arriving, the one that opens a WebSocket as well, and its answer for being
        read. A connection that asks for nothing more is closed after as many.
    max_head
        Bytes of a request's head; a longer one is answered with 400.
    origins
        Origins (``https://shop.example``) of pages that may connect, besides the gateway's own.
    insecure
        Listen on an address that other machines can reach.
    """

    def __init__(
        self,
        client: Client,
        tasks: Iterable[str],
        listen: str = DEFAULT_LISTEN,
        *,
        page: str | Path | None = None,
        done: str = "tâche terminée",
        max_message: int = DEFAULT_MAX_MESSAGE,
        max_in_flight: int = 32,
        max_connections: int = DEFAULT_MAX_CONNECTIONS,
        request_timeout: float = DEFAULT_REQUEST,
        max_head: int = DEFAULT_MAX_HEAD,
        origins: Iterable[str] = (),
        insecure: bool = False,
    ) -> None:
        self.client = client
        self.tasks = frozenset(tasks) | {_PING}
        self._listen = parse_address(listen)
        self._done = done
        self._max_message = max_message
        self._max_in_flight = max_in_flight
        check_limits(max_connections=max_connections, request_timeout=request_timeout, max_head=max_head)
        self._max_connections = max_connections
        self._request_timeout = request_timeout
        self._max_head = max_head
        self._origins = tuple(origins)
        self._insecure = insecure
        self._files = {"/greentask.js": ("text/javascript; charset=utf-8", _own_script())}
        if page is not None:
            self._files["/"] = ("text/html; charset=utf-8", Path(page).read_bytes())
        self._server: _Server | None = None
        self._address: Address | None = None
        self._socket_files: list[SocketFile] = []
        self._open: set[WebSocket] = set()
        self._calls = Group()
        self._stopped = Event()

    @property
    def url(self) -> str:
        """Where a browser finds it."""
        assert self._address is not None, "it has not been started"
        return f"http://{str(self._address).partition('://')[2]}/"

    def start(self) -> None:
        """Listen. Raises ``ConfigurationError`` where that can't be."""
        (sock,) = listen_on([self._listen], insecure=self._insecure)
        self._socket_files = socket_files([sock])
        self._address = bound_address(sock)
        self._server = _Server(
            sock,
            self._application,
            spawn=Pool(self._max_connections),
            handler_class=Handler,
            log=None,
            error_log=logger,
            # Or gevent asks the DNS for our name, which may take it seconds.
            environ={"SERVER_NAME": self._address.host, "SERVER_PORT": str(self._address.port)},
        )
        self._server.max_message = self._max_message
        self._server.request_timeout, self._server.max_head = self._request_timeout, self._max_head
        self._server.is_welcome = welcome(self._origins, loopback=self._listen.is_loopback)
        self._server.start()

    def serve_forever(self) -> None:
        """Start (unless that was done), and serve until SIGTERM, SIGINT or ``stop``. For the main thread."""
        if self._server is None:
            self.start()
        with stop_at_signals(self.stop, DEFAULT_DRAIN):
            self._stopped.wait()

    def stop(self, drain: float = DEFAULT_DRAIN) -> None:
        """Accept nobody more, let the calls in flight end for ``drain`` seconds, and say goodbye to the browsers."""
        if self._server is not None:
            while self._socket_files:
                self._socket_files.pop().remove()
            self._server.close()
            self._calls.join(drain)
            goodbyes = [gevent.spawn(one.close, GOING_AWAY, "the service is going away") for one in self._open]
            gevent.joinall(goodbyes, timeout=_GOODBYE_WITHIN)
            gevent.killall(goodbyes, block=False)
            self._server.stop(timeout=1.0)
        self._stopped.set()

    # ---- HTTP

    def _application(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        websocket = environ.get("wsgi.websocket")
        if websocket is not None:
            self._serve(websocket)
            return []
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _plain(start_response, "405 Method Not Allowed", "only GET here")
        kind, body = self._files.get(environ["PATH_INFO"], ("", b""))
        if not kind:
            return _plain(start_response, "404 Not Found", "nothing here")
        headers = [("Content-Type", kind), ("Content-Length", str(len(body))), ("X-Content-Type-Options", "nosniff")]
        start_response("200 OK", [*headers, ("X-Frame-Options", "DENY"), ("Cache-Control", "no-cache")])
        return [body] if environ["REQUEST_METHOD"] == "GET" else []

    # ---- WebSocket

    def _serve(self, websocket: WebSocket) -> None:
        self._open.add(websocket)
        keeper = gevent.spawn(websocket.keep_alive)
        mine = Group()
        try:
            while (message := websocket.receive()) is not None:
                if len(mine) >= self._max_in_flight:
                    # Here, so that a browser that sends on and doesn't read waits for its own answers.
                    self._answer(websocket, message, too_many=True)
                else:
                    self._calls.add(mine.spawn(self._answer, websocket, message, too_many=False))
            websocket.linger()
        finally:
            keeper.kill(block=False)
            self._open.discard(websocket)

    def _answer(self, websocket: WebSocket, message: str | bytes, *, too_many: bool) -> None:
        try:
            id: Id | None = None
            try:
                call = self._decode(message)
                id = call.id
                if too_many:
                    raise Overloaded(f"{self._max_in_flight} calls of this connection are in flight: wait for one")
                result = self._call(websocket, call)
            except Exception as error:
                answer: dict[str, Any] = {"error": _tell(error)}
                id = getattr(error, "id", id)
            else:
                answer = {"result": result} if call.function == _PING else {"result": result, "message": self._done}
            _send(websocket, id, answer)
        except OSError:
            pass  # the browser is gone; what it started has ended

    def _decode(self, message: str | bytes) -> Call:
        call = decode_request(message.encode() if isinstance(message, str) else message)
        if not isinstance(call, Call) or call.batch is not None or call.stream:
            told = "batch, stream and JSON-RPC are not available through this gateway"
            raise BadRequest(told, getattr(call, "id", None))
        if call.function not in self.tasks:
            error = UnknownTask(f"this gateway offers no task {call.function[:80]!r}")
            error.id = call.id  # type: ignore[attr-defined]
            raise error
        return call

    def _call(self, websocket: WebSocket, call: Call) -> Any:
        def report(progress: dict[str, Any]) -> None:
            if time.monotonic() >= next_report[0] or progress.get("done") == progress.get("total"):
                next_report[0] = time.monotonic() + _REPORT_EVERY
                try:
                    _send(websocket, call.id, {"progress": progress})
                except OSError:
                    pass  # nobody looks any more, and the task goes on

        next_report = [0.0]
        return self.client.call_args(
            call.function, call.args or {}, timeout=call.timeout, progress=report if call.function != _PING else None
        )


class _Server(WSGIServer):
    """With what the handler asks it for."""

    max_message: int
    request_timeout: float
    max_head: int
    is_welcome: Callable[[str | None, str], bool]
    logger = logger


#: Seconds between two reports to a browser: an eye doesn't see more.
_REPORT_EVERY = 0.05


def _tell(error: Exception) -> dict[str, Any]:
    """A call's error, as the browser hears it: the protocol's own ones, and a task's under their own name."""
    if isinstance(error, CallError) and not isinstance(error, TaskError):
        return refusal(error)
    return describe(error)


def _send(websocket: WebSocket, id: Id | None, message: dict[str, Any]) -> None:
    if id is not None:
        message = {"id": id, **message}
    websocket.send(dumps(message, DEEPEST + 1).decode())  # a result may be that deep, and is one level down here


def _plain(start_response: Callable[..., Any], status: str, text: str) -> list[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8")])
    return [text.encode() + b"\n"]


def _own_script() -> bytes:
    return importlib.resources.files(__package__ or "").joinpath("greentask.js").read_bytes()
