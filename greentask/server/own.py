"""The server's own functions, whose names begin with ``greentask.``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..errors import InvalidArguments
from ..tasks.binding import Binder
from ..wire.message import Call, Id

if TYPE_CHECKING:
    from .session import Session

__all__ = ["OWN", "call_own"]


def _ping(_session: Session) -> Callable[..., Any]:
    def ping() -> str:
        return "pong"

    return ping


def _tasks(session: Session) -> Callable[..., Any]:
    return session.server.tasks.describe


def _status(session: Session) -> Callable[..., Any]:
    def status(detail: bool = False) -> dict[str, Any]:
        return session.server.tell_status(bool(detail))

    return status


def _cancel(session: Session) -> Callable[..., Any]:
    def cancel(id: Id) -> bool:
        if isinstance(id, bool) or not isinstance(id, (str, int)):
            raise InvalidArguments("greentask.cancel: id must be a call's id, a string or an integer")
        return session.cancel(id)

    return cancel


OWN = {
    "greentask.ping": _ping,
    "greentask.tasks": _tasks,
    "greentask.status": _status,
    "greentask.cancel": _cancel,
}


def call_own(session: Session, call: Call) -> Any:
    """The result of one of the server's own functions. Raises ``InvalidArguments``."""
    if call.batch is not None or call.stream:
        raise InvalidArguments(f"{call.function} takes no batch and has no stream")
    function = OWN[call.function](session)
    positional, named = Binder(function, call.function).bind(call.args)
    return function(*positional, **named)
