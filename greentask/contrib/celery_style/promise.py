"""The future of a task that is sent later: when the one before it has ended."""

from __future__ import annotations

from concurrent.futures import CancelledError, Future
from typing import Any

from ...hub.future import HomeFuture
from ...hub.home import find_home

__all__ = ["Promise"]


class Promise(HomeFuture):
    """Ends as the future that it follows does, once there is one. Cancelling it cancels that, too."""

    def __init__(self) -> None:
        self._home = find_home()
        super().__init__(self._home)
        self._followed: Future[Any] | None = None

    def follow(self, future: Future[Any]) -> None:
        """Whatever becomes of that future becomes of this one."""
        self._followed = future
        if self.cancelled():  # meanwhile
            future.cancel()
        future.add_done_callback(lambda ended: self._home.run(self._take, ended))

    def fail(self, error: BaseException) -> None:
        """It is not sent."""
        self._home.post(self.ended, None, error)  # not now: it may be the end of many more, one inside the other

    def cancel(self) -> bool:
        """Don't send it; where it was sent, cancel it there."""
        if not super().cancel():
            return False
        followed = self._followed
        if followed is not None:
            followed.cancel()
        return True

    def _take(self, ended: Future[Any]) -> None:
        try:
            error = ended.exception()
        except CancelledError:
            self.cancel()
            return
        self.ended(None if error is not None else ended.result(), error)
