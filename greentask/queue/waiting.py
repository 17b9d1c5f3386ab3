"""Those who wait for tasks to end, and what they are told: ``greentask.result``."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from gevent.hub import get_hub

from ..errors import CallError, Cancelled, DeadlineExceeded, QueueError, refusal
from ..pool.calls import Listener
from ..wire.json import dumps, loads
from .asked import as_call_error
from .interface import FINAL, Found, Queue

__all__ = ["Waiters", "Waiting"]


class Waiters:
    """All of them at one server; ``newest_report`` is the progress of a task that runs here."""

    def __init__(self, queue: Queue, newest_report: Callable[[str], bytes | None]) -> None:
        self.queue = queue
        self.newest_report = newest_report
        self._waiting: dict[str, list[Waiting]] = {}  # by the tasks' ids

    def wait(self, id: str, key: str, answer: Listener, patience: float | None, *, wants_progress: bool) -> Waiting:
        """Wait for the task of that id, or which has that key."""
        waiting = Waiting(self, id or key, answer, patience, wants_progress=wants_progress, by_key=bool(key))
        (self.queue.find_by_key(key) if key else self.queue.find(id)).add_done_callback(waiting.look)
        return waiting

    def follow(self, waiting: Waiting) -> Callable[[], None]:
        """Have it told when its task has ended, and of progress meanwhile; the function ends that."""
        id = waiting.id
        self._waiting.setdefault(id, []).append(waiting)
        forget = self.queue.follow(id, waiting.end, waiting.report)

        def leave() -> None:
            forget()
            waiters = self._waiting.get(id, [])
            if waiting in waiters:
                waiters.remove(waiting)
            if not waiters:
                self._waiting.pop(id, None)

        return leave

    def report(self, id: str, report: bytes) -> None:
        """A task that runs here is so far."""
        for waiting in self._waiting.get(id, ()):
            waiting.report(report)

    def refuse(self, error: CallError) -> None:
        """Let nobody wait any longer."""
        for waiting in [one for waiters in self._waiting.values() for one in waiters]:
            waiting.refuse(error)


class Waiting:
    """Somebody who waits for a task's end; ``patience`` in seconds, None for as long as it takes."""

    waits = True

    def __init__(
        self,
        waiters: Waiters,
        id: str,
        answer: Listener,
        patience: float | None,
        *,
        wants_progress: bool,
        by_key: bool = False,
    ) -> None:
        self.id = id
        self._by_key = by_key
        self._forget: Callable[[], None] | None = None
        self._waiters = waiters
        self._answer: Listener | None = answer
        self._patience = patience
        self._wants_progress = wants_progress
        self._timer: Any = None

    def look(self, future: Future[Found | None]) -> None:
        """What is known of it to begin with."""
        error = future.exception()
        if error is not None:
            self.refuse(as_call_error(error))
            return
        found = future.result()
        if found is None:
            whose = "with the key " if self._by_key else ""
            self.refuse(QueueError(f"the queue knows no task {whose}{self.id!r:.80}, or not any more"))
            return
        self.id, self._by_key = found.id, False
        if found.state in FINAL or self._patience == 0:
            self.end(found)
        elif self._answer is not None:
            if self._patience is not None:
                self._timer = get_hub().loop.timer(self._patience)
                self._timer.start(self._out_of_patience)
            self._forget = self._waiters.follow(self)

    def end(self, found: Found) -> None:
        """Tell what is known."""
        answer = self._take()
        if answer is not None:
            answer.done(_told(found, self._waiters.newest_report(found.id)))

    def report(self, report: bytes) -> None:
        """Tell how far it is."""
        if self._answer is not None and self._wants_progress:
            self._answer.progress(report)

    def refuse(self, error: CallError) -> None:
        """Don't tell."""
        answer = self._take()
        if answer is not None:
            answer.refuse(error)

    def cancel(self) -> None:
        self.refuse(Cancelled("cancelled by its caller", started=False))

    def grant(self, items: int) -> None:
        """It has no stream."""

    def _out_of_patience(self) -> None:
        self._waiters.queue.find(self.id).add_done_callback(self._give_up)

    def _give_up(self, future: Future[Found | None]) -> None:
        self._patience = 0
        self.look(future)

    def _take(self) -> Listener | None:
        answer, self._answer = self._answer, None
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        if self._forget is not None:
            self._forget()
        return answer


def _told(found: Found, report: bytes | None) -> bytes:
    """What ``greentask.result`` answers."""
    head = b'{"task":"%b","name":%b,"state":"%b","attempts":%d' % (
        found.id.encode(),
        dumps(found.task),
        found.state.encode(),
        found.attempts,
    )
    if found.state == "done":
        return head + b',"result":%b}' % (found.result or b"null")
    if found.state == "failed":
        return head + b',"error":%b}' % dumps(_shown(found.error))
    if found.state == "revoked":
        return head + b',"error":%b}' % dumps(refusal(Cancelled("it was revoked", started=found.attempts > 0)))
    if found.state == "expired":
        late = DeadlineExceeded("it had not begun when its ttl was over", started=False)
        return head + b',"error":%b}' % dumps(refusal(late))
    report = report if found.progress is None else found.progress
    if found.state == "running" and report is not None:
        return head + b',"progress":%b}' % report
    return head + b"}"


def _shown(error: bytes | None) -> dict[str, Any]:
    """An attempt's error without its traceback, which is for who looks at dead letters."""
    told: dict[str, Any] = loads(error or b'{"type":"TaskError","message":"nothing is known of its error"}')
    told.pop("traceback", None)
    return told
