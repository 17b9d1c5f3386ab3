"""Those of a line's items that run: of a batch's, or of the requests in a JSON-RPC array."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gevent.event import Event
from gevent.lock import Semaphore

from ..runner import Running

if TYPE_CHECKING:
    from .session import Session

__all__ = ["PAUSED_EVERY", "WINDOW", "Items"]

#: How many items of one line run at once.
WINDOW = 256
#: After so many items their greenlet lets the loop have a whole turn (``gevent.sleep(1e-9)``): there may be millions of
#: them, and those that are refused never wait.
PAUSED_EVERY = 64


class Items:
    """Has room for ``WINDOW`` of one line, ``max_in_flight`` of all its connection's, and ``max_calls`` of all lines.

    One greenlet takes room for them, starts them, and waits for their ends.
    """

    __slots__ = ("_none_runs", "_room", "_room_of_all", "_room_of_peer", "_running", "are_cancelled")

    def __init__(self, session: Session) -> None:
        limits = session.server.limits
        self.are_cancelled = False
        self._room = Semaphore(min(WINDOW, limits.max_in_flight, limits.max_calls))
        self._room_of_peer = session.item_slots
        self._room_of_all = session.server.item_slots
        self._running: dict[int, Running | None] = {}
        self._none_runs = Event()

    def take(self, index: int) -> None:
        """Wait until there is room for one more, and let this one have it until it has ``ended``."""
        self._room.acquire()
        self._room_of_peer.acquire()
        self._room_of_all.acquire()
        self._running[index] = None

    def started(self, index: int, running: Running | None) -> None:
        """It can be cancelled from now on, if it hasn't ended already."""
        if index in self._running:
            self._running[index] = running

    def ended(self, index: int) -> None:
        """Another one may have its room."""
        del self._running[index]
        self._room.release()
        self._room_of_peer.release()
        self._room_of_all.release()
        if not self._running:
            self._none_runs.set()

    def cancel(self) -> None:
        """Cancel those that run; no more are to be started."""
        self.are_cancelled = True
        for running in list(self._running.values()):
            if running is not None:
                running.cancel()

    def wait(self) -> None:
        """Until none runs."""
        while self._running:
            self._none_runs.clear()
            self._none_runs.wait()
