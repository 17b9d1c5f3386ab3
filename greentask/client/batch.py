"""The receipt of many durable tasks that were enqueued together."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from ..tasks.remote import BatchReceipt, Receipt
from .receipt import ClientReceipt

if TYPE_CHECKING:
    from .client import Client

__all__ = ["ClientBatch"]

R = TypeVar("R")


class ClientBatch(ClientReceipt[dict[str, int]], BatchReceipt[R]):
    """That which a client gives."""

    def __init__(self, client: Client, id: str, tasks: Sequence[str], placed: list[Any] | None = None) -> None:
        super().__init__(client, id, placed)
        self._tasks = tasks

    def __repr__(self) -> str:
        return f"<BatchReceipt {self.id} of {len(self._tasks)} tasks>"

    def __len__(self) -> int:
        return len(self._tasks)

    def __iter__(self) -> Iterator[Receipt[R]]:
        return (ClientReceipt(self._client, task) for task in self._tasks)

    @overload
    def __getitem__(self, index: int) -> Receipt[R]: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Receipt[R]]: ...

    def __getitem__(self, index: int | slice) -> Receipt[R] | Sequence[Receipt[R]]:
        if isinstance(index, slice):
            return [ClientReceipt(self._client, task) for task in self._tasks[index]]
        return ClientReceipt(self._client, self._tasks[index])
