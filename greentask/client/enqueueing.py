"""Many durable tasks at once: in lines of their own, each of which is one transaction."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from ..wire.message import Args

__all__ = ["chunks"]

_MOST = 1000  # tasks in one line


def chunks(items: Iterable[Args]) -> Iterator[list[Args]]:
    """The items in parts, each for one line."""
    items = iter(items)
    while part := list(islice(items, _MOST)):
        yield part
