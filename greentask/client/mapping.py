"""The loop of ``map``: calls in flight within a window, and their results in order or as they come."""

from __future__ import annotations

import itertools
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from typing import Any

from .mailbox import Mailbox

__all__ = ["map_calls"]


def map_calls(calls: Iterator[Future[Any]], window: int, *, unordered: bool, return_exceptions: bool) -> Iterator[Any]:
    """The results of calls, each of which starts when it is taken from ``calls``; at most ``window`` are in flight.

    Closing the iterator cancels those that are.
    """
    futures = _as_finished(calls, window) if unordered else _in_order(calls, window)
    return _results(futures, return_exceptions)


def _in_order(submit: Iterator[Future[Any]], window: int) -> Iterator[Future[Any]]:
    flying: deque[Future[Any]] = deque()
    broken: Exception | None = None  # an error of the items themselves: it has its turn, too

    def launch(count: int) -> None:
        nonlocal broken
        try:
            flying.extend(itertools.islice(submit, count))
        except Exception as error:
            broken = error

    try:
        launch(window)
        while flying:
            yield flying.popleft()
            launch(1)
        if broken is not None:
            raise broken
    finally:
        for future in flying:
            future.cancel()


def _as_finished(submit: Iterator[Future[Any]], window: int) -> Iterator[Future[Any]]:
    finished: Mailbox[Future[Any]] = Mailbox()
    flying: set[Future[Any]] = set()
    broken: Exception | None = None

    def launch(count: int) -> None:
        nonlocal broken
        try:
            for future in itertools.islice(submit, count):
                flying.add(future)
                future.add_done_callback(finished.put)
        except Exception as error:
            broken = error

    try:
        launch(window)
        while flying:
            future = finished.take()
            flying.discard(future)
            yield future
            launch(1)
        if broken is not None:
            raise broken
    finally:
        for future in flying:
            future.cancel()


def _results(futures: Iterator[Future[Any]], return_exceptions: bool) -> Iterator[Any]:
    current: Future[Any] | None = None
    try:
        for current in futures:
            try:
                result = current.result()
            except Exception as error:
                if not return_exceptions:
                    raise
                result = error
            yield result
    finally:
        if current is not None:
            current.cancel()  # of no effect where it has ended
        close: Callable[[], None] | None = getattr(futures, "close", None)
        if close is not None:
            close()
