"""A batch: one call of the function for each item, some of them at once, a line for each as it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent

from ..errors import CallError, Cancelled, refusal
from ..pool.frames import Body, whole
from ..wire.json import dumps
from ..wire.message import Args, Call
from ..wire.reply import item_line, member
from .backlog import wait_to_begin
from .items import PAUSED_EVERY, Items

if TYPE_CHECKING:
    from .answer import Answer
    from .server import Server

__all__ = ["Batch"]


class Batch:
    """Runs the items in a greenlet of its own, which waits while too many of them run or the peer doesn't read."""

    def __init__(
        self,
        server: Server,
        call: Call,
        items: list[Args | None],
        deadline: float | None,
        answer: Answer,
    ) -> None:
        server.tasks.find(call.function)  # no such task: one error, and not one for each item
        self._runner = server.runner
        self.call = call
        self._items = items
        self._deadline = deadline
        self._answer = answer
        self._reader = answer.session.connection
        self.limits = server.limits
        self._running = Items(answer.session)
        self._done = self._failed = 0
        gevent.spawn(self._run)

    def cancel(self) -> None:
        """Cancel the items that run, and start no more."""
        self._running.cancel()

    def grant(self, items: int) -> None:
        """A batch is no stream: there is nothing to grant."""

    def _run(self) -> None:
        for index in range(len(self._items)):
            if index % PAUSED_EVERY == PAUSED_EVERY - 1:
                gevent.sleep(1e-9)
            self._running.take(index)
            wait_to_begin(self._reader)
            if self._running.are_cancelled:
                self._running.ended(index)
                break
            args, self._items[index] = self._items[index], None
            item = _Item(self, index)
            try:
                running = self._runner.start_item(self.call, args, item, self._deadline, self._reader, index)
            except CallError as error:
                item.refuse(error)
            else:
                self._running.started(index, running)
        self._running.wait()
        if self._running.are_cancelled:
            self._answer.refuse(Cancelled(f"cancelled after {self._done + self._failed} items", started=True))
        else:
            self._answer.done(dumps({"done": self._done, "failed": self._failed}))

    def ended(self, index: int, body: bytes, *, well: bool) -> None:
        """An item has ended."""
        self._done += well
        self._failed += not well
        self._running.ended(index)
        self.send(index, body)

    def send(self, index: int, body: bytes) -> None:
        """A line about an item."""
        self._answer.session.connection.send(item_line(self.call.id, index, body))

    @property
    def peer_is_behind(self) -> bool:
        """Whether the peer reads too slowly."""
        return self._answer.session.connection.is_behind


class _Item:
    """The ``Listener`` of one item."""

    __slots__ = ("_batch", "_index")

    def __init__(self, batch: Batch, index: int) -> None:
        self._batch = batch
        self._index = index

    def done(self, result: Body) -> None:
        self._batch.ended(self._index, member("result", whole(result)), well=True)

    def refuse(self, error: CallError) -> None:
        self.failed(dumps(refusal(error)))

    def failed(self, error: bytes) -> None:
        self._batch.ended(self._index, member("error", error), well=False)

    def progress(self, report: bytes) -> None:
        if not self._batch.peer_is_behind:
            self._batch.send(self._index, member("progress", report))

    def item(self, item: bytes) -> None:
        raise AssertionError("the items of a batch don't stream")
