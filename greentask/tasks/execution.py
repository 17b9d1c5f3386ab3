"""Running one call of a task to its end: bind, run, and put into JSON what came of it; in greenlets and processes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from functools import partial
from types import CoroutineType
from typing import Any

from ..errors import CallError, Interrupt, InvalidArguments, InvalidResult, describe, ended_by, refusal
from ..pool.coroutines import run_coroutine
from ..pool.frames import Body, whole
from ..wire.json import dumps, dumps_other, dumps_plain
from ..wire.steps import take_apart
from ..wire.writing import dumps_in_steps, is_large
from .context import NOT_A_TASK, RunningTask, current_task, enter
from .middleware import CallInfo, Hooks, Refused
from .retries import Retry
from .task import Task
from .traces import trace_of

__all__ = ["execute", "execute_in_steps"]

#: Runs steps, and lets others have their turn between two of them.
InTurns = Callable[[Generator[None, None, Any]], Any]


def execute(
    task: Task[..., Any],
    args: dict[str, Any] | list[Any] | None,
    running: RunningTask | Callable[[], RunningTask],
    emit: Callable[[bytes], None] | None = None,
    debug: bool = False,
    durable: bool = False,
    hooks: Hooks | None = None,
    info: CallInfo | None = None,
    in_turns: InTurns | None = None,
) -> tuple[bool, Body]:
    """Run it here; whether it ended well, and the JSON of its result or of its error object.

    ``running`` is what ``current()`` gives meanwhile, or makes it when that is called.
    ``emit`` takes the items of a generator one by one, and may wait; without it they are the result, as an array.
    Raises ``Interrupt`` only: whoever interrupted it says what that means. With ``debug``, errors carry tracebacks;
    those of a ``durable`` call always do, and say whether they are worth another attempt: that is for the queue.
    ``hooks`` run around it, and see it as ``info``. ``in_turns`` puts a large result into JSON.
    """
    try:
        if emit is not None and not task.streams:
            raise _no_stream(task)
        positional, named = task.binder.bind(args)
    except CallError as error:
        return False, dumps(refusal(error))
    current_task.set(running)
    try:
        if hooks is None or info is None:
            return True, _run(task, positional, named, emit, in_turns)
        return True, hooks.around(info, partial(_run, task, positional, named, emit, in_turns), _told)
    except Interrupt:
        raise
    except BaseException as error:
        # One that only asks to be tried again has no story to tell.
        is_asked = isinstance(error, Retry) and error.__cause__ is None and error.__context__ is None
        told = _told(error, debug=debug or (durable and not is_asked))
        if durable:
            told["retry"] = task.policy.wants_retry(_seen(error))
        return False, dumps(told)
    finally:
        current_task.set(NOT_A_TASK)


def execute_in_steps(
    task: Task[..., Any], args: dict[str, Any] | list[Any] | None, running: RunningTask, hooks: Hooks, info: CallInfo
) -> Generator[bytes, None, tuple[bool, bytes]]:
    """Run a generator task as ``execute`` does, at its reader's pace: gives the JSON of its items one by one.

    It ends with what ``execute`` returns. Whatever drives it gives it a context of its own: ``running`` stays in it.
    """
    try:
        if not task.streams:
            raise _no_stream(task)
        positional, named = task.binder.bind(args)
    except CallError as error:
        return False, dumps(refusal(error))
    enter(running)
    count = 0
    try:
        with hooks.watching(info, _told), contextlib.closing(task.function(*positional, **named)) as items:
            for item in items:
                yield whole(_encode(task, "yielded", item))
                count += 1
        return True, dumps({"items": count})
    except (Interrupt, GeneratorExit):
        raise
    except BaseException as error:
        return False, dumps(_told(error))


def _run(
    task: Task[..., Any],
    positional: list[Any],
    named: dict[str, Any],
    emit: Callable[[bytes], None] | None,
    in_turns: InTurns | None,
) -> Body:
    result = task.function(*positional, **named)
    plain = dumps_plain(result)
    if plain is not None:
        return plain
    if task.streams:
        result = _drain(task, result, emit, in_turns)
    elif isinstance(result, CoroutineType):
        result = run_coroutine(result)
    body = _encode_other(task, "returned", result, in_turns)
    if in_turns is not None and type(body) is list:
        freed = [result]
        del result
        in_turns(take_apart(freed))
    return body


def _told(error: BaseException, *, debug: bool = False) -> dict[str, Any]:
    """The error object for what came out of it."""
    if isinstance(error, (Refused, _NotJSON)):
        return refusal(_seen(error))
    if isinstance(error, Interrupt):
        return refusal(ended_by(error))
    return describe(error, traceback=trace_of(error) if debug else None)


def _seen(error: BaseException) -> Any:
    """The error as a task's author knows it."""
    if isinstance(error, Refused):
        return error.error
    if isinstance(error, _NotJSON):
        return InvalidResult(str(error))
    return error


class _NotJSON(Exception):
    """What a task returned or yielded can't be put into JSON; a class of its own, for tasks raise InvalidResult too."""


def _encode(task: Task[..., Any], did: str, value: Any, in_turns: InTurns | None = None) -> Body:
    plain = dumps_plain(value)
    return _encode_other(task, did, value, in_turns) if plain is None else plain


def _encode_other(task: Task[..., Any], did: str, value: Any, in_turns: InTurns | None) -> Body:
    """The same of what is not plain."""
    try:
        if in_turns is not None and is_large(value):
            pieces: list[bytes] = in_turns(dumps_in_steps(value))
            return pieces
        return dumps_other(value)
    except InvalidResult as error:
        raise _NotJSON(f"{task.name} {did} what JSON can't carry: {error}") from None
    except Exception as error:  # from the value's own methods
        told = describe(error)
        raise _NotJSON(f"{task.name} {did} what can't be put into JSON: {told['type']}: {told['message']}") from error


def _drain(task: Task[..., Any], items: Any, emit: Callable[[bytes], None] | None, in_turns: InTurns | None) -> Any:
    if emit is None:
        return list(items)
    count = 0
    with contextlib.closing(items):
        for item in items:
            emit(whole(_encode(task, "yielded", item, in_turns)))
            count += 1
    return {"items": count}


def _no_stream(task: Task[..., Any]) -> InvalidArguments:
    return InvalidArguments(f"{task.name} is no generator: it has no stream of items, call it without stream")
