"""The ``map`` of a pool: items in chunks, each chunk one task, and their results in order.

Task processes import this as well, for a chunk is what they run: it knows nothing of gevent.
"""

from __future__ import annotations

import itertools
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import Any

__all__ = ["map_in_chunks"]


def map_in_chunks(
    submit: Callable[..., Future[Any]],
    fn: Callable[..., Any],
    iterables: Iterable[Iterable[Any]],
    timeout: float | None,
    chunksize: int,
    buffersize: int | None,
) -> Iterator[Any]:
    """See ``Pool.map``. What is to be submitted at once has been when this returns."""
    if chunksize < 1:
        raise ValueError("chunksize must be >= 1.")
    if buffersize is not None and buffersize < 1:
        raise ValueError("buffersize must be None or > 0")
    submitted = (submit(_Chunk(fn), chunk) for chunk in _chunks(zip(*iterables), chunksize))
    flying = deque(submitted if buffersize is None else itertools.islice(submitted, buffersize))
    return _results(flying, submitted, timeout)


class _Chunk:
    """Runs a function for several items. Known by that function's name, as their calls alone would be."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self.__qualname__ = f"map of {getattr(fn, '__qualname__', type(fn).__qualname__)}"

    def __call__(self, chunk: list[tuple[Any, ...]]) -> list[Any]:
        return [self._fn(*args) for args in chunk]


def _chunks(items: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(itertools.islice(items, size)):
        yield chunk


def _results(flying: deque[Future[Any]], submitted: Iterator[Future[Any]], timeout: float | None) -> Iterator[Any]:
    until = None if timeout is None else time.monotonic() + timeout

    def results() -> Iterator[Any]:
        try:
            while flying:
                chunk = _take(flying.popleft(), until)
                flying.extend(itertools.islice(submitted, 1))
                chunk.reverse()
                while chunk:
                    yield chunk.pop()  # nothing here refers to a result that has been taken
        finally:
            for future in flying:
                future.cancel()

    return results()


def _take(future: Future[Any], until: float | None) -> list[Any]:
    try:
        chunk: list[Any] = future.result(None if until is None else until - time.monotonic())
        return chunk
    except BaseException:
        future.cancel()
        raise
    finally:
        del future
