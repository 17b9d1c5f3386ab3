"""The loop of ``map``: calls in flight within a window, and their results in order or as they come.

A call is started for each item. Where results come faster than they are taken, the window is not filled up for each of
them but when a quarter of it is free: calls that start at once can share a line, which halves what they cost.
"""

from __future__ import annotations

import itertools
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, Future
from concurrent.futures import TimeoutError as NotYet
from typing import Any, TypeVar

from .mailbox import Mailbox

__all__ = ["Start", "map_calls"]

#: Seconds that a little room in the window may wait for more.
_PATIENCE = 0.005

T = TypeVar("T")
#: Starts calls, in that order. False: each by itself, for nothing is known yet of how long they take.
Start = Callable[[Sequence[T], bool], Sequence[Future[Any]]]


def map_calls(
    items: Iterator[T], start: Start[T], window: int, *, unordered: bool, return_exceptions: bool
) -> Iterator[Any]:
    """The results of a call for each item; at most ``window`` are in flight. Closing the iterator cancels those.

    The items are read only as results are taken.
    """
    feed = _Feed(items, start, window)
    futures = _as_finished(feed) if unordered else _in_order(feed)
    return _results(futures, return_exceptions)


class _Feed:
    """Starts calls of the items that are still to come, as there is room for them in the window."""

    def __init__(self, items: Iterator[T], start: Start[T], window: int) -> None:
        self._items = items
        self._start = start
        self._window = window
        self._started_at = -math.inf
        self._is_quick = False  # a quarter of the window is free again within _PATIENCE, at this pace
        self._broken: Exception | None = None  # an error of the items themselves: it has its turn, too

    def start(self, in_flight: int, has_result: Callable[[float], bool]) -> Sequence[Future[Any]]:
        """Start as many as there is room for; none where that is little, and a result can be had in so many seconds."""
        room = self._window - in_flight
        if self._broken is not None or room == 0:
            return ()
        if room * 4 < self._window and has_result(_PATIENCE if self._is_quick else 0.0):
            return ()
        is_first, now = self._started_at < 0, time.monotonic()
        self._is_quick = (now - self._started_at) * self._window <= _PATIENCE * room * 4
        self._started_at = now
        items = []
        try:
            for item in itertools.islice(self._items, room):
                items.append(item)
        except Exception as error:
            self._broken = error
        return self._start(items, not is_first)

    def end(self) -> None:
        """All that were started have ended."""
        if self._broken is not None:
            raise self._broken


def _in_order(feed: _Feed) -> Iterator[Future[Any]]:
    flying: deque[Future[Any]] = deque()

    def has_result(within: float) -> bool:
        if within and not flying[0].done():
            _wait(flying[0], within)
        return flying[0].done()

    try:
        while True:
            flying.extend(feed.start(len(flying), has_result))
            if not flying:
                break
            yield flying.popleft()
        feed.end()
    finally:
        for future in flying:
            future.cancel()


def _as_finished(feed: _Feed) -> Iterator[Future[Any]]:
    finished: Mailbox[Future[Any]] = Mailbox()
    flying: set[Future[Any]] = set()
    try:
        while True:
            for future in feed.start(len(flying), finished.wait):
                flying.add(future)
                future.add_done_callback(finished.put)
            if not flying:
                break
            future = finished.take()
            flying.discard(future)
            yield future
        feed.end()
    finally:
        for future in flying:
            future.cancel()


def _results(futures: Iterator[Future[Any]], return_exceptions: bool) -> Iterator[Any]:
    current: Future[Any] | None = None
    result: Any = None
    try:
        for current in futures:
            try:
                result = current.result()
            except Exception as error:
                if not return_exceptions:
                    raise
                result = error
            yield result
            result = None
    finally:
        if current is not None:
            current.cancel()  # of no effect where it has ended
            current = result = None  # or an error would keep this frame, and this frame the error
        close: Callable[[], None] | None = getattr(futures, "close", None)
        if close is not None:
            close()


def _wait(future: Future[Any], seconds: float) -> None:
    try:
        future.exception(seconds)
    except (NotYet, CancelledError):
        pass
