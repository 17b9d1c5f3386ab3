"""Canvases in a server's queue: kept as a whole, in one transaction, with all that waits for something else.

What follows on a task's end is enqueued where that end is written down, so no program has to be there for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextvars import Context
from typing import TYPE_CHECKING, Any

from ...tasks.task import merge_arguments
from .canvas import chain, chord, group, linked
from .durable import LEAST, Kept
from .exceptions import NotCarriedOver
from .message import Message, make_message
from .request import check_values, pack
from .result import AsyncResult, GroupResult, Result
from .signature import Canvas, Signature

if TYPE_CHECKING:
    from ...client import Client

__all__ = ["compose"]

_Given = tuple[Any, ...] | None  # arguments; None: what came of the step before


def compose(client: Client, canvas: Canvas, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Result:
    """Have it kept, with these arguments for what is first in it; returns when it is on disk."""
    links: tuple[Canvas, ...] = ()
    if isinstance(canvas, Signature):
        links = linked(make_message(canvas.task, (), None, canvas.options).link)
    steps = _steps(canvas, args, kwargs, is_first=True, has_links=bool(links))
    if links:
        steps.append({"group": [_steps(link, None, {}) for link in links]})
    placed: list[Any] = []
    if steps:
        # Context(): the deadline of the task that we may be in is not that of those which it only starts.
        placed = Context().run(client.call_args, "greentask.compose", {"chain": steps})["tasks"]
    result = _result(client, canvas, iter(placed))
    for link, ids in zip(links, placed[1]["tasks"] if links else (), strict=True):
        child = _result(client, link, iter(ids))
        child.parent = result
        result.children.append(child)
    return result


def _steps(
    canvas: Canvas, given: _Given, kwargs: dict[str, Any], *, is_first: bool = False, has_links: bool = False
) -> list[dict[str, Any]]:
    """What is to be done, as the wire has it."""
    if isinstance(canvas, Signature):
        return [_step(canvas, given, kwargs, is_first=is_first, has_links=has_links)]
    if isinstance(canvas, group):
        chains = [_steps(task, given, kwargs, is_first=is_first) for task in canvas.tasks]
        return [{"group": chains}] if chains else []
    steps: list[dict[str, Any]] = []
    for task in _tasks(canvas):
        more = _steps(task, given, kwargs, is_first=is_first and not steps)
        given, kwargs = None if more else ([],), {}  # of an empty group
        steps += more
    return steps


def _step(
    signature: Signature, given: _Given, kwargs: dict[str, Any], *, is_first: bool, has_links: bool
) -> dict[str, Any]:
    takes = given is None and not signature.immutable
    if takes:
        message = make_message(signature.task, signature.args, signature.kwargs, signature.options)
        check_values(message)
        task = signature.app.tasks.get(signature.task)
        binder = None if task is None else task.binder
        args = merge_arguments((None, *message.args), message.kwargs, binder)
        args = args[1:] if isinstance(args, list) else dict(list(args.items())[1:])
    else:
        message = signature.message(given or (), kwargs)
        args = pack(message, None)
    for option, is_said in (("task_id", message.has_own_id), ("link", message.link and not has_links)):
        if is_said:
            raise _refused(message, option)
    if message.at is not None and not is_first:
        raise _refused(message, "eta")
    now = time.time()
    delay = message.countdown if message.at is None else max(0.0, message.at - now)
    ttl = None if message.expires is None else max(LEAST, message.expires - now)
    options = {name: value for name, value in (("delay", delay), ("ttl", ttl)) if value is not None}
    return {"function": message.task, "args": args, "takes": takes, "enqueue": options}


def _result(client: Client, canvas: Canvas, placed: Iterator[Any], *, is_behind_group: bool = False) -> Result:
    """The result of what the queue has given these ids."""
    if isinstance(canvas, Signature):
        receipt = client.receipt(next(placed))
        return AsyncResult(Kept(client, receipt.id, canvas.task, receipt=receipt, is_behind_group=is_behind_group))
    if isinstance(canvas, group):
        if not canvas.tasks:
            return GroupResult()
        kept = next(placed)
        members = zip(canvas.tasks, kept["tasks"], strict=True)
        return GroupResult(kept["group"], [_result(client, task, iter(ids)) for task, ids in members])
    before: Result | None = None
    for task in _tasks(canvas):
        result = _result(client, task, placed, is_behind_group=isinstance(before, GroupResult))
        result.parent = before if result.parent is None else result.parent
        before = result
    assert before is not None, "a chain has at least one task"
    return before


def _tasks(canvas: Canvas) -> tuple[Canvas, ...]:
    """Those of a chain, or of a chord, which is one."""
    if isinstance(canvas, chord):
        canvas = canvas.as_chain()
    assert isinstance(canvas, chain), canvas
    return canvas.tasks


def _refused(message: Message, option: str) -> NotCarriedOver:
    return NotCarriedOver(
        f"{option}= in a call of task {message.task!r} that is part of a chain, group or chord: in a queue it is for "
        "tasks that are sent by themselves (or first, in case of eta)"
    )
