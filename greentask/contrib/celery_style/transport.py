"""How tasks get to where they run: the seam behind everything that is sent, asked for by its id, or retried.

``Live`` hands them to a server through a client, and what is on its way is known in this process only: it ends with
the program. ``Eager`` runs them here and now. Where the server has a queue, ``durable.Durable`` takes their place, and
has tasks kept on disk: for ``countdown``, ``eta``, ids of other processes, ``retry``, and canvases that outlive all.
"""

from __future__ import annotations

import atexit
import logging
import os
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import CancelledError, Future
from contextvars import Context
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from ...errors import CallError, ConnectionLost
from ...tasks.remote import Caller
from ...tasks.retries import Retry
from .exceptions import needs_queue
from .message import Message
from .request import Request, entered, pack

if TYPE_CHECKING:
    from .task import CeleryTask

__all__ = ["Eager", "Live", "Sent", "Transport"]

logger = logging.getLogger(__name__)


class Sent:
    """A task that is on its way, runs, or has ended; ``state`` and ``meta`` are what it last said of itself."""

    __slots__ = ("__weakref__", "future", "id", "meta", "state", "task")

    def __init__(self, id: str, task: str, future: Future[Any] | None = None) -> None:
        self.id = id
        self.task = task
        self.future: Future[Any] = Future() if future is None else future
        self.state: str | None = None
        self.meta: Any = None

    def forget(self) -> None:
        """It is not found by its id any more."""
        _known.pop(self.id, None)

    def name(self) -> str:
        """The task's name."""
        return self.task

    def done(self) -> bool:
        """Whether it has ended."""
        return self.future.done()

    def error(self, timeout: float | None = None) -> BaseException | None:
        """The error with which it ended; waits for its end. Raises as ``concurrent.futures`` does."""
        return self.future.exception(timeout)

    def value(self) -> Any:
        """The result of one that has ended well."""
        return self.future.result()

    def traceback(self) -> str | None:
        """The text of its last error's traceback, where that is kept."""
        return None

    def cancel(self, *, terminate: bool) -> None:
        """Have it not run, or interrupt it."""
        self.future.cancel()

    def heard(self, report: dict[str, Any]) -> None:
        """Take a progress report: of ``update_state``, or of ``greentask.current().progress``."""
        if "state" in report:
            self.state, self.meta = report["state"], report.get("meta")
        else:
            self.state, self.meta = "PROGRESS", report


class Transport(Protocol):
    """Gets tasks to where they run."""

    def check(self, message: Message) -> None:
        """Raise ``NeedsQueue`` where its options ask for what this transport can't do."""

    def promise(self, message: Message) -> Sent:
        """What will be sent later, with another message of the same id, by ``send(…, into=…)``."""

    def send(self, message: Message, into: Sent | None = None) -> Sent:
        """Send it; what has become of it is in ``future``."""

    def fail(self, promised: Sent, error: Exception) -> None:
        """It is not sent after all, for this reason."""

    def find(self, id: str) -> Sent:
        """What was sent under this id. Raises ``NeedsQueue`` where this process doesn't know."""


# What is in flight, to be told at the program's end; and all whose result somebody may still ask for. Both have one
# entry for a task that is on its way, and no more: nothing is kept of those whose result nobody holds.
_in_flight: set[Sent] = set()
_known: weakref.WeakValueDictionary[str, Sent] = weakref.WeakValueDictionary()


