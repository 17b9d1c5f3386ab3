"""Where I/O lives in a program that greentask is a guest of.

In a monkey-patched program that is the main thread's hub: callers are greenlets beside it, and waiting is a switch.
In any other (plain, threaded, or patched but called from a real thread first) it is one background thread with a hub
of its own, shared by all clients and pools of the process, started at first use and started anew after a fork. It ends
before the interpreter does: a thread that wakes while Python is taken apart is ended by force, wherever it is, and in
the midst of greenlets that crashes the process. Exit handlers that run after that have the main thread's hub.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from gevent import monkey
from gevent.hub import Waiter, get_hub

__all__ = ["Home", "allocate_lock", "find_home"]

logger = logging.getLogger(__name__)

_thread_id: Callable[[], int] = monkey.get_original("_thread", "get_ident")
_native_id: Callable[[], int] = monkey.get_original("_thread", "get_native_id")
_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")

#: A lock between threads, in patched programs too: for what is held for a moment, and never while a greenlet switches.
allocate_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")


_ENDED_WITHIN = 0.5  # seconds, for the background thread


class Home:
    """A hub and the thread that runs it; ``has_ended`` at the interpreter's exit, if it is the background thread.

    Other threads ``post``. gevent's own ``run_callback_threadsafe`` would count the loop's references from there, in
    a number that the loop counts in as well; to wake a watcher touches none.
    """

    __slots__ = ("_posted", "_wake", "has_ended", "hub", "pid", "thread")

    def __init__(self) -> None:
        self.has_ended = False
        self.hub = get_hub()
        self.thread = _thread_id()
        self.pid = os.getpid()
        self._posted: deque[tuple[Callable[..., object], tuple[Any, ...]]] = deque()
        self._wake = self.hub.loop.async_(ref=False)
        self._wake.start(self._run_posted)

    def is_ours(self) -> bool:
        """Whether it is of this process, and not of one that it was forked from."""
        return self.pid == os.getpid()

    def is_here(self) -> bool:
        """Whether the caller runs in this hub's thread."""
        return _thread_id() == self.thread

    def run(self, function: Callable[..., object], *args: Any) -> None:
        """Run a function that doesn't block in the hub's thread: now if that is here, else soon."""
        if _thread_id() == self.thread:
            function(*args)
        else:
            self.post(function, *args)

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Run it there when whatever runs there now has let go: for callers who may be in the midst of anything."""
        if _thread_id() == self.thread:
            self.hub.loop.run_callback(function, *args)
        else:
            self.post(function, *args)

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Run it there soon, wherever the caller is."""
        self._posted.append((function, args))
        self._wake.send()

    def resume(self, waiter: Waiter[None]) -> None:
        """Let a greenlet of this home go on; for any thread."""
        if _thread_id() == self.thread:
            self.hub.loop.run_callback(waiter.switch, None)
        else:
            self.post(waiter.switch, None)

    def _run_posted(self) -> None:
        if not self.is_ours():  # the loop goes on in a forked child, and what was posted is the parent's to do
            self._posted.clear()
            return
        for _ in range(len(self._posted)):  # those that are posted meanwhile wake us again
            function, args = self._posted.popleft()
            try:
                function(*args)
            except BaseException:
                self.hub.handle_error(function, *sys.exc_info())


_main: Home | None = None  # the main thread's


def find_home() -> Home:
    """The home of a client or pool that is first used here and now."""
    global _main
    if _is_main_thread() and (monkey.is_module_patched("socket") or _background.is_over()):
        if _main is None or _main.pid != os.getpid() or _main.hub is not get_hub():
            _main = Home()
        return _main
    return _background.get()


def _is_main_thread() -> bool:
    # By the kernel's ids: where threading is patched, its main thread has the id of a greenlet.
    return _native_id() == os.getpid()


def _is_exiting() -> bool:
    return not threading.main_thread().is_alive()


class _Background:
    """The background thread. The lock guards against two threads starting it at once."""

    def __init__(self) -> None:
        self._lock = allocate_lock()
        self._home: Home | None = None
        self._end: Callable[[], object] | None = None
        self._ended = allocate_lock()

    def get(self) -> Home:
        with self._lock:
            home = self._home
            if home is None or home.pid != os.getpid():
                home = self._home = self._start()
            return home

    def _start(self) -> Home:
        started: list[Home] = []
        ready = allocate_lock()
        ready.acquire()
        self._ended = ended = allocate_lock()
        ended.acquire()

        def run() -> None:
            home = Home()
            end = home.hub.loop.async_()
            self._end = end.send
            started.append(home)
            ready.release()
            while not home.has_ended:
                try:
                    home.hub.wait(end)
                except BaseException:
                    # Somebody's callback raised SystemExit, say, which gevent hands on to us: that is not our end, and
                    # not that of everybody who waits for this thread.
                    logger.exception("an error came up to the background thread, which goes on")
            ended.release()

        _start_thread(run, ())
        ready.acquire()
        return started[0]

    def is_over(self) -> bool:
        """Whether the interpreter is at its exit, and there is no thread, nor can there always be a new one."""
        return self._home is None and _is_exiting()

    def stop(self) -> None:
        """At the interpreter's exit. Who needs a home after that has the main thread's hub."""
        with self._lock:
            home, self._home = self._home, None
        if home is not None and home.pid == os.getpid() and self._end is not None:
            home.has_ended = True
            self._end()
            self._ended.acquire(True, _ENDED_WITHIN)

    def forget(self) -> None:
        # In a forked child: the thread isn't there, and the lock may have been held by one that isn't either.
        self._lock = allocate_lock()
        self._home = None


_background = _Background()
os.register_at_fork(after_in_child=_background.forget)
atexit.register(_background.stop)
