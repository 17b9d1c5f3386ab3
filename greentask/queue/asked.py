"""``greentask.queue``: what a server's callers may ask of its queue.

They may look, and try again or forget one task at a time. What concerns all tasks (to pause, to change all that fit, to
carry away) is for those who have the file: they use it themselves (``byhand``).
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ..errors import CallError, InvalidArguments, QueueError
from ..pool.calls import Listener
from ..tasks.binding import Binder
from ..wire.json import dumps, loads
from ..wire.message import Call
from . import looking, managing
from .managing import Filter
from .sqlite import SQLiteQueue
from .store import Store

__all__ = ["Enqueued", "answer_with", "as_call_error", "manage"]

_MOST = 10_000  # tasks in one answer
_MOST_BYTES = 1024 * 1024  # of dead letters in one answer, if it is more than one


class Enqueued:
    """Answers who has enqueued one task, or a batch. No function that remembers them: there are thousands a second."""

    __slots__ = ("_answer", "_is_batch")

    def __init__(self, answer: Listener, *, is_batch: bool) -> None:
        self._answer = answer
        self._is_batch = is_batch

    def __call__(self, ids: list[str] | None, error: BaseException | None) -> None:
        if ids is None:
            self._answer.refuse(as_call_error(error or QueueError("nobody knows why")))
        elif self._is_batch:
            self._answer.done(dumps({"tasks": ids}))
        else:
            self._answer.done(b'{"task":"%b"}' % ids[0].encode())


def manage(
    queue: SQLiteQueue, call: Call, answer: Listener, status: Callable[[], dict[str, Any]], *, hides_arguments: bool
) -> None:
    """Do what the call says, and answer it. May raise ``InvalidArguments``."""

    def asked(
        action: str = "stats",
        task: str | None = None,
        limit: int = 100,
        states: list[str] | None = None,
        name: str | None = None,
        error: str | None = None,
        older: float | None = None,
        younger: float | None = None,
    ) -> dict[str, Any]:
        return {
            "action": action,
            "task": task,
            "limit": limit,
            "wanted": Filter.decode(
                {"states": states, "name": name, "error": error, "older": older, "younger": younger}
            ),
        }

    positional, named = Binder(asked, call.function).bind(call.args)
    given = asked(*positional, **named)
    action, task, limit = given["action"], given["task"], given["limit"]
    if isinstance(limit, bool) or not isinstance(limit, int) or not 0 < limit <= _MOST:
        raise InvalidArguments(f"greentask.queue: limit is a whole number from 1 to {_MOST}, not {limit!r:.80}")
    if not (task is None or isinstance(task, str)):
        raise InvalidArguments(f"greentask.queue: task is a task's id, a string, not {task!r:.80}")

    def shown(found: dict[str, Any]) -> dict[str, Any]:
        if hides_arguments:
            found.pop("args", None)
        return found

    def show(store: Store) -> dict[str, Any] | None:
        found = managing.show(store, task or "")
        return found and shown(found)

    def show_dead(store: Store) -> list[dict[str, Any]]:
        return [shown(_letter(letter)) for letter in looking.dead(store, limit, task, most_bytes=_MOST_BYTES)]

    if action == "stats":
        answer_with(queue.count(), answer, lambda counted: {**counted, "server": status()})
    elif action == "list":
        _answer_aside(queue, lambda store: managing.list_tasks(store, given["wanted"], task, limit), answer)
    elif action == "dead":
        _answer_aside(queue, show_dead, answer)
    elif action == "show" and task is not None:
        _answer_aside(queue, show, answer)
    elif action in ("retry", "purge") and task is not None:
        answer_with(queue.retry(task) if action == "retry" else queue.purge(task), answer)
    else:
        said = f"{action!r:.80}" + " without a task" * (task is None)
        raise InvalidArguments(
            f"greentask.queue: action is stats, list, dead, or show, retry or purge with the id of a task, not {said}"
        )


def answer_with(future: Future[Any], answer: Listener, show: Callable[[Any], Any] = lambda value: value) -> None:
    """Answer with what comes of a future."""

    _answer_with_json(future, answer, lambda value: dumps(show(value)))


def _answer_aside(queue: SQLiteQueue, look: Callable[[Store], Any], answer: Listener) -> None:
    """Answer with what a look at much comes to; where it is made into JSON, no loop waits for that."""
    _answer_with_json(queue.look_aside(lambda store: dumps(look(store))), answer, lambda text: text)


def _answer_with_json(future: Future[Any], answer: Listener, show: Callable[[Any], bytes]) -> None:
    def ended(future: Future[Any]) -> None:
        error = future.exception()
        if error is None:
            answer.done(show(future.result()))
        else:
            answer.refuse(as_call_error(error))

    future.add_done_callback(ended)


def as_call_error(error: BaseException) -> CallError:
    """As something that a caller can be told."""
    return error if isinstance(error, CallError) else QueueError(f"the queue can't do it: {error}")


def _letter(letter: dict[str, Any]) -> dict[str, Any]:
    """A dead letter, as JSON carries it."""
    message = loads(letter.pop("payload"))
    errors = [{"attempt": attempt, "at": at, **loads(error)} for attempt, at, error in letter.pop("errors")]
    return {**letter, "args": message.get("args"), "errors": errors}