class Live:
    """Calls on a server. ``caller`` gives the client."""

    def __init__(self, caller: Callable[[], Caller]) -> None:
        self._caller = caller

    def check(self, message: Message) -> None:
        """Refuse what must wait on disk."""
        if message.waits is not None:
            raise needs_queue(f"{message.waits}= in a call of task {message.task!r}")

    def promise(self, message: Message) -> Sent:
        """A task for later: it is known, though not yet sent."""
        from .promise import Promise

        self.check(message)
        return _know(Sent(message.id, message.task, Promise()))

    def send(self, message: Message, into: Sent | None = None) -> Sent:
        """Send it. It has its own time, whatever is left of that of a task that sends it."""
        self.check(message)
        sent = Sent(message.id, message.task) if into is None else into
        args = pack(message, message.id)
        # Context(): the deadline of the task that we may be in is not that of a task which it only starts.
        hear = partial(_hear, weakref.ref(sent))  # weakly: nothing must go round from it to itself
        future = Context().run(self._caller().submit_args, message.task, args, progress=hear)
        if into is None:
            sent.future = future
        else:
            into.future.follow(future)  # type: ignore[attr-defined]
        _in_flight.add(sent)
        future.add_done_callback(partial(_ended, weakref.ref(sent)))
        return _know(sent)

    def fail(self, promised: Sent, error: Exception) -> None:
        """It is not sent."""
        promised.future.fail(error)  # type: ignore[attr-defined]

    def find(self, id: str) -> Sent:
        """Only what this process has sent, and somebody holds the result of."""
        sent = _known.get(id)
        if sent is None:
            raise needs_queue(
                f"AsyncResult({id!r}), of a task that another process sent or whose result nobody holds any more,",
                "or keep the AsyncResult that delay() gave",
            )
        return sent


class Eager:
    """Runs tasks here and now, for tests: ``task_always_eager``, and ``apply``. One for each call of a canvas.

    What follows in a canvas runs when the task before it has returned, and not inside of it: chains may be long.
    ``countdown`` and ``eta`` are not waited for, and a task that asks for it is tried again at once, as Celery does.
    """

    def __init__(self, find_task: Callable[[str], CeleryTask], live: Transport) -> None:
        self._find_task = find_task
        self._live = live
        self._steps: deque[Callable[[], None]] = deque()
        self._is_busy = False

    def check(self, message: Message) -> None:
        """It does all."""

    def promise(self, message: Message) -> Sent:
        """A task for later."""
        self.check(message)
        return _know(Sent(message.id, message.task))

    def send(self, message: Message, into: Sent | None = None) -> Sent:
        """Run it."""
        sent = self.promise(message) if into is None else into
        self._run(lambda: self._run_task(message, sent.future))
        return sent

    def fail(self, promised: Sent, error: Exception) -> None:
        """It does not run."""
        self._run(lambda: promised.future.set_exception(error))

    def find(self, id: str) -> Sent:
        """As elsewhere."""
        return self._live.find(id)

    def _run(self, step: Callable[[], None]) -> None:
        self._steps.append(step)
        if not self._is_busy:
            self._is_busy = True
            try:
                while self._steps:
                    self._steps.popleft()()
            finally:
                self._is_busy = False

    def _run_task(self, message: Message, future: Future[Any]) -> None:
        task = self._find_task(message.task)
        request = Request(message.id, task.name, message.args, message.kwargs, message.expires, is_eager=True)
        while True:
            try:
                with entered(request):
                    result = task.attempt(message.args, message.kwargs)
            except Retry:
                request = replace(request, retries=request.retries + 1)
                continue
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)
            break


def _hear(ref: weakref.ref[Sent], report: dict[str, Any]) -> None:
    sent = ref()
    if sent is not None:
        sent.heard(report)


def _know(sent: Sent) -> Sent:
    _known[sent.id] = sent
    return sent


def _ended(ref: weakref.ref[Sent], future: Future[Any]) -> None:
    sent = ref()
    if sent is None:
        return  # of a parent, before a fork
    _in_flight.discard(sent)
    try:
        error = future.exception()
    except CancelledError:
        return
    # Nobody may ever ask for the result, and the server doesn't know of it.
    if (isinstance(error, ConnectionLost) and not error.sent) or (
        isinstance(error, CallError) and error.started is False
    ):
        logger.error("%s[%s] did not run: %s: %s", sent.task, sent.id, type(error).__name__, error)


def _at_exit() -> None:
    left = [f"{sent.task}[{sent.id}]" for sent in list(_in_flight) if not sent.future.done()]
    if left:
        shown = ", ".join(left[:10]) + (f" and {len(left) - 10} more" if len(left) > 10 else "")
        logger.error(
            "The program ends, and with it what it sent and did not wait for: %s. Tasks that outlive their caller need "
            "a durable queue, `greentask serve --queue FILE`; or wait for their results",
            shown,
        )


atexit.register(_at_exit)
os.register_at_fork(after_in_child=_in_flight.clear)  # the parent's
