"""Waiting for something once: a greenlet beside others, a thread of a plain program, or either for another thread."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from gevent import getcurrent, with_timeout
from gevent._hub_local import get_hub_if_exists  # the one way to ask without making a hub
from gevent.hub import Waiter

from .home import Home, allocate_lock, allocate_rlock, is_main_thread

__all__ = ["Bell"]

_LOOKS_EVERY = 0.5  # seconds


class Bell:
    """Rung once, by any thread, greenlet or hub; any number of greenlets and threads wait for it.

    A waiting greenlet lets the others of its thread go on, patched or not. In a patched program the standard library's
    ways of waiting (and so those of its futures) are gevent's, where the main thread can't wait for another thread:
    nothing in its hub promises to go on, which is gevent's ``LoopExit``.

    ``home`` is where it is rung most often: a greenlet that waits there is woken without a watcher of its own.
    """

    __slots__ = ("_home", "_lock", "_rung", "wakes")

    def __init__(self, home: Home | None = None) -> None:
        self._home = home
        self._lock = allocate_rlock()  # guards the others: a watcher must not be told anything once it is closed
        self._rung = False
        self.wakes: list[Callable[[], object]] = []  # of those who wait

    def ring(self) -> None:
        """Wake whoever waits, now or later."""
        if self._rung and not self.wakes:
            return
        with self._lock:
            self._rung = True
            for wake in self.wakes[:]:  # told before they are forgotten, or a Ctrl-C in between would leave them asleep
                wake()
            self.wakes.clear()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is rung; False after ``timeout`` seconds."""
        if self._rung or (timeout is not None and timeout <= 0):
            return self._rung
        hub = get_hub_if_exists()
        if hub is None:
            self._wait_in_thread(timeout)
        elif getcurrent() is hub:
            raise RuntimeError("waiting in the hub itself would stop every greenlet: wait in a greenlet")
        elif self._home is not None and self._home.hub is hub:
            self._wait_at_home(self._home, timeout)
        else:
            self._wait_elsewhere(hub, timeout)
        return self._rung

    def _wait_in_thread(self, timeout: float | None) -> None:
        gate = allocate_lock()
        gate.acquire()
        until = None if timeout is None else time.monotonic() + timeout
        # Only in the main thread do signal handlers run. It may be about to wait when a signal comes, or that may wake
        # another thread: it has to look. So has who waits for the main thread's hub, for a Ctrl-C may come there.
        home = self._home if self._home is not None and self._home.is_interrupted() else None
        most = _LOOKS_EVERY if home is not None or is_main_thread() else threading.TIMEOUT_MAX
        wake = partial(_open, gate)
        # Not with the lock: a signal handler that came while it is held would wait for an answer, and who brings that
        # for the lock. To be told too late does no harm here.
        self.wakes.append(wake)
        try:
            while not self._rung:
                left = most if until is None else min(most, until - time.monotonic())
                if left <= 0:
                    break
                gate.acquire(True, left)
                if home is not None:
                    home.nudge()
        finally:
            with suppress(ValueError):
                self.wakes.remove(wake)

    def _wait_at_home(self, home: Home, timeout: float | None) -> None:
        waiter: Waiter[None] = Waiter(home.hub)
        loop = home.hub.loop
        loop.ref()  # whoever rings may be a thread, of which the loop knows nothing
        try:
            with self._waking(partial(home.resume, waiter)) as not_yet:
                if not_yet:
                    _get(waiter, timeout)
        finally:
            loop.unref()

    def _wait_elsewhere(self, hub: Any, timeout: float | None) -> None:
        waiter: Waiter[None] = Waiter(hub)
        woken = hub.loop.async_()
        woken.start(waiter.switch, None)
        try:
            with self._waking(woken.send) as not_yet:
                if not_yet:
                    _get(waiter, timeout)
        finally:
            woken.stop()
            woken.close()

    @contextmanager
    def _waking(self, wake: Callable[[], object]) -> Iterator[bool]:
        """While inside, ``wake`` is called when it is rung. Whether that is still to come."""
        with self._lock:
            if not self._rung:
                self.wakes.append(wake)
        try:
            yield not self._rung
        finally:
            with self._lock:
                if wake in self.wakes:
                    self.wakes.remove(wake)


def _open(gate: Any) -> None:
    try:
        gate.release()
    except RuntimeError:
        pass  # it was opened already, by a signal handler that came while this was being done


def _get(waiter: Waiter[None], timeout: float | None) -> None:
    if timeout is None:
        waiter.get()
    else:
        with_timeout(timeout, waiter.get, timeout_value=None)
