"""Running one call of a task to its end: bind, run, and put into JSON what came of it; in greenlets and processes."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
import traceback
from collections.abc import Callable
from typing import Any

from ..errors import CallError, Interrupt, InvalidArguments, InvalidResult, describe, refusal
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
            result = _drain(result, emit)
        elif inspect.iscoroutine(result):
            result = _run_coroutine(result)
    except Interrupt:
        raise
    except BaseException as error:
        trace = "".join(traceback.format_exception(error)) if debug else None
        return False, dumps(describe(error, traceback=trace))
    finally:
        enter(None)
    try:
        return True, dumps(result)
    except InvalidResult as error:
        return False, dumps(refusal(InvalidResult(f"{task.name} returned what JSON can't carry: {error}")))


def _drain(items: Any, emit: Callable[[bytes], None] | None) -> Any:
    if emit is None:
        return list(items)
    count = 0
    with contextlib.closing(items):
        for item in items:
            emit(dumps(item))
            count += 1
    return {"items": count}


# One event loop for all coroutines of a process, so that what they keep (connections, locks) stays usable.
_loop: asyncio.AbstractEventLoop | None = None


def _run_coroutine(coroutine: Any) -> Any:
    global _loop
    if _loop is None:
        _loop = asyncio.new_event_loop()
    running = _loop.create_task(coroutine)
    try:
        return _loop.run_until_complete(running)
    except BaseException:
        # Interrupted in the loop itself, it would go on with the next call's turn.
        if not running.done():
            running.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                _loop.run_until_complete(running)
        raise
