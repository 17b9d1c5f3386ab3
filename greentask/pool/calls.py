"""A call on its way through the pool, and who hears of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from gevent.hub import get_hub

from ..errors import CallError, refusal
from ..wire.json import dumps
from .frames import CallFrame

if TYPE_CHECKING:
    from .process import Process

__all__ = ["Listener", "PoolCall"]


class Listener(Protocol):
    """Who waits for a call. Told in the hub, where nothing may block; all values are JSON."""

    def done(self, result: bytes) -> None:
        """It ended well."""

    def failed(self, error: bytes) -> None:
        """It ended with an error object."""

    def progress(self, report: bytes) -> None:
        """It is so far."""

    def item(self, item: bytes) -> None:
        """It streams one more item."""


class PoolCall:
    """One call. ``deadline`` (monotonic seconds) stops it wherever it is; ``limit`` counts from when it starts."""

    __slots__ = (
        "deadline",
        "finished",
        "frame",
        "limit",
        "listener",
        "process",
        "stopping",
        "timer",
        "token",
    )

    def __init__(
        self, token: int, frame: CallFrame, listener: Listener, deadline: float | None, limit: float | None
    ) -> None:
        self.token = token
        self.frame = frame
        self.listener = listener
        self.deadline = deadline
        self.limit = limit
        self.process: Process | None = None  # the one that it was sent to
        self.stopping = False  # told to end
        self.finished = False
        self.timer: Any = None

    def finish(self, ended_well: bool, body: bytes) -> None:
        """Tell its listener how it ended: once, whatever comes later."""
        self.stop_timer()
        if not self.finished:
            self.finished = True
            self.tell(self.listener.done if ended_well else self.listener.failed, body)

    def tell(self, hear: Callable[[bytes], None], body: bytes) -> None:
        """Tell its listener something. A listener's defect is its own: it is reported, and everything else goes on."""
        try:
            hear(body)
        except Exception:  # gevent would stop the watcher that we are called from
            get_hub().handle_error(self, *sys.exc_info())

    def fail(self, error: CallError) -> None:
        """End it with one of the pool's own errors."""
        self.finish(False, dumps(refusal(error)))

    def stop_timer(self) -> None:
        """Forget the timer that stands for its deadline or grace."""
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
            self.timer = None
