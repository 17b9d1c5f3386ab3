"""One task that is to be sent, with the options that its caller gave, checked."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from ...tasks.task import merge_arguments
from .missing import refuse_option

if TYPE_CHECKING:
    from .signature import Canvas

__all__ = ["Message", "check_args", "check_options", "make_message", "moment"]

#: Accepted, for they ask for what is so in any case: nobody stores results, and the client connects anew by itself.
_HARMLESS = frozenset({"ignore_result", "add_to_parent", "retry", "retry_policy"})
_CARRIED = frozenset({"task_id", "expires", "link", "countdown", "eta"})


@dataclass(frozen=True)
class Message:
    """A task by its name, with its arguments.

    ``expires`` and ``at`` are in seconds since 1970, ``countdown`` in seconds; one of the latter two at most is given.
    """

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    id: str
    expires: float | None = None
    countdown: float | None = None
    at: float | None = None
    link: tuple[Canvas, ...] = ()
    #: Whether the task is one of ours, which finds its id beside its arguments.
    packed: bool = True
    #: Whether the caller chose its id.
    has_own_id: bool = False

    @property
    def waits(self) -> str | None:
        """Which of Celery's options says that it waits, if there is one: that needs a durable queue."""
        return "countdown" if self.countdown is not None else None if self.at is None else "eta"

    def plain(self) -> dict[str, Any] | list[Any]:
        """Its arguments as any task takes them."""
        if self.expires is not None:
            raise TypeError(f"expires= is for tasks that are known here, and {self.task!r} isn't: import its module")
        return merge_arguments(self.args, self.kwargs)


def make_message(
    task: str,
    args: Iterable[Any] | None,
    kwargs: dict[str, Any] | None,
    options: dict[str, Any],
    *,
    packed: bool = True,
) -> Message:
    """The message for one call with these options. Raises as ``check_options`` does."""
    given = check_options(task, options)
    link, expires, eta = given.get("link", ()), given.get("expires"), given.get("eta")
    countdown = given.get("countdown") or None
    if not isinstance(countdown, (int, float, type(None))):
        raise TypeError(f"countdown= of task {task!r} is in seconds, not {countdown!r:.80}")
    if not isinstance(eta, (datetime, type(None))):
        raise TypeError(f"eta= of task {task!r} is a datetime, not {eta!r:.80}")
    return Message(
        task,
        check_args(task, args),
        dict(kwargs or {}),
        given.get("task_id") or str(uuid.uuid4()),
        None if expires is None else moment(task, "expires", expires),
        None if countdown is None else max(0.0, countdown),
        None if eta is None or countdown is not None else moment(task, "eta", eta),
        tuple(link) if isinstance(link, (list, tuple)) else (link,),
        packed,
        "task_id" in given,
    )


def check_options(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """Those that do something. Raises ``NotCarriedOver`` naming one that greentask has not."""
    given = {name: value for name, value in options.items() if value is not None and name not in _HARMLESS}
    if given.get("serializer") == "json":
        del given["serializer"]
    for name in given.keys() - _CARRIED:
        raise refuse_option(task, name, call=True)
    if not isinstance(given.get("task_id", ""), str):
        raise TypeError(f"task_id= of task {task!r} is a text, not {given['task_id']!r:.80}")
    return given


def check_args(task: str, args: Iterable[Any] | None) -> tuple[Any, ...]:
    """Arguments by position, as a tuple. Raises ``TypeError`` for a text, which would be taken letter by letter."""
    if isinstance(args, (str, bytes, dict)):
        raise TypeError(f"args of task {task!r} is a list or tuple of arguments, not {args!r:.80}")
    return tuple(args or ())


def moment(task: str, option: str, given: Any) -> float:
    """Seconds since 1970 of what an option gives, a datetime or seconds from now."""
    if isinstance(given, datetime):
        if given.tzinfo is None:
            raise ValueError(f"{option}= of task {task!r} has no timezone: give datetime.now(timezone.utc) + …")
        return given.timestamp()
    if isinstance(given, (int, float)):
        return time.time() + given
    raise TypeError(f"{option}= of task {task!r} is in seconds, or a datetime, not {given!r}")
