"""A batch: one call of the function for each item, some of them at once, a line for each as it ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent
from gevent.event import Event
from gevent.lock import Semaphore

from ..errors import CallError, Cancelled, refusal
from ..pool.frames import Body, whole
from ..runner import Running
from ..wire.json import dumps
from ..wire.message import Args, Call, item_line, member

if TYPE_CHECKING:
    from .answer import Answer
    from .server import Server

__all__ = ["Batch"]

#: How many items of one batch run at once.
WINDOW = 256


class Batch:
    """Runs the items in a greenlet of its own, which waits while ``WINDOW`` of them run or the peer doesn't read."""

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
        self._peer = answer.session.connection.peer
        self.limits = server.limits
        self._slots = Semaphore(min(WINDOW, self.limits.max_in_flight, self.limits.max_calls))
        self._item_slots = server.item_slots
        self._running: dict[int, Running | None] = {}
        self._none_running = Event()
        self._cancelled = False
        self._done = self._failed = 0
        gevent.spawn(self._run)

    def cancel(self) -> None:
        """Cancel the items that run, and start no more."""
        self._cancelled = True
        for running in list(self._running.values()):
            if running is not None:
                running.cancel()

    def grant(self, items: int) -> None:
        """A batch is no stream: there is nothing to grant."""

    def _run(self) -> None:
        for index in range(len(self._items)):
            if index % 64 == 63:
                gevent.sleep(1e-9)  # there may be millions of them, and what is refused never waits: a whole turn
            self._slots.acquire()
            self._item_slots.acquire()
            self._answer.session.connection.wait_until_read()
            if self._cancelled:
                self._release()
                break
            args, self._items[index] = self._items[index], None
            self._running[index] = None
            item = _Item(self, index)
            try:
                running = self._runner.start_item(self.call, args, item, self._deadline, self._peer, index)
            except CallError as error:
                item.refuse(error)
            else:
                if index in self._running:
                    self._running[index] = running
        while self._running:
            self._none_running.clear()
            self._none_running.wait()
        if self._cancelled:
            self._answer.refuse(Cancelled(f"cancelled after {self._done + self._failed} items", started=True))
        else:
            self._answer.done(dumps({"done": self._done, "failed": self._failed}))

    def ended(self, index: int, body: bytes, *, well: bool) -> None:
        """An item has ended."""
        self._done += well
        self._failed += not well
        self._running.pop(index, None)
        self.send(index, body)
        self._release()
        if not self._running:
            self._none_running.set()

    def _release(self) -> None:
        self._slots.release()
        self._item_slots.release()

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
