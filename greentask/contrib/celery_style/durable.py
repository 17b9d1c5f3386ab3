"""Tasks that a server keeps on disk: they outlive who sent them, and any process finds them by their id."""

from __future__ import annotations

import concurrent.futures
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any

from ...errors import DeadlineExceeded, QueueError, UnknownTask, from_wire
from .exceptions import NotCarriedOver, TaskRevokedError
from .message import Message
from .request import pack
from .transport import Live, Sent

if TYPE_CHECKING:
    from ...client import Client

__all__ = ["Durable", "has_queue"]

_LEAST = 0.001  # seconds


def has_queue(client: Client) -> bool:
    """Whether the server keeps tasks on disk: asks it. Raises ``ConnectionLost`` where there is none."""
    ask = client.using(idempotent=True).submit_args
    # Of a task that nobody has: that is quick, and changes nothing.
    error = Context().run(ask, "greentask.queue", {"action": "show", "task": "0"}).exception()
    if error is not None and not isinstance(error, (QueueError, UnknownTask)):
        raise error
    return error is None


class Kept(Sent):
    """A task in a server's queue: the server is asked, until its end is known here."""

    __slots__ = ("_client", "_end", "_receipt")

    def __init__(self, client: Client, id: str, task: str = "") -> None:
        super().__init__(id, task)
        self._client = client.using(idempotent=True)
        self._receipt = client.receipt(id)
        self._end: tuple[Any, BaseException | None] | None = None

    def forget(self) -> None:
        """Nothing is held of it here, and the server forgets it in its time."""

    def name(self) -> str:
        """The task's name; empty where the server doesn't know it (any more)."""
        if not self.task:  # it was found by its id
            self._look()
        return self.task

    def done(self) -> bool:
        """Whether it has ended; one that the server doesn't know has not, as Celery has it."""
        return self._end is not None or self._look() in ("done", "failed", "revoked", "expired")

    def error(self, timeout: float | None = None) -> BaseException | None:
        """Waits for the end, which is told when it is there."""
        until = None if timeout is None else time.monotonic() + timeout
        while self._end is None:
            left = None if until is None else max(_LEAST, until - time.monotonic())
            try:
                self._end = self._receipt.result(left), None
            except Exception as error:  # the task's, or of waiting for it
                if self.done():
                    continue
                if not isinstance(error, DeadlineExceeded):
                    raise
                if until is not None and time.monotonic() >= until:
                    raise concurrent.futures.TimeoutError from None
        return self._end[1]

    def value(self) -> Any:
        """The result."""
        return None if self._end is None else self._end[0]

    def cancel(self, *, terminate: bool) -> None:
        """Have it not begin. What runs is left alone."""
        if not self._receipt.revoke() and terminate and self._look() == "running":
            raise NotCarriedOver(
                f"revoke(terminate=True) of {self.task}[{self.id}], which runs: a task in a queue is not interrupted; "
                "give it a limit where it is declared: task(time_limit=…)"
            )

    def _look(self) -> str | None:
        """Ask for its state; None: it is not known (any more)."""
        try:
            told: dict[str, Any] = self._client.call_args("greentask.result", {"task": self.id})
        except QueueError:
            return None
        self.task, state = told["name"], str(told["state"])
        if state == "done":
            self._end = told["result"], None
        elif state == "failed":
            self._end = None, from_wire(told["error"])
        elif state in ("revoked", "expired"):
            what = "was revoked" if state == "revoked" else "expired before its turn came"
            self._end = None, TaskRevokedError(f"{self.task}[{self.id}] {what}")
        elif "progress" in told:
            self.heard(told["progress"])
        else:
            is_retried = state != "running" and told["attempts"] > 0
            self.state, self.meta = "RETRY" if is_retried else None, None
        return state


class Durable:
    """Enqueues tasks. What is part of a canvas, or has a ``link``, is called as where there is no queue.

    For what follows on its end is done by the program that sent it.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        self._live = Live(lambda: client)

    def check(self, message: Message) -> None:
        """A queue can do all that a message has; what a canvas can't is said by ``promise``."""

    def promise(self, message: Message) -> Sent:
        """Part of a canvas."""
        _check_canvas(message)
        return self._live.promise(message)

    def send(self, message: Message, into: Sent | None = None) -> Sent:
        """Returns when it is on disk."""
        if message.link or into is not None:
            _check_canvas(message)
            return self._live.send(message, into)
        if message.has_own_id:
            raise NotCarriedOver(
                f"task_id= in a call of task {message.task!r}: a task in a queue has an id of the queue's, which delay "
                "gives; against enqueueing it twice, say task.using(key=…).enqueue(…)"
            )
        args = pack(None, message.args, message.kwargs, message.expires) if message.packed else message.plain()
        ttl = None if message.expires is None else max(_LEAST, message.expires - time.time())
        client = self._client.using(delay=message.countdown, at=message.at, ttl=ttl)
        # Context(): the deadline of the task that we may be in is not that of a task which it only starts.
        receipt = Context().run(client.enqueue_args, message.task, args)
        return Kept(self._client, receipt.id, message.task)

    def fail(self, promised: Sent, error: Exception) -> None:
        """Part of a canvas, which is not sent."""
        self._live.fail(promised, error)

    def find(self, id: str) -> Sent:
        """Any that the server knows; the server is not asked yet."""
        return Live.known(id) or Kept(self._client, id)


def _check_canvas(message: Message) -> None:
    if message.waits is not None:
        raise NotCarriedOver(
            f"{message.waits}= in a call of task {message.task!r} that is part of a chain, group or chord, or has a "
            "link: these aren't kept in the queue; send it by itself"
        )
