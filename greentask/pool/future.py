"""The futures of a ``Pool``, and where what they ask for is done."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures._base import CANCELLED, RUNNING
from typing import TYPE_CHECKING, Any

from ..hub.future import HomeFuture
from ..hub.held import come_again, take_or_come_again
from ..hub.home import Home
from .calls import PoolCall

if TYPE_CHECKING:
    from .executor import Pool

__all__ = ["PoolFuture", "run_apart"]


class PoolFuture(HomeFuture):
    """The future of a call. ``cancel`` takes it back while no process has it; ``stop`` ends it wherever it is."""

    is_stopped = False

    def __init__(self, pool: Pool, home: Home) -> None:
        super().__init__(home)
        self._pool = pool
        self._home = home
        self._call: PoolCall | None = None
        self._fates: list[str] = []  # the first one counts: a process gets it, or it is cancelled

    def begins(self) -> bool:
        """A process is to get it, or it ends; False where it was cancelled. In the home's thread, which has no lock."""
        if not self._is_its_fate(RUNNING):
            return False
        if not self.done():
            self._state = RUNNING  # nobody else changes it: who cancels finds that it is too late
        return True

    def cancel(self) -> bool:
        if not self._is_its_fate(CANCELLED):
            return False
        self.tell_cancelled()
        run_apart(self._home, self._pool._take_back, self)
        return True

    def tell_cancelled(self) -> None:
        """Tell that it was cancelled; of no effect where that was done."""
        home = self._home
        if self._gate._is_owned() or not self._may_tell_waiters():  # see HomeFuture.ended
            come_again(home, self.tell_cancelled)
            return
        if home.is_interrupted() or not home.is_here():
            with self._condition:
                self._set_cancelled()
        elif take_or_come_again(self._condition, home, self.tell_cancelled):
            try:
                self._set_cancelled()
            finally:
                self._condition.release()
        else:
            return
        self._invoke_callbacks()

    def stop(self) -> None:
        """Cancel it also where it runs: ``CancelRequest`` is raised in it, and SIGKILL follows after the grace.

        Its result is then ``concurrent.futures.CancelledError``.
        """
        if not self.cancel():
            self.is_stopped = True
            run_apart(self._home, self._pool._cancel, self)

    def _is_its_fate(self, fate: str) -> bool:
        if not self._fates:
            self._fates.append(fate)  # another thread may do so at the same time
        return self._fates[0] == fate

    def _set_cancelled(self) -> None:
        """With the lock, which is not for callbacks."""
        before, self._is_telling = self._is_telling, None
        try:
            super().cancel()
            if self._state == CANCELLED:
                self.set_running_or_notify_cancel()  # for concurrent.futures.wait and as_completed
        finally:
            self._is_telling = before


def run_apart(home: Home, function: Callable[..., object], *args: Any) -> None:
    """Run it in the home's thread, and in nobody's midst: in the hub itself where that is the main thread's.

    A signal handler may come there, and wait for what can't go on meanwhile. In the hub none can wait.
    """
    if home.is_interrupted():
        home.soon(function, *args)
    else:
        home.run(function, *args)
