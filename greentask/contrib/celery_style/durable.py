"""Tasks that a server keeps on disk: they outlive who sent them, and any process finds them by their id."""

from __future__ import annotations

import concurrent.futures
import time
from contextvars import Context
from typing import TYPE_CHECKING, Any

from ...errors import DeadlineExceeded, QueueError, UnknownTask, from_wire
from .exceptions import ChordError, TaskRevokedError
from .message import Message
from .request import pack
from .transport import Sent

if TYPE_CHECKING:
    from ...client import Client
    from ...tasks.remote import Receipt

__all__ = ["LEAST", "Durable", "Kept", "has_queue"]

#: Of a time that is over: seconds above 0.
LEAST = 0.001


def has_queue(client: Client) -> bool:
    """Whether the server keeps tasks on disk: asks it.

    Raises ``ConnectionLost`` where there is no server, and ``QueueError`` where its queue can't tell at the moment:
    the program must not go on as if there were none.
    """
    ask = client.using(idempotent=True).submit_args
    # Of a task that nobody has: that is quick, and changes nothing.
    error = Context().run(ask, "greentask.queue", {"action": "show", "task": "0"}).exception()
    if error is None:
        return True
    if isinstance(error, UnknownTask) or (isinstance(error, QueueError) and "has no queue" in str(error)):
        return False
    raise error


class Kept(Sent):
    """A task in a server's queue: the server is asked, until its end is known here."""

    __slots__ = ("_client", "_end", "_is_behind_group", "_receipt")

    def __init__(
        self,
        client: Client,
        id: str,
        task: str = "",
        *,
        receipt: Receipt[Any] | None = None,
        is_behind_group: bool = False,
    ) -> None:
        super().__init__(id, task)
        self._client = client.using(idempotent=True)
        self._receipt = receipt
        self._is_behind_group = is_behind_group
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
            left = None if until is None else max(LEAST, until - time.monotonic())
            try:
                self._end = self._find().result(left), None
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

    def traceback(self) -> str | None:
        """That of the last attempt."""
        shown = self._client.call("greentask.queue", action="show", task=self._find().id)
        text = shown["errors"][-1].get("traceback") if shown["errors"] else None
        return text if isinstance(text, str) else None

    def cancel(self, *, terminate: bool) -> None:
        """Have it not begin; with ``terminate``, have it end where it has."""
        self._find().revoke(running=terminate)

    def _find(self) -> Receipt[Any]:
        """Its receipt. Its id may be one of its caller's, which is its key then."""
        if self._receipt is None:
            self._look()
        return self._client.receipt(self.id) if self._receipt is None else self._receipt

    def _ask(self) -> dict[str, Any] | None:
        if self._receipt is not None:
            names = [{"task": self._receipt.id}]
        else:
            names = [{"task": self.id}, {"key": _key(self.id)}]
        for name in names:
            try:
                told: dict[str, Any] = self._client.call_args("greentask.result", name)
            except QueueError:
                continue
            self._receipt = self._client.receipt(told["task"])
            return told
        return None

    def _look(self) -> str | None:
        """Ask for its state; None: it is not known (any more)."""
        told = self._ask()
        if told is None:
            return None
        self.task, state = told["name"], str(told["state"])
        if state == "done":
            self._end = told["result"], None
        elif state == "failed":
            error: Exception = from_wire(told["error"])
            if self._is_behind_group and not told["attempts"]:  # it has that of one before it
                cause, error = error, ChordError(f"a task before it failed: {type(error).__name__}: {error}")
                error.__cause__ = cause
            self._end = None, error
        elif state in ("revoked", "expired"):
            what = "was revoked" if state == "revoked" else "expired before its turn came"
            self._end = None, TaskRevokedError(f"{self.task}[{self.id}] {what}")
        elif "progress" in told:
            self.heard(told["progress"])
        else:
            is_retried = state != "running" and told["attempts"] > 0
            self.state, self.meta = "RETRY" if is_retried else None, None
        return state


def _key(id: str) -> str:
    """The key of a task whose id its caller chose."""
    return f"celery:{id}"


class Durable:
    """Enqueues tasks, and finds any that its server's queue knows."""

    def __init__(self, client: Client) -> None:
        self.client = client

    def send(self, message: Message) -> Sent:
        """Returns when it is on disk."""
        own = message.id if message.has_own_id else None
        args = pack(message, own)
        ttl = None if message.expires is None else max(LEAST, message.expires - time.time())
        key = None if own is None else _key(own)
        client = self.client.using(delay=message.countdown, at=message.at, ttl=ttl, key=key)
        # Context(): the deadline of the task that we may be in is not that of a task which it only starts.
        receipt = Context().run(client.enqueue_args, message.task, args)
        return Kept(self.client, own or receipt.id, message.task, receipt=receipt)

    def find(self, id: str) -> Sent:
        """Any: the server is not asked yet."""
        return Kept(self.client, id)
