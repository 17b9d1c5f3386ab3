"""Where I/O lives in a program that greentask is a guest of.

In a monkey-patched program that is the main thread's hub: callers are greenlets beside it, and waiting is a switch.
In any other (plain, threaded, or patched but called from a real thread first) it is one background thread with a hub
of its own, shared by all clients and pools of the process, started at first use and started anew after a fork.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from gevent import Timeout, getcurrent, monkey
from gevent._hub_local import get_hub_if_exists  # the one way to ask without making a hub
from gevent.hub import Waiter, get_hub

__all__ = ["Home", "current_home", "find_home", "wait_for"]

T = TypeVar("T")

_thread_id: Callable[[], int] = monkey.get_original("_thread", "get_ident")
_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
_allocate_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")


class Home:
    """A hub and the thread that runs it."""

    __slots__ = ("hub", "pid", "thread")

    def __init__(self) -> None:
        self.hub = get_hub()
        self.thread = _thread_id()
        self.pid = os.getpid()

    def is_here(self) -> bool:
        """Whether the caller runs in this hub's thread."""
        return _thread_id() == self.thread

    def run(self, function: Callable[..., object], *args: Any) -> None:
        """Run a function that doesn't block in the hub's thread: now if that is here, else soon."""
        if _thread_id() == self.thread:
            function(*args)
        else:
            self.hub.loop.run_callback_threadsafe(function, *args)


def current_home() -> Home:
    """The hub of the calling thread."""
    return Home()


def find_home() -> Home:
    """The home of a client or pool that is first used here and now."""
    if monkey.is_module_patched("socket") and _thread_id() == _main_thread():
        return Home()
    return _background.get()


def _main_thread() -> int | None:
    import threading  # not above: where it is patched, it must be by then

    return threading.main_thread().ident


class _Background:
    """The background thread. The lock guards against two threads starting it at once."""

    def __init__(self) -> None:
        self._lock = _allocate_lock()
        self._home: Home | None = None

    def get(self) -> Home:
        with self._lock:
            home = self._home
            if home is None or home.pid != os.getpid():
                home = self._home = self._start()
            return home

    def _start(self) -> Home:
        started: list[Home] = []
        ready = _allocate_lock()
        ready.acquire()

        def run() -> None:
            home = Home()
            forever = home.hub.loop.async_()  # without a watcher the loop would end
            started.append(home)
            ready.release()
            home.hub.wait(forever)

        _start_thread(run, ())
        ready.acquire()
        return started[0]

    def forget(self) -> None:
        # In a forked child: the thread isn't there, and the lock may have been held by one that isn't either.
        self._lock = _allocate_lock()
        self._home = None


_background = _Background()
os.register_at_fork(after_in_child=_background.forget)


def wait_for(future: Future[T], timeout: float | None = None) -> T:
    """``future.result(timeout)``, with other greenlets of this thread running meanwhile, patched or not.

    Raises ``TimeoutError`` after ``timeout`` seconds, and what the future raises.
    """
    if future.done() or monkey.is_module_patched("threading") or get_hub_if_exists() is None:
        try:
            return future.result(timeout)
        except TimeoutError:
            raise
        except Exception as error:
            # Until Python 3.11, futures had a TimeoutError of their own.
            if type(error).__name__ == "TimeoutError" and not future.done():
                raise TimeoutError() from None
            raise
    hub = get_hub()
    if getcurrent() is hub:
        raise RuntimeError("waiting in the hub itself would stop every greenlet: wait in a greenlet")
    waiter: Waiter[None] = Waiter()
    done = hub.loop.async_()
    done.start(waiter.switch, None)
    waiting = [True]
    lock = _allocate_lock()  # guards `waiting`: the watcher must not be told anything once it is closed

    def wake(_: Future[T]) -> None:
        with lock:
            if waiting[0]:
                done.send()

    try:
        future.add_done_callback(wake)
        with Timeout(timeout, TimeoutError()):
            waiter.get()
    finally:
        with lock:
            waiting[0] = False
        done.stop()
        done.close()
    return future.result()
