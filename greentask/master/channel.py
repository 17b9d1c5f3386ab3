"""Questions and answers between greentask's own processes on one machine, a JSON line each, both ways.

A question is ``{"what": …, "args": {…}, "id": n}``; without an id no answer is wanted. The answer is ``{"id": n,
"value": …}`` or ``{"id": n, "error": "…"}``. Each question is handled in a greenlet of its own.
"""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Mapping
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.hub import get_hub
from gevent.socket import socket as GreenSocket

from ..errors import GreentaskError
from ..hub.outlet import Outlet
from ..wire.json import dumps, loads
from ..wire.text import LineSplitter

__all__ = ["Channel", "ChannelError"]

logger = logging.getLogger(__name__)

_CHUNK = 64 * 1024


class ChannelError(GreentaskError):
    """A question that could not be answered: the other side says why, or it is gone.

    ``trace`` is the traceback of the code that could not be imported, where that is why.
    """

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace


class Channel:
    """One end. ``handlers`` answer the other side's questions, by name; ``closed`` is called once it is gone."""

    def __init__(
        self,
        sock: GreenSocket,
        handlers: Mapping[str, Callable[..., Any]],
        closed: Callable[[], object] | None = None,
    ) -> None:
        self._socket = sock
        self._handlers = handlers
        self._closed = closed
        self._ids = itertools.count(1)
        self._asked: dict[int, AsyncResult[Any]] = {}
        self._outlet = Outlet(get_hub().loop, sock.fileno(), lambda _: None)  # the reader hears of the end as well
        self._reader = gevent.spawn(self._read)

    def tell(self, what: str, /, **args: Any) -> None:
        """Say it, and expect no answer."""
        self._outlet.write(dumps({"what": what, "args": args}) + b"\n")

    def ask(self, what: str, /, *, within: float | None = None, **args: Any) -> Any:
        """Ask, and wait for the answer. Raises ``ChannelError``, also where none comes ``within`` so many seconds."""
        if self._reader.dead:
            raise ChannelError("it is gone")
        id = next(self._ids)
        answer: AsyncResult[Any] = AsyncResult()
        self._asked[id] = answer
        self._outlet.write(dumps({"what": what, "args": args, "id": id}) + b"\n")
        try:
            return answer.get(timeout=within)
        except gevent.Timeout:
            raise ChannelError(f"no answer to {what!r} within {within:g} s") from None
        finally:
            del self._asked[id]

    def flush(self, timeout: float) -> None:
        """Wait until what was said has left, for up to ``timeout`` seconds."""
        self._outlet.wait_below(0, timeout)

    def wait_closed(self, timeout: float | None = None) -> None:
        """Wait until the other side is gone, for up to ``timeout`` seconds."""
        self._reader.join(timeout)

    def close(self) -> None:
        """Hang up."""
        if gevent.getcurrent() is not self._reader:
            self._reader.kill(block=False)
        self._end()

    def _read(self) -> None:
        splitter = LineSplitter()
        try:
            while data := self._socket.recv(_CHUNK):
                for line in splitter.feed(data):
                    self._take(loads(line))
        except (OSError, GreentaskError):
            pass  # whatever broke it: it is over
        self._end()
        if self._closed is not None:
            self._closed()

    def _end(self) -> None:
        self._outlet.close()
        self._socket.close()
        for answer in self._asked.values():
            if not answer.ready():
                answer.set_exception(ChannelError("it is gone"))

    def _take(self, message: dict[str, Any]) -> None:
        if "what" in message:
            gevent.spawn(self._answer, message["what"], message.get("args", {}), message.get("id"))
        elif (asked := self._asked.get(message["id"])) is not None:
            if "error" in message:
                asked.set_exception(ChannelError(message["error"], message.get("trace", "")))
            else:
                asked.set(message.get("value"))

    def _answer(self, what: str, args: dict[str, Any], id: int | None) -> None:
        answer: dict[str, Any] = {"id": id}
        try:
            handler = self._handlers.get(what)
            if handler is None:
                raise ChannelError(f"there is no {what!r} here: is it of another version of greentask?")
            answer["value"] = handler(**args)
        except GreentaskError as error:
            answer["error"], answer["trace"] = str(error), getattr(error, "trace", "")
        except Exception as error:
            logger.exception("%s failed", what)
            answer["error"] = f"{type(error).__name__}: {error}"
        if id is not None:
            self._outlet.write(dumps(answer) + b"\n")
