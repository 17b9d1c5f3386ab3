"""Running one call of a task to its end: bind, run, and put into JSON what came of it; in greenlets and processes."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable
from types import CoroutineType
from typing import Any

from ..errors import CallError, Interrupt, InvalidArguments, InvalidResult, describe, refusal
from ..pool.coroutines import run_coroutine
from ..wire.json import dumps
from .context import RunningTask, enter
from .task import Task

__all__ = ["execute"]


def execute(
    task: Task[..., Any],
    args: dict[str, Any] | list[Any] | None,
    running: RunningTask,
    emit: Callable[[bytes], None] | None = None,
    *,
    debug: bool = False,
) -> tuple[bool, bytes]:
    """Run it here; whether it ended well, and the JSON of its result or of its error object.

    ``emit`` takes the items of a generator one by one, and may wait; without it they are the result, as an array.
    Raises ``Interrupt`` only: whoever interrupted it says what that means. With ``debug``, errors carry tracebacks.
    """
    try:
        if emit is not None and not task.streams:
            raise InvalidArguments(f"{task.name} is no generator: it has no stream of items, call it without stream")
        positional, named = task.binder.bind(args)
    except CallError as error:
        return False, dumps(refusal(error))
    enter(running)
    try:
        result = task.function(*positional, **named)
        if task.streams:
            result = _drain(task, result, emit)
        elif isinstance(result, CoroutineType):
            result = run_coroutine(result)
        return True, _encode(task, "returned", result)
    except Interrupt:
        raise
    except _NotJSON as error:
        return False, dumps(refusal(InvalidResult(str(error))))
    except BaseException as error:
        trace = "".join(traceback.format_exception(error)) if debug else None
        return False, dumps(describe(error, traceback=trace))
    finally:
        enter(None)


class _NotJSON(Exception):
    """What a task returned or yielded can't be put into JSON; a class of its own, for tasks raise InvalidResult too."""


def _encode(task: Task[..., Any], did: str, value: Any) -> bytes:
    try:
        return dumps(value)
    except InvalidResult as error:
        raise _NotJSON(f"{task.name} {did} what JSON can't carry: {error}") from None
    except Exception as error:  # from the value's own methods
        told = describe(error)
        raise _NotJSON(f"{task.name} {did} what can't be put into JSON: {told['type']}: {told['message']}") from error


def _drain(task: Task[..., Any], items: Any, emit: Callable[[bytes], None] | None) -> Any:
    if emit is None:
        return list(items)
    count = 0
    with contextlib.closing(items):
        for item in items:
            emit(_encode(task, "yielded", item))
            count += 1
    return {"items": count}
