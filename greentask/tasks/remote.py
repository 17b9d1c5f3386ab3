"""The seam between a decorated function and whatever carries its calls: the layers above give a ``Caller``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from ..wire.enqueue import EnqueueOptions
    from .steps import Step
    from .task import Task

__all__ = [
    "BatchReceipt",
    "Caller",
    "ProgressCallback",
    "Receipt",
    "TaskFuture",
    "default_caller",
    "provide_default_caller",
]

R = TypeVar("R")

ProgressCallback = Callable[[dict[str, Any]], None]


class TaskFuture(Future[R], ABC):
    """The future of a task that was submitted: one of ``concurrent.futures``, whose result can go on to the next task.

    ``cancel`` cancels the task where it runs.
    """

    @abstractmethod
    def then(self, function: str | Task[..., Any], /, *args: Any, **kwargs: Any) -> TaskFuture[Any]:
        """Hand the result on: submit another task with it as the first argument. The future is that of the other task.

        An error ends the chain: it is that of every future after it. Cancelling one cancels what runs of those before.

        >>> report.submit(2026).then(send_mail, to="boss@example.org").result()           # doctest: +SKIP
        """


class Receipt(ABC, Generic[R]):
    """What one gets for a task that was enqueued: it is on disk, and runs, whatever dies meanwhile.

    ``id`` is all that it takes to ask for the task from elsewhere: ``client.receipt(id)``.

    >>> receipt = send_mail.enqueue(to="b@example.org")       # doctest: +SKIP
    >>> receipt.result(timeout=60)                            # doctest: +SKIP
    'sent'
    """

    id: str

    @abstractmethod
    def result(self, timeout: float | None = None, *, progress: ProgressCallback | bool | None = None) -> R:
        """Wait for the result; it is told when it is there, and nobody asks again and again.

        ``timeout`` is in seconds, or the client's. ``progress`` is called with reports, or draws a bar (True).
        Raises what the last attempt raised; ``Cancelled`` for one that was revoked; ``DeadlineExceeded`` where the time
        is over, or where the task had not begun within its ttl; ``QueueError`` where it is not known (any more). A
        server that is stopped or lost while one waits is asked again when it is back; without a ``timeout``, for a
        minute after it was last seen.
        """

    @property
    @abstractmethod
    def state(self) -> str:
        """blocked, scheduled, waiting, running, done, failed, revoked or expired: asks the server."""

    @property
    @abstractmethod
    def progress(self) -> dict[str, Any] | None:
        """The newest report of the attempt that runs, if there is one; of a batch how far it is; asks the server."""

    @abstractmethod
    def revoke(self, *, running: bool = False) -> bool:
        """Have it not begin; False where it has, or has ended.

        With ``running`` one that has begun is asked to end, wherever it runs: ``CancelRequest`` is raised in it, and a
        process that doesn't end it within its grace is killed. True then says that it was asked: it is ``revoked`` in a
        moment, and not tried again, or ``done`` where it was quicker.
        """

    @abstractmethod
    def then(self, function: str | Task[..., Any] | Step, /, *args: Any, **kwargs: Any) -> Receipt[Any]:
        """Hand the result on: enqueue another task that runs with it as the first argument, when it is there.

        The other one fails with the error of this one, unless it is a ``Step`` that takes errors. To have what follows
        enqueued in the same moment, so that there is never one without the other, use ``using(then=Step(…))``.

        >>> report.enqueue(2026).then(send_mail, to="boss@example.org").result()         # doctest: +SKIP
        """

    @property
    @abstractmethod
    def following(self) -> tuple[Receipt[Any], ...]:
        """The receipts of the steps that were enqueued with it (``using(then=…)``), in their order; of a fan its own,
        which ends with the last of it.
        """


class BatchReceipt(Receipt[dict[str, int]], Sequence[Receipt[R]]):
    """What one gets for many tasks that were enqueued together: a sequence of their receipts, and one for all.

    ``result()`` waits until all have ended and is ``{"total": …, "done": …, "failed": …}``; ``progress`` is the same,
    at any time; what comes with ``then`` takes a list of all results. ``revoke`` keeps those from running that have not
    begun, and with ``running=True`` ends the others.

    >>> receipts = resize.enqueue_many([[path] for path in paths])                       # doctest: +SKIP
    >>> receipts.then(make_page).result(timeout=60)                                      # doctest: +SKIP
    """


class Caller(Protocol):
    """Runs functions somewhere else, by name. ``greentask.Client`` is one."""

    def using(self, *, idempotent: bool | None = None, **durable: Unpack[EnqueueOptions]) -> Caller:
        """The same one, for calls that may (or may not) be sent again where they may have run, or durable ones."""

    def enqueue_args(
        self, function: str | Task[..., Any], args: dict[str, Any] | list[Any], *, timeout: float | None = None
    ) -> Receipt[Any]:
        """Enqueue one task; who has no server to look at the arguments does so by the task's signature."""

    def enqueue_many_args(
        self,
        function: str | Task[..., Any],
        items: Iterable[dict[str, Any] | list[Any]],
        *,
        timeout: float | None = None,
    ) -> BatchReceipt[Any]:
        """Enqueue a task for each item, in the same way."""

    def submit_args(
        self,
        function: str,
        args: dict[str, Any] | list[Any],
        *,
        timeout: float | None = None,
        progress: ProgressCallback | bool | None = None,
    ) -> TaskFuture[Any]:
        """Start one call; the future has its result."""

    def call_args(
        self,
        function: str,
        args: dict[str, Any] | list[Any],
        *,
        timeout: float | None = None,
        progress: ProgressCallback | bool | None = None,
    ) -> Any:
        """One call, waited for."""

    def stream_args(
        self,
        function: str,
        args: dict[str, Any] | list[Any],
        *,
        timeout: float | None = None,
        window: int = ...,
        progress: ProgressCallback | bool | None = None,
    ) -> Iterator[Any]:
        """The items of a generator, one by one."""

    def map_args(
        self,
        function: str,
        items: Iterable[dict[str, Any] | list[Any]],
        *,
        timeout: float | None = None,
        unordered: bool = False,
        window: int = ...,
        return_exceptions: bool = False,
        progress: ProgressCallback | bool | None = None,
        total: int | None = None,
    ) -> Iterator[Any]:
        """A call for each item; an iterator over their results."""


_provider: Callable[[], Caller] | None = None


def provide_default_caller(provider: Callable[[], Caller]) -> None:
    """Say where the default caller comes from (the package's root does, once, at import)."""
    global _provider
    _provider = provider


def default_caller() -> Caller:
    """The caller that a decorated function's ``.call`` uses unless it is told another."""
    if _provider is None:
        raise RuntimeError("no default caller: import greentask, not a part of it")
    return _provider()
