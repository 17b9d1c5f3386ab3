"""One run of a task as the task itself sees it, and how its id and arguments travel.

A call from here carries its arguments as Celery's callers give them, some by position and some by name, with the
task's id: in an object under a key that can't be a parameter's name. Calls without it, from a shell or another
language, run the same task.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import date, datetime
from datetime import time as time_of_day
from decimal import Decimal
from itertools import chain
from typing import Any
from uuid import UUID

from ...errors import InvalidArguments
from ...tasks.binding import Binder
from ...tasks.context import current
from .exceptions import TaskRevokedError
from .members import refuse_member
from .message import Message

__all__ = ["Request", "RequestBinder", "check_values", "current_request", "entered", "pack", "unpack"]

_KEY = "celery:request"
#: What Celery's JSON has beyond JSON, and what to send in its place.
_BEYOND_JSON: dict[type, str] = {
    datetime: "value.isoformat(), and read it in the task with datetime.fromisoformat()",
    date: "value.isoformat(), and read it in the task with date.fromisoformat()",
    time_of_day: "value.isoformat(), and read it in the task with time.fromisoformat()",
    Decimal: "str(value), and read it in the task with Decimal()",
    UUID: "str(value), and read it in the task with UUID()",
    bytes: "base64.b64encode(value).decode(), and read it in the task with base64.b64decode()",
}


@dataclass(frozen=True)
class Request:
    """What a task sees as ``self.request``.

    ``retries`` is how often it has been tried before. ``expires`` is in seconds since 1970.
    """

    id: str | None = None
    task: str | None = None
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)
    expires: float | None = None
    called_directly: bool = False
    is_eager: bool = False
    retries: int = 0

    def __getattr__(self, name: str) -> Any:
        return refuse_member("request", name, self)

    @property
    def correlation_id(self) -> str | None:
        """Its id, by its other name."""
        return self.id

    @property
    def hostname(self) -> str:
        """The machine that it runs on."""
        return socket.gethostname()


_request: ContextVar[Request | None] = ContextVar("greentask.celery_style", default=None)
_DIRECTLY = Request(called_directly=True)


def current_request() -> Request:
    """The request of the task that runs here; that of a function which is called directly, where none does."""
    return _request.get() or _DIRECTLY


@contextmanager
def entered(request: Request) -> Iterator[None]:
    """Inside, it is the current request."""
    token = _request.set(request)
    try:
        yield
    finally:
        _request.reset(token)


def pack(message: Message, id: str | None) -> dict[str, Any] | list[Any]:
    """The arguments of a message, as the wire has them. Without an ``id`` the call's is the task's."""
    check_values(message)
    if not message.packed:
        return message.plain()
    packed: dict[str, Any] = {"args": list(message.args)}
    if id is not None:
        packed["id"] = id
    if message.expires is not None:
        packed["expires"] = message.expires
    return {**message.kwargs, _KEY: packed}


def check_values(message: Message) -> None:
    """Raise ``InvalidArguments`` for an argument that Celery's JSON has and ours has not."""
    by_position = ((f"args[{number}]", value) for number, value in enumerate(message.args))
    for place, value in chain(by_position, message.kwargs.items()):
        instead = _BEYOND_JSON.get(type(value))
        if instead is not None:
            raise InvalidArguments(
                f"{message.task}: {place} is a {type(value).__name__}, which Celery's JSON has and greentask's has "
                f"not: send {instead}"
            )


def unpack(task: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Request:
    """The request of a call that has come. Raises ``TaskRevokedError`` where it has expired."""
    packed, running = kwargs.pop(_KEY, None) or {}, current()
    id, expires = packed.get("id") or str(running.id), packed.get("expires")
    if expires is not None and expires < time.time():
        raise TaskRevokedError(f"{task}[{id}] expired before its turn came")
    return Request(id, task, args, kwargs, expires, retries=(running.attempt or 1) - 1)


class RequestBinder(Binder):
    """Binds the arguments of calls that carry a request, and of those that don't."""

    __slots__ = ()

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        super().__init__(function, name)

    def bind(self, args: dict[str, Any] | list[Any] | None) -> tuple[list[Any], dict[str, Any]]:
        """As ``Binder.bind``; the request stays among the keyword arguments."""
        if not isinstance(args, dict) or _KEY not in args:
            return super().bind(args)
        packed = args[_KEY]
        if not _is_request(packed):
            raise InvalidArguments(
                f"{self.text}: {_KEY!r} is what greentask.contrib.celery_style sends, not {packed!r}"
            )
        named = {name: value for name, value in args.items() if name != _KEY}
        self.check(tuple(packed["args"]), named)
        return packed["args"], {**named, _KEY: packed}

    def check(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise ``InvalidArguments`` where they don't fit the signature."""
        if self._signature is not None:
            try:
                self._signature.bind(*args, **kwargs)
            except TypeError as error:
                raise InvalidArguments(f"{self.text}: {error}") from None


def _is_request(packed: Any) -> bool:
    return (
        isinstance(packed, dict)
        and isinstance(packed.get("id", ""), str)
        and isinstance(packed.get("args"), list)
        and isinstance(packed.get("expires", 0.0), (int, float))
    )
