"""What carries the calls of clients: each one's own router, or what stands before all of them while tests look on."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

from ..hub.home import Home

__all__ = ["Carrier", "Receiver", "Wrap", "carried_by", "carrier_of"]


class Receiver(ABC):
    """Who waits for a call. Told in the home's thread, where nothing may block. Most ask for nothing but its end."""

    __slots__ = ()
    is_patient = False  # it may wait for a server to have room for it

    @abstractmethod
    def ended(self, value: Any, error: BaseException | None) -> None:
        """Its result, or its error. Told once."""

    def progress(self, report: dict[str, Any]) -> None:
        """It is so far."""
        return

    def item(self, item: Any) -> None:
        """It streams one more item."""
        return

    def part(self, index: int, value: Any, error: Exception | None) -> bool:
        """It is a batch, and one of its items has ended; False where nobody waits for that."""
        return False


class Carrier(Protocol):
    """Takes the lines of calls, and tells their receivers what comes of them. A client's ``Router`` is one.

    ``home`` is where its other methods are called, and receivers told.
    """

    @property
    def home(self) -> Home: ...

    def check_may_wait(self) -> None:
        """Raise ``RuntimeError`` where waiting for a call would keep its answer from being read."""

    def start(self, id: int, data: bytes, receiver: Receiver, timeout: float | None, idempotent: bool = False) -> None:
        """Carry a call's line; ``receiver`` hears what comes of it."""

    def forget(self, id: int) -> None:
        """Nobody waits any more."""

    def send(self, id: int, data: bytes) -> None:
        """Carry a line about a call."""


#: Makes what carries one client's calls, given what gets its router. Asked anew for each call.
Wrap = Callable[[Callable[[], Carrier]], Carrier]

_wrap: Wrap | None = None  # of the whole program: code under test may call from any of its threads


def carrier_of(router: Callable[[], Carrier]) -> Carrier:
    """What carries the calls of the client whose router this gives."""
    return router() if _wrap is None else _wrap(router)


@contextmanager
def carried_by(wrap: Wrap) -> Iterator[None]:
    """While inside, ``wrap`` stands before the routers of all clients of this program, and before what stood there."""
    global _wrap
    before = _wrap
    _wrap = wrap if before is None else lambda router: wrap(lambda: before(router))
    try:
        yield
    finally:
        _wrap = before
