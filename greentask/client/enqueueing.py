"""Many durable tasks at once: many in a line, which is one transaction, or many lines at once."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from concurrent.futures import Future
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..wire.enqueue import Enqueue
from ..wire.message import Args, Call

if TYPE_CHECKING:
    from .client import Client

__all__ = ["chunks", "start_enqueueing"]

_MOST = 1000  # tasks in one line


def chunks(items: Iterable[Args]) -> Iterator[list[Args]]:
    """The items in parts, each for one line."""
    items = iter(items)
    while part := list(islice(items, _MOST)):
        yield part


def start_enqueueing(client: Client, function: str, args: Args, options: Enqueue, timeout: float) -> Future[Any]:
    """Enqueue a task, and wait for nothing: the future ends within ``timeout`` seconds, when it is on disk or refused.

    Those that are started one after another share their way to the disk, where each has a key of its own.
    """
    call = Call(function, args, client._core.next_id(), client._time_left(timeout), enqueue=options)
    return client._submit(call, None, idempotent=options.key is not None)
