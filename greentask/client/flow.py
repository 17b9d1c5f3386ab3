"""Several futures at once: ``wait``, ``as_completed``, ``gather``.

The first two are those of ``concurrent.futures``, which are made of ``threading``'s parts. In a patched program these
are gevent's, with which the main thread can't wait for another one; ours wait in a greenlet or thread of any program,
for any future of ``concurrent.futures``.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION, Future
from concurrent.futures import TimeoutError as NotInTime
from concurrent.futures._base import CANCELLED_AND_NOTIFIED, FINISHED, DoneAndNotDoneFutures
from typing import Any, TypeVar

from .future import ClientFuture
from .mailbox import Mailbox

__all__ = ["as_completed", "gather", "wait"]

T = TypeVar("T")


def as_completed(futures: Iterable[Future[T]], timeout: float | None = None) -> Iterator[Future[T]]:
    """The futures as they end, those first that have ended already; each once.

    Raises ``concurrent.futures.TimeoutError`` where one has not ended after ``timeout`` seconds.

    >>> for future in as_completed([report.submit(year) for year in years]):              # doctest: +SKIP
    ...     print(future.result())
    """
    until = None if timeout is None else time.monotonic() + timeout
    return _as_completed(set(futures), until)


def _as_completed(futures: set[Future[T]], until: float | None) -> Iterator[Future[T]]:
    waiter = _Waiter(futures)  # not before: who asks for none of them leaves nothing with them
    try:
        while waiter.pending:
            future = waiter.next(until)
            if future is None:
                raise NotInTime(f"{len(waiter.pending)} of {len(futures)} futures have not ended")
            yield future
    finally:
        waiter.leave()


def wait(
    futures: Iterable[Future[T]], timeout: float | None = None, return_when: str = ALL_COMPLETED
) -> DoneAndNotDoneFutures[T]:
    """Wait for all of them, the first, or the first error; the sets of those that have (not) ended by then.

    ``timeout`` is in seconds, ``return_when`` one of the names that ``concurrent.futures`` has for it.

    >>> done, not_done = wait(futures, timeout=5, return_when="FIRST_COMPLETED")          # doctest: +SKIP
    """
    if return_when not in (ALL_COMPLETED, FIRST_COMPLETED, FIRST_EXCEPTION):
        raise ValueError(f"return_when is ALL_COMPLETED, FIRST_COMPLETED or FIRST_EXCEPTION, not {return_when!r}")
    until = None if timeout is None else time.monotonic() + timeout
    waiter = _Waiter(futures)
    done: set[Future[T]] = set()
    try:
        while waiter.pending:
            future = waiter.next(time.monotonic() if done and return_when == FIRST_COMPLETED else until)
            if future is None:
                break
            done.add(future)
            if return_when == FIRST_EXCEPTION and not future.cancelled() and future.exception() is not None:
                until = time.monotonic()  # whatever else has ended is taken along
    finally:
        waiter.leave()
    return DoneAndNotDoneFutures(done, set(waiter.pending))


def gather(*futures: Future[Any], timeout: float | None = None, return_exceptions: bool = False) -> list[Any]:
    """The results of all, in the order of the futures.

    At the first error, and where ``timeout`` seconds are over (``concurrent.futures.TimeoutError``), those that have
    not ended are cancelled. With ``return_exceptions`` errors are given in place of results, and all are waited for.

    >>> users, orders = gather(count_users.submit(), count_orders.submit(2026))           # doctest: +SKIP
    """
    for future in futures:
        if not isinstance(future, Future):
            raise TypeError(f"gather takes futures, one argument each (gather(*futures)), not {future!r:.80}")
    try:
        for future in as_completed(futures, timeout):
            if not return_exceptions:
                future.result()  # or its error
        return [_error_or_result(future) if return_exceptions else future.result() for future in futures]
    finally:
        left = [*futures]
        del futures
        while left:
            future = left.pop()
            future.cancel()  # of no effect where it has ended
            del future  # or its error would keep this frame, and this frame the error


def _error_or_result(future: Future[Any]) -> Any:
    try:
        return future.result()
    except Exception as error:
        return error


class _Waiter(Mailbox[Future[T]]):
    """Gets the futures as they end. One of those that ``concurrent.futures`` has futures tell of their end."""

    __slots__ = ("pending",)

    def __init__(self, futures: Iterable[Future[T]]) -> None:
        super().__init__()
        self.pending = set(futures)
        for future in self.pending:
            if isinstance(future, ClientFuture):
                future.check_may_wait()
        for future in self.pending:
            with future._condition:
                if future._state in (CANCELLED_AND_NOTIFIED, FINISHED):
                    self.put(future)
                else:
                    future._waiters.append(self)  # type: ignore[arg-type]  # which has these three

    add_result = add_exception = add_cancelled = Mailbox.put

    def next(self, until: float | None) -> Future[T] | None:
        """The next one that has ended; None where none has until that time, of the monotonic clock."""
        while self.wait(None if until is None else max(0.0, until - time.monotonic())):
            future = self.take()
            if future in self.pending:  # else it has told twice
                self.pending.discard(future)
                return future
        return None

    def leave(self) -> None:
        """The others need not tell any more: who waits again and again leaves nothing behind."""
        for future in self.pending:
            with future._condition:
                waiters: list[Any] = future._waiters
                if self in waiters:
                    waiters.remove(self)
