"""The seam between a decorated function and whatever carries its calls: the layers above give a ``Caller``."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

if TYPE_CHECKING:
    from .task import Task

__all__ = ["Caller", "ProgressCallback", "TaskFuture", "default_caller", "provide_default_caller"]

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


class Caller(Protocol):
    """Runs functions somewhere else, by name. ``greentask.Client`` is one."""

    def using(self, *, idempotent: bool | None = None) -> Caller:
        """The same one, for calls that may (or may not) be sent again where they may have run."""

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
        self, function: str, args: dict[str, Any] | list[Any], *, timeout: float | None = None, window: int = ...
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
