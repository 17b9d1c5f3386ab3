"""Waiting for something once: a greenlet beside others, a thread of a plain program, or either for another thread."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gevent import getcurrent, with_timeout
from gevent._hub_local import get_hub_if_exists  # the one way to ask without making a hub
from gevent.hub import Waiter

from .home import Home, allocate_lock

__all__ = ["Bell"]


class Bell:
    """Rung once, by any thread, greenlet or hub; one greenlet or thread waits for it.

    A waiting greenlet lets the others of its thread go on, patched or not. In a patched program the standard library's
    ways of waiting (and so those of its futures) are gevent's, where the main thread can't wait for another thread:
    nothing in its hub promises to go on, which is gevent's ``LoopExit``.

    ``home`` is where it is rung most often: a greenlet that waits there is woken without a watcher of its own.
    """

    __slots__ = ("_home", "_lock", "_rung", "_wake")

    def __init__(self, home: Home | None = None) -> None:
        self._home = home
        self._lock = allocate_lock()  # guards the others: a watcher must not be told anything once it is closed
        self._rung = False
        self._wake: Callable[[], object] | None = None

    def ring(self) -> None:
        """Wake whoever waits, now or later."""
        with self._lock:
            wake, self._wake = self._wake, None
            self._rung = True
            if wake is not None:
                wake()

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is rung; False after ``timeout`` seconds."""
        if self._rung:
            return True
        hub = get_hub_if_exists()
        if hub is None:
            gate = allocate_lock()
            gate.acquire()
            if self._will_call(gate.release):
                gate.acquire(True, -1 if timeout is None else timeout)
        elif getcurrent() is hub:
            raise RuntimeError("waiting in the hub itself would stop every greenlet: wait in a greenlet")
        elif self._home is not None and self._home.hub is hub:
            self._wait_at_home(self._home, timeout)
        else:
            self._wait_elsewhere(hub, timeout)
        return self._rung

    def _wait_at_home(self, home: Home, timeout: float | None) -> None:
        waiter: Waiter[None] = Waiter(home.hub)
        loop = home.hub.loop
        loop.ref()  # whoever rings may be a thread, of which the loop knows nothing
        try:
            if self._will_call(functools.partial(home.resume, waiter)):
                _get(waiter, timeout)
        finally:
            self._will_call(None)
            loop.unref()

    def _wait_elsewhere(self, hub: Any, timeout: float | None) -> None:
        waiter: Waiter[None] = Waiter(hub)
        woken = hub.loop.async_()
        woken.start(waiter.switch, None)
        try:
            if self._will_call(woken.send):
                _get(waiter, timeout)
        finally:
            self._will_call(None)
            woken.stop()
            woken.close()

    def _will_call(self, wake: Callable[[], object] | None) -> bool:
        with self._lock:
            self._wake = wake
            return not self._rung


def _get(waiter: Waiter[None], timeout: float | None) -> None:
    if timeout is None:
        waiter.get()
    else:
        with_timeout(timeout, waiter.get, timeout_value=None)
