"""Many calls of one function on one line: what ``map`` sends where calls are quick."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any

from ..errors import (
    ConnectionLost,
    Draining,
    GreentaskError,
    InvalidArguments,
    InvalidMessage,
    Overloaded,
    WorkerLost,
)
from ..wire.message import Args, Call, encode_call, has_large
from .carrier import Receiver, carrier_of
from .core import Core
from .receivers import CallFuture
from .router import Router

__all__ = ["Batching"]

#: Calls that share a line: at least, or it is not worth it, and at most, or they would not be spread over servers.
_FEWEST = 4
_MOST = 64
#: Bytes of a shared line: with larger ones, reading it would hold up the calls of others.
_LARGEST = 64 * 1024


class ItemFuture(CallFuture):
    """The future of one item of a batch, or of the call that was sent in its place."""

    def __init__(self, batch: BatchReceiver, index: int) -> None:
        super().__init__(batch.router, batch.id)
        self.is_patient = batch.is_patient
        self._batch = batch
        self.index = index
        self._is_alone = False

    def send_alone(self, id: int, data: bytes, timeout: float | None, error: BaseException) -> bool:
        """Send it as a call of its own, if that may be after the error; in the home's thread."""
        if self.done():
            return False
        self._id = id
        self._is_alone = True
        return self._batch.router.start_alone(id, data, self, timeout, self._batch.id, error)

    def is_on_its_way(self) -> bool:
        """Whether it was sent as a call of its own, which has not ended."""
        return self._is_alone and self._batch.router.has(self._id)

    def _cancel_call(self) -> None:
        if self._is_alone:
            self._carrier.forget(self._id)
        else:
            self._batch.forget(self.index)


class BatchReceiver(Receiver):
    """Hears what comes of a batch, and tells its items' futures. Belongs to the home's thread.

    ``failed`` is told each item's error, and whether it is that of the whole batch: it ends the future, or sends the
    item alone. The batch is cancelled with the last of its items.
    """

    def __init__(
        self,
        router: Router,
        id: int,
        count: int,
        failed: Callable[[ItemFuture, BaseException, bool], None],
        *,
        patient: bool = False,
    ) -> None:
        self.is_patient = patient
        self.router = router
        self.id = id
        self._failed = failed
        # Not one longer than it is awaited: it refers to us, and what it has would be left to the garbage collection.
        self._pending: dict[int, ItemFuture] = {index: ItemFuture(self, index) for index in range(count)}

    @property
    def pending(self) -> list[ItemFuture]:
        """The futures of the items that are awaited."""
        return [*self._pending.values()]

    def forget(self, index: int) -> None:
        """Nobody waits for that item."""
        if self._pending.pop(index, None) is not None and not self._pending:
            self.router.forget(self.id)

    def part(self, index: int, value: Any, error: Exception | None) -> bool:
        future = self._pending.get(index)
        if future is None:
            return False  # it was cancelled, or is answered twice
        if error is None:
            future.ended(value, None)
        else:
            self._fail(future, error, False)
        self._pending.pop(index, None)  # last, as below
        return True

    def ended(self, value: Any, error: BaseException | None) -> None:
        for index, future in list(self._pending.items()):
            if error is None:
                missing = InvalidMessage(f"the server ended a batch without an answer for item {index}")
                future.ended(None, missing)
            else:
                self._fail(future, error, True)
            self._pending.pop(index, None)  # last: where a Ctrl-C comes in between, the batch ends once more

    def _fail(self, future: ItemFuture, error: BaseException, is_whole: bool) -> None:
        if not future.is_on_its_way():
            self._failed(future, error, is_whole)


class Batching:
    """Starts the calls of one ``map``: several on a line where they may be, else one by one with ``submit``.

    ``patient`` ones wait where a server has no room for them. What becomes of a call doesn't depend on how it was sent:
    an item is sent again, as a call of its own, where that would have been.
    """

    def __init__(
        self,
        core: Core,
        function: str,
        submit: Callable[[Args], Future[Any]],
        timeout: Callable[[], float | None],
        *,
        idempotent: bool,
        patient: bool = False,
    ) -> None:
        self._core = core
        self._function = function
        self._submit = submit
        self._timeout = timeout
        self._idempotent = idempotent
        self._patient = patient
        self._most = _MOST

    def start(self, items: Sequence[Args], together: bool) -> Sequence[Future[Any]]:
        """A future for each item; ``together``: in batches, if there are enough of them."""
        router = carrier_of(self._core.router)
        futures: list[Future[Any]] = []
        # Others want to see the calls one by one; and of large ones no two have room on a line.
        if together and isinstance(router, Router) and not (items and has_large(items[0])):
            while self._most >= _FEWEST and len(items) - len(futures) >= _FEWEST:
                futures.extend(self._start_batch(router, items[len(futures) : len(futures) + self._most]))
        futures.extend(self._submit(item) for item in items[len(futures) :])
        return futures

    def _start_batch(self, router: Router, items: Sequence[Args]) -> Sequence[Future[Any]]:
        """Their futures; none where the line would be too large, and next time a smaller one is to be tried."""
        try:
            timeout = self._timeout()
            call = Call(self._function, None, self._core.next_id(), timeout, batch=list(items))
            data = encode_call(call)
        except GreentaskError:  # of one of them, perhaps, which will have it in its turn
            return [self._submit(item) for item in items]
        if len(data) > min(_LARGEST, self._core.max_line):
            self._most = len(items) // 2
            return ()
        assert isinstance(call.id, int)
        until = None if timeout is None else time.monotonic() + timeout

        def failed(future: ItemFuture, error: BaseException, is_whole: bool) -> None:
            if self._patient and isinstance(error, Overloaded):
                self._most = 0  # of those that share a line, it would refuse the most again
            left = None if until is None else until - time.monotonic()
            if self._may_go_alone(error, is_whole) and (left is None or left > 0):
                id = self._core.next_id()
                line = encode_call(Call(self._function, items[future.index], id, left))
                if future.send_alone(id, line, left, error):
                    return
            future.ended(None, error)

        receiver = BatchReceiver(router, call.id, len(items), failed, patient=self._patient)
        futures = receiver.pending
        router.home.run(router.start, call.id, data, receiver, timeout, self._idempotent, len(items))
        return futures

    def _may_go_alone(self, error: BaseException, is_whole: bool) -> bool:
        if is_whole and isinstance(error, InvalidMessage):  # a server that knows no batches
            self._most = 0
            return True
        if isinstance(error, Draining):
            return not is_whole  # or the router has tried it
        return isinstance(error, (ConnectionLost, InvalidArguments, Overloaded, WorkerLost))


def one_by_one(submit: Callable[[Args], Future[Any]]) -> Callable[[Sequence[Args], bool], Sequence[Future[Any]]]:
    """Starts calls of a ``map`` that may not share a line."""
    return lambda items, together: [submit(item) for item in items]
