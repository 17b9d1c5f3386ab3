"""``Enqueuing``: what makes ``send_mail.enqueue(...)`` itself a row of an outbox."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NoReturn, overload

from ...errors import QueueError
from ...tasks.remote import BatchReceipt, Caller, ProgressCallback, Receipt, TaskFuture
from ...tasks.task import DEFAULT_WINDOW
from ...wire.message import DEFAULT_STREAM_WINDOW, Args
from .outbox import Outbox

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ...tasks.steps import Step
    from ...tasks.task import Task
    from ...wire.enqueue import EnqueueOptions

__all__ = ["Enqueuing", "OutboxReceipt"]


class OutboxReceipt(Receipt[Any]):
    """The receipt of a row; ``id`` is its key. Of its task nobody knows anything before the relay has sent it."""

    def __init__(self, key: str) -> None:
        self.id = key

    def __repr__(self) -> str:
        return f"<OutboxReceipt {self.id}>"

    def result(self, timeout: float | None = None, *, progress: ProgressCallback | bool | None = None) -> Any:
        self._refuse()

    @property
    def state(self) -> str:
        self._refuse()

    @property
    def progress(self) -> dict[str, Any] | None:
        self._refuse()

    def revoke(self, *, running: bool = False) -> bool:
        self._refuse()

    def then(self, function: str | Task[..., Any] | Step, /, *args: Any, **kwargs: Any) -> Receipt[Any]:
        self._refuse("using(then=Step(…)) says what follows")

    @property
    def following(self) -> tuple[Receipt[Any], ...]:
        self._refuse()

    def _refuse(self, remedy: str = "to wait for its result, enqueue it with a client") -> NoReturn:
        raise QueueError(
            f"the task with the key {self.id} was enqueued in a database's transaction, and a relay sends it when that "
            f"is committed: {remedy}"
        )


class OutboxBatch(OutboxReceipt, BatchReceipt[Any]):
    """The receipts of rows that were enqueued at once; its ``id`` is the first one's."""

    def __init__(self, keys: Sequence[str]) -> None:
        super().__init__(keys[0] if keys else "")
        self._receipts = [OutboxReceipt(key) for key in keys]

    def __len__(self) -> int:
        return len(self._receipts)

    def then(self, function: str | Task[..., Any] | Step, /, *args: Any, **kwargs: Any) -> Receipt[Any]:
        self._refuse("enqueue one task instead, which enqueues the many, and what follows them, with a client")

    @overload
    def __getitem__(self, index: int) -> Receipt[Any]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Receipt[Any]]: ...

    def __getitem__(self, index: int | slice) -> Receipt[Any] | Sequence[Receipt[Any]]:
        return self._receipts[index]


class Enqueuing:
    """A ``Caller`` that enqueues in an outbox, and has all else done by a client.

    ``cursor`` gives what the outbox is to use: a cursor or connection in whose transaction the caller is.

    >>> send_mail.using(Enqueuing(Outbox(), lambda: connection, default_client)).enqueue(to="b@x")    # doctest: +SKIP
    """

    def __init__(self, outbox: Outbox, cursor: Callable[[], Any], client: Callable[[], Caller]) -> None:
        self._outbox = outbox
        self._cursor = cursor
        self._client = client

    def using(self, *, idempotent: bool | None = None, **durable: Unpack[EnqueueOptions]) -> Caller:
        client = self._client
        outbox = self._outbox.using(**durable) if durable else self._outbox
        return Enqueuing(outbox, self._cursor, lambda: client().using(idempotent=idempotent, **durable))

    def enqueue_args(self, function: str | Task[..., Any], args: Args, *, timeout: float | None = None) -> Receipt[Any]:
        return OutboxReceipt(self._outbox.enqueue_args(self._cursor(), function, args))

    def enqueue_many_args(
        self, function: str | Task[..., Any], items: Iterable[Args], *, timeout: float | None = None
    ) -> BatchReceipt[Any]:
        return OutboxBatch(list(self._outbox.enqueue_many(self._cursor(), function, items)))

    def submit_args(
        self,
        function: str,
        args: Args,
        *,
        timeout: float | None = None,
        progress: ProgressCallback | bool | None = None,
    ) -> TaskFuture[Any]:
        return self._client().submit_args(function, args, timeout=timeout, progress=progress)

    def call_args(
        self,
        function: str,
        args: Args,
        *,
        timeout: float | None = None,
        progress: ProgressCallback | bool | None = None,
    ) -> Any:
        return self._client().call_args(function, args, timeout=timeout, progress=progress)

    def stream_args(
        self,
        function: str,
        args: Args,
        *,
        timeout: float | None = None,
        window: int = DEFAULT_STREAM_WINDOW,
        progress: ProgressCallback | bool | None = None,
    ) -> Iterator[Any]:
        return self._client().stream_args(function, args, timeout=timeout, window=window, progress=progress)

    def map_args(
        self,
        function: str,
        items: Iterable[Args],
        *,
        timeout: float | None = None,
        unordered: bool = False,
        window: int = DEFAULT_WINDOW,
        return_exceptions: bool = False,
        progress: ProgressCallback | bool | None = None,
        total: int | None = None,
    ) -> Iterator[Any]:
        return self._client().map_args(
            function,
            items,
            timeout=timeout,
            unordered=unordered,
            window=window,
            return_exceptions=return_exceptions,
            progress=progress,
            total=total,
        )
