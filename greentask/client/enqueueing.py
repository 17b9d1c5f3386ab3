"""Many durable tasks at once: many in a line, which is one transaction, or many lines at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..errors import LineTooLong
from ..wire.enqueue import Enqueue
from ..wire.message import Args, Call

if TYPE_CHECKING:
    from .client import Client

__all__ = ["enqueue_group", "start_enqueueing"]

_MOST = 1000  # tasks in one line


def enqueue_group(
    client: Client, function: str, items: Iterable[Args], options: Enqueue, timeout: float | None
) -> tuple[str, list[str], Any]:
    """Enqueue many as a group: its id, those of its tasks, and of what follows it."""
    tasks: list[str] = []
    kept: dict[str, Any] = {}
    parts = _chunks(items)
    part: list[Args] | None = next(parts, [])
    while part is not None:
        following = next(parts, None)
        is_open = following is not None
        more = _enqueue_part(client, function, part, options, timeout, kept.get("group"), is_open=is_open)
        kept, part = kept or more, following
        tasks += more["tasks"]
    return kept["group"], tasks, kept["then"]


def _chunks(items: Iterable[Args]) -> Iterator[list[Args]]:
    items = iter(items)
    while part := list(islice(items, _MOST)):
        yield part


def _enqueue_part(
    client: Client,
    function: str,
    part: list[Args],
    options: Enqueue,
    timeout: float | None,
    group: str | None,
    *,
    is_open: bool,
) -> dict[str, Any]:
    """Enqueue these in one line, or in more where they are too long for one: what the server has answered."""
    then = options.then if group is None else None
    here = replace(options, group=group or True, open=is_open, then=then)
    call = Call(function, None, client._core.next_id(), client._time_left(timeout), batch=[*part], enqueue=here)
    try:
        future = client._submit(call, None)
    except LineTooLong:
        if len(part) == 1:
            raise
        half = len(part) // 2
        kept = _enqueue_part(client, function, part[:half], options, timeout, group, is_open=True)
        rest = _enqueue_part(client, function, part[half:], options, timeout, kept["group"], is_open=is_open)
        return {**kept, "tasks": kept["tasks"] + rest["tasks"]}
    answer: dict[str, Any] = client._wait(future)
    return answer


def start_enqueueing(client: Client, function: str, args: Args, options: Enqueue, timeout: float) -> Future[Any]:
    """Enqueue a task, and wait for nothing: the future ends within ``timeout`` seconds, when it is on disk or refused.

    Those that are started one after another share their way to the disk, where each has a key of its own.
    """
    call = Call(function, args, client._core.next_id(), client._time_left(timeout), enqueue=options)
    return client._submit(call, None, idempotent=options.key is not None)
