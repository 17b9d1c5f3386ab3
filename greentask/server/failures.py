"""What is logged of calls: a middleware, as a user's would be."""

from __future__ import annotations

import logging

from ..tasks.middleware import CallInfo, Middleware
from ..wire.json import dumps

__all__ = ["CallLog", "FailureLog"]

logger = logging.getLogger(__name__)

_MOST = 1000  # characters of one line
_MOST_LINES = 100  # of a traceback: the last ones


class FailureLog(Middleware):
    """Logs the error of a task that failed, in one line that can't forge another or command a terminal.

    Where there is a traceback, it follows, indented as no other line is.
    """

    def call_failed(self, call: CallInfo) -> None:
        if call.outcome != "failed" or not logger.isEnabledFor(logging.INFO):
            return
        what = "asks to be tried again" if _asks(call) else "failed"
        # By its id a durable task is found in the queue.
        name = f"{call.task} {call.id}" if call.peer == "queue" else call.task
        logger.info("task %s %s: %s", _plain(name), what, _told(call), extra=_extra(call))


class CallLog(Middleware):
    """Logs each call at its end, in one line of that kind, with the error of one that has no result."""

    def after_call(self, call: CallInfo) -> None:
        if not logger.isEnabledFor(logging.INFO):
            return
        where = "a greenlet" if call.group is None else f"group {call.group}"
        logger.info(
            "%s of %s, id %s, by %s, in %s: %s in %.6f s%s",
            f"enqueueing {call.enqueues}" if call.enqueues else "call",
            _plain(call.task),
            _plain(str(call.id)),
            call.peer,
            where,
            call.outcome,
            call.duration or 0.0,
            "" if call.error is None else f": {_told(call)}",
            extra=_extra(call),
        )


def _asks(call: CallInfo) -> bool:
    """Whether it is a durable task that asks to be tried again."""
    return isinstance((call.error or {}).get("retry"), dict)


def _told(call: CallInfo) -> str:
    """Its error, and indented below it the traceback, where there is one."""
    error = dict(call.error or {})
    stack = str(error.pop("traceback", "")).splitlines()[-_MOST_LINES:]
    error.pop("retry", None)
    first = str(error.get("message")) if _asks(call) else dumps(error).decode("utf-8", "replace")
    return "\n".join(map(_plain, [first, *(f"    {line}" for line in stack)]))


def _extra(call: CallInfo) -> dict[str, object]:
    told: dict[str, object] = {
        "task": call.task,
        "id": call.id,
        "peer": call.peer,
        "group": call.group,
        "outcome": call.outcome,
        "duration": None if call.duration is None else round(call.duration, 6),
    }
    if call.enqueues:
        told["enqueues"] = call.enqueues
    if call.item is not None:
        told["item"] = call.item
    if call.error is not None:
        told["error"] = str(call.error.get("type"))
    return told


def _plain(text: str) -> str:
    """Cut short, and without what would begin another line or command a terminal."""
    if len(text) > _MOST:
        text = text[:_MOST] + "…"
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
