"""A call on its way through the pool, and who hears of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from gevent.hub import get_hub

from ..errors import CallError, WorkerLost
from .frames import Body, size_of, whole

if TYPE_CHECKING:
    from .process import Process

__all__ = ["Listener", "PoolCall"]


class Listener(Protocol):
    """Who waits for a call. Told in the hub, where nothing may block; bytes are as the process's handler made them."""

    def done(self, result: Body) -> None:
        """It ended well."""

    def failed(self, error: bytes) -> None:
        """It ended with an error, as the handler encoded it."""

    def refuse(self, error: CallError) -> None:
        """It ended with one of the pool's own errors."""

    def progress(self, report: bytes) -> None:
        """It is so far."""

    def item(self, item: bytes) -> None:
        """It streams one more item."""


class PoolCall:
    """One call. ``deadline`` (monotonic seconds) stops it wherever it is; ``limit`` counts from when it starts."""

    __slots__ = (
        "begun",
        "deadline",
        "estimate",
        "finished",
        "flags",
        "limit",
        "listener",
        "name",
        "on_sent",
        "payload",
        "process",
        "size",
        "stopped_by",
        "timer",
        "token",
        "window",
    )

    def __init__(
        self,
        token: int,
        name: str,
        payload: Body,
        listener: Listener,
        deadline: float | None,
        limit: float | None,
        window: int,
        flags: int,
    ) -> None:
        self.token = token
        self.name = name
        self.payload = payload
        self.size = size_of(payload)  # of the payload, bytes
        self.listener = listener
        self.deadline = deadline
        self.limit = limit
        self.window = window
        self.flags = flags
        self.on_sent: Callable[[], bool | None] | None = None
        self.process: Process | None = None  # the one that it was sent to
        self.estimate = 0.0  # seconds that it was expected to run when it was sent
        self.stopped_by: bytes | None = None  # the reason why it was told to end
        self.begun = False  # its turn in its process has come
        self.finished = False
        self.timer: Any = None

    def finish(self, ended_well: bool, body: Body) -> None:
        """Tell its listener how it ended: once, whatever comes later."""
        try:
            if self._ends():
                if ended_well:
                    self.listener.done(body)
                else:
                    self.listener.failed(whole(body))
        except BaseException as error:
            self._was_not_told(error)

    def fail(self, error: CallError) -> None:
        """End it with one of the pool's own errors."""
        try:
            if self._ends():
                self.listener.refuse(error)
        except BaseException as failure:
            self._was_not_told(failure)

    def tell(self, hear: Callable[[Any], None], what: Any) -> None:
        """Tell its listener something. A listener's defect is its own: it is reported, and everything else goes on."""
        try:
            hear(what)
        except BaseException:
            self._report()

    def stop_timer(self) -> None:
        """Forget the timer that stands for its deadline or grace."""
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
            self.timer = None

    def _was_not_told(self, error: BaseException) -> None:
        if isinstance(error, KeyboardInterrupt):  # the listener may not have heard of it: it gets an end in any case
            self.finished = True
            self.tell(self.listener.refuse, WorkerLost("a Ctrl-C came as its end was told"))
        self._report()

    def _report(self) -> None:
        # If it went on, gevent would stop the watcher that calls us, and what else it has read would be lost.
        get_hub().handle_error(self, *sys.exc_info())

    def _ends(self) -> bool:
        if self.timer is not None:
            self.stop_timer()
        self.on_sent = None  # whose it is knows us, too
        ends, self.finished = not self.finished, True
        return ends
