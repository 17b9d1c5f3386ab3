"""What a queue's thread does in one transaction, and who is told in the hub what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from .interface import Delivery, Ending, Kept, Message
from .store import Store

__all__ = ["Batch", "Listener", "refuse", "tell"]

logger = logging.getLogger(__name__)

_FEW = 16  # things that are told in one step
_GIVEN_BACK = Ending("released")


@dataclass(frozen=True, slots=True)
class Listener:
    """Who is told in the hub: ``deliveries`` to be run, what was ``settled`` and whether that counted; that what was
    delivered is ``lost``, for others have it, or in part ``revoked``, and to be ended; that another server has written
    something (``knocked``); and which groups and steps have ``changed``.
    """

    deliveries: Callable[[list[Delivery]], object]
    settled: Callable[[Sequence[tuple[Delivery, Ending]], Sequence[bool]], object]
    lost: Callable[[], object]
    revoked: Callable[[list[int]], object]
    knocked: Callable[[], object]
    changed: Callable[[list[int]], object]


def refuse(told: Future[Any] | Kept, error: BaseException) -> None:
    """Tell somebody in the hub that it was not done."""
    if isinstance(told, Future):
        told.set_exception(error)
    else:
        told(None, error)


@dataclass(slots=True)
class Batch:
    """What is done in one transaction, and then what came of it."""

    settled: list[tuple[Delivery, Ending]] = field(default_factory=list)
    changes: list[tuple[Callable[[Store], Any], Future[Any]]] = field(default_factory=list)
    enqueued: list[tuple[Sequence[Message], Future[list[str]] | Kept]] = field(default_factory=list)
    counted: list[bool] = field(default_factory=list)
    outcomes: list[tuple[Future[Any] | Kept, Any]] = field(default_factory=list)
    failed: list[tuple[Future[Any], Exception]] = field(default_factory=list)  # changes that were not made
    deliveries: list[Delivery] = field(default_factory=list)
    freed: int = 0  # bytes of the payloads of what is settled
    is_lost: bool = False
    has_ended_some: bool = False
    changed: list[int] = field(default_factory=list)
    revoked: set[int] = field(default_factory=set)  # of what is settled

    def __len__(self) -> int:
        return len(self.settled) + len(self.changes) + len(self.enqueued)


def tell(listener: Listener, batch: Batch) -> Iterator[None]:
    """Tell everybody in the hub whom it concerns, when it is on disk; in steps."""
    for number, (told, value) in enumerate(batch.outcomes):
        if isinstance(told, Future):
            told.set_result(value)
        else:
            try:
                told(value, None)
            except Exception:
                logger.exception("what was to be told of an enqueued task failed")
        if number % _FEW == _FEW - 1:
            yield
    for future, error in batch.failed:
        future.set_exception(error)
    if batch.settled:
        settled, revoked = batch.settled, batch.revoked
        if revoked:  # what came of it is no end that who waits for it is told of
            settled = [(one, _GIVEN_BACK if one.handle[0] in revoked else ending) for one, ending in settled]
        listener.settled(settled, batch.counted)
    if batch.has_ended_some:
        listener.knocked()
    if batch.changed:
        listener.changed(batch.changed)
    if batch.is_lost:
        listener.lost()
    for start in range(0, len(batch.deliveries), _FEW):
        listener.deliveries(batch.deliveries[start : start + _FEW])
        yield
