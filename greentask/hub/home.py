"""Where I/O lives in a program that greentask is a guest of.

In a monkey-patched program that is the main thread's hub: callers are greenlets beside it, and waiting is a switch.
In any other (plain, threaded, or patched but called from a real thread first) it is the *background*: one thread with a
hub of its own, shared by all clients and pools of the process, and another one after a fork.

The background's thread is there while something lives in its hub: a connection, a call, a process, a greenlet that
waits for a socket or for a time; whatever counts in the loop's own count of references, and what was told to ``keep``.
The first post starts it. Half a second after the last of it has ended, and with nothing posted meanwhile, it ends, with
its hub, its descriptors and gevent's threads; so a program that makes a client for each of its requests doesn't pay for
a thread each time, and nobody has to wait for the end. At the interpreter's exit it ends at once: a thread that wakes
while Python is taken apart is ended by force, wherever it is, and in the midst of greenlets that crashes the process.
Exit handlers that run after that have the main thread's hub.

Who owns what: a ``Home`` stays as long as the process, so whoever has one may post at any time. ``hub``, ``thread`` and
``_wake`` are set, and taken away, by the thread that they are of. ``_posted`` is everybody's: any thread appends, the
hub takes out what it has run. ``_tended`` is a lock that nobody waits for. It is held while there is a thread that will
look at what is posted, or while one is being started: who takes it starts one, and the thread gives it back when it
ends.

Why no post is lost: who posts appends first, and looks at the lock after that; a thread that ends gives the lock back
first, and looks at what is posted after that. So one of them sees what the other did. Either the thread finds the post,
and takes the lock again (or finds it taken: another thread is being started, and will look); or the lock is free, and
who posts takes it and starts a thread. Where the lock is held by a thread that can't be woken yet, it looks when it can
be. No step waits for another, so that a signal handler, a ``__del__`` or a weak reference's callback may post in the
midst of a post. In a forked child what was posted is the parent's to do.
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
from gevent.exceptions import LoopExit
from gevent.hub import Waiter, get_hub

from .forks import current_pid

__all__ = ["Home", "allocate_lock", "allocate_rlock", "find_home", "is_main_thread"]

logger = logging.getLogger(__name__)

_thread_id: Callable[[], int] = monkey.get_original("_thread", "get_ident")
_native_id: Callable[[], int] = monkey.get_original("_thread", "get_native_id")
_start_thread: Callable[..., int] = monkey.get_original("_thread", "start_new_thread")
_sleep: Callable[[float], None] = monkey.get_original("time", "sleep")

#: A lock between threads, in patched programs too: for what is held for a moment, and never while a greenlet switches.
allocate_lock: Callable[[], Any] = monkey.get_original("_thread", "allocate_lock")
#: The same for what a signal handler of the thread that holds it may want as well.
allocate_rlock: Callable[[], Any] = monkey.get_original("_thread", "RLock")

_LINGERS = 0.5  # seconds, with nothing to do, for which the background thread waits for more
_ENDED_WITHIN = 0.5  # seconds, for the background thread, at the interpreter's exit
_LATE = 1.0  # seconds after which what was to run soon is run where a Ctrl-C took the place of that
_TRIED_EVERY = 0.1  # seconds, where there is no descriptor left for its hub

Posted = tuple[Callable[..., object], tuple[Any, ...]]


class Home:
    """A hub and the thread that runs it.

    Other threads ``post``. gevent's own ``run_callback_threadsafe`` would count the loop's references from there, in
    a number that the loop counts in as well; to wake a watcher touches none.
    """

    __slots__ = ("_net", "_posted", "_soon", "_wake", "hub", "pid", "thread")

    def __init__(self) -> None:
        self.pid = current_pid()
        self._posted: deque[Posted] = deque()
        self._settle()

    def _settle(self) -> None:
        self.hub: Any = get_hub()
        self.thread = _thread_id()
        self._wake: Any = self.hub.loop.async_(ref=False)
        self._wake.start(self._run_posted)
        self._soon: deque[Posted] = deque()
        self._net: Any = self.hub.loop.timer(_LATE, _LATE)  # active while it may be that something is still to be run

    @property
    def has_ended(self) -> bool:
        """Whether nothing will run there any more: at the interpreter's exit, if it is the background."""
        return False

    def is_ours(self) -> bool:
        """Whether it is of this process, and not of one that it was forked from."""
        return self.pid == current_pid()

    def is_usable(self) -> bool:
        """Whether it is of this process, and has not ended."""
        return self.pid == current_pid()

    def is_interrupted(self) -> bool:
        """Whether signal handlers run in its thread, and may raise something (a Ctrl-C) in the midst of anything."""
        return True

    def is_here(self) -> bool:
        """Whether the caller runs in this hub's thread."""
        return _thread_id() == self.thread

    def is_deserted(self) -> bool:
        """Whether nothing lives there, nor was posted: there is nobody who needs to be told of an end, say."""
        return False

    def keep(self) -> None:
        """Something lives there, though nothing in the loop may tell so, until ``let_go``. In its thread."""

    def let_go(self) -> None:
        """It doesn't any more."""

    def run(self, function: Callable[..., object], *args: Any) -> None:
        """Run a function that doesn't block in the hub's thread: now if that is here, else soon."""
        if _thread_id() == self.thread:
            function(*args)
        else:
            self.post(function, *args)

    def soon(self, function: Callable[..., object], *args: Any) -> None:
        """Run it there when whatever runs there now has let go: for callers who may be in the midst of anything.

        It is run again where a Ctrl-C has hit it.
        """
        if _thread_id() != self.thread:
            self.post(function, *args)
            return
        self._soon.append((function, args))
        if self.is_interrupted() and not self._net.active:
            self._net.start(self._run_soon)
        self.hub.loop.run_callback(self._run_soon)

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Run it there soon, wherever the caller is. It is run again where a Ctrl-C has hit it."""
        self._posted.append((function, args))
        self._wake.send()

    def nudge(self) -> None:
        """For a thread that waits for it: look at what was posted, where a Ctrl-C took the place of that."""
        if self._posted and self.is_interrupted():
            self._wake.send()

    def resume(self, waiter: Waiter[None]) -> None:
        """Let a greenlet of this home go on; for any thread."""
        if _thread_id() == self.thread:
            self.hub.loop.run_callback(waiter.switch, None)
        else:
            self.post(waiter.switch, None)

    def _run_soon(self) -> None:
        while self._soon:
            function, args = self._soon[0]
            try:
                function(*args)
            except KeyboardInterrupt:  # it hit us by chance, and is the main greenlet's
                self.hub.loop.run_callback(self._run_soon)
                raise
            except BaseException:
                self.hub.handle_error(function, *sys.exc_info())
            del self._soon[0]  # last: where a Ctrl-C came in between, it is the first one still
        self._net.stop()

    def _run_posted(self) -> None:
        if not self.is_ours():  # the loop goes on in a forked child, and what was posted is the parent's to do
            self._posted.clear()
            return
        try:
            for _ in range(len(self._posted)):  # those that are posted meanwhile wake us again
                function, args = self._posted[0]
                try:
                    function(*args)
                except BaseException as error:
                    if isinstance(error, KeyboardInterrupt) and self.is_interrupted():
                        raise  # it hit us by chance, and is the main greenlet's
                    self.hub.handle_error(function, *sys.exc_info())
                del self._posted[0]  # last: where a Ctrl-C came in between, it is the first one still
        except BaseException:
            self._wake.send()
            raise


class Background(Home):
    """The home of a program whose main thread has no hub for us. See above."""

    __slots__ = ("_ran", "_stopped", "_tended", "_there", "_waiter")

    def __init__(self) -> None:
        # In place of Home.__init__, which makes a hub.
        self.pid = current_pid()
        self.hub = self._wake = self._net = None
        self.thread = 0
        self._posted = deque()
        self._tended = allocate_lock()
        self._there = allocate_lock()  # held by its thread, to its very end
        self._stopped = False
        self._ran = 0  # how often what was posted was run
        self._waiter: Any = None  # with which the thread waits while its hub runs

    @property
    def has_ended(self) -> bool:
        # A new thread can't always be started at the exit. One that is there stays until it is stopped.
        return self._stopped or (not self._tended.locked() and _is_exiting())

    def is_usable(self) -> bool:
        return self.is_ours() and not self.has_ended

    def is_interrupted(self) -> bool:
        return False

    def is_deserted(self) -> bool:
        return not self._tended.locked()

    def keep(self) -> None:
        self.hub.loop.ref()

    def let_go(self) -> None:
        self.hub.loop.unref()

    def post(self, function: Callable[..., object], *args: Any) -> None:
        """Run it there soon, wherever the caller is. Raises ``RuntimeError`` where the system has no thread left."""
        posted = (function, args)
        self._posted.append(posted)
        if not self._tended.locked():
            self._start(posted)
        wake = self._wake
        if wake is not None:
            try:
                wake.send()
            except ValueError:
                pass  # its loop is gone: the thread that it was of has looked at what was posted since we looked

    def stop(self) -> None:
        """At the interpreter's exit. Who needs a home after that has the main thread's hub."""
        self._stopped = True
        if self.is_ours() and not self._tended.acquire(False):  # else nobody is there, and nobody comes any more
            wake = self._wake
            if wake is not None:
                try:
                    wake.send()
                except ValueError:
                    pass  # it ends already
            self._there.acquire(True, _ENDED_WITHIN)

    def _start(self, posted: Posted) -> None:
        # What they return is put there in C: where a Ctrl-C came in between, nobody would know who has the lock.
        took: list[bool] = []
        started: list[int] = []
        again = False
        try:
            took.extend(map(self._tended.acquire, (False,)))
            if took[0] and self.is_ours():
                started.extend(map(_start_thread, (self._run,), ((),)))
        except RuntimeError:
            self._posted.remove(posted)
            raise
        except BaseException:  # others may have relied on us meanwhile
            again = True
            raise
        finally:
            if took and took[0] and not started:
                self._tended.release()
            if again:
                self._start(posted)

    # ---- In its thread

    def _run(self) -> None:
        with self._there:  # after the thread before it, which may be about to take its hub apart
            while not self._stopped and not self._has_settled():
                _sleep(_TRIED_EVERY)
            hub = self.hub
            if hub is None:  # the interpreter exits before there was one
                return
            hub.loop.run_callback(self._run_posted)  # what was posted before there was something to wake
            lingered = -1
            while not self._stopped:
                self._waiter = Waiter(hub)
                try:
                    self._wait_until_left()
                    if self._stopped or (lingered == self._ran and self._leave(hub)):
                        return
                    lingered = self._ran
                    self._linger(hub)
                except BaseException:
                    # Somebody's callback raised SystemExit, say, which gevent hands on to us: that is not our end, and
                    # not that of everybody who waits for this thread.
                    logger.exception("an error came up to the background thread, which goes on")

    def _has_settled(self) -> bool:
        try:
            self._settle()
        except Exception:  # there is no file descriptor left, say
            logger.exception("the background thread can't run yet, and tries again")
            return False
        return True

    def _wait_until_left(self) -> None:
        """Until nothing lives in it, or we are stopped."""
        try:
            self._waiter.get()
        except LoopExit:
            pass

    def _linger(self, hub: Any) -> None:
        with hub.loop.timer(_LINGERS) as timer:
            timer.start(self._waiter.switch, None, update=True)
            self._waiter.get()

    def _leave(self, hub: Any) -> bool:
        """End, unless something was posted meanwhile."""
        wake, self._wake = self._wake, None
        self.hub, self.thread = None, 0
        self._tended.release()
        if (self._posted or _is_exiting()) and self._tended.acquire(False):
            self.hub, self.thread, self._wake = hub, _thread_id(), wake
            wake.send()
            return False
        try:
            wake.stop()
            wake.close()
            self._waiter = None
            hub.destroy(destroy_loop=True)
        except BaseException:  # the next thread waits for our end
            logger.exception("the background thread could not take its hub apart")
        return True

    def _run_posted(self) -> None:
        self._ran += 1
        super()._run_posted()
        if self._stopped:
            self._waiter.switch(None)


_main: Home | None = None  # the main thread's
_backgrounds: dict[int, Background] = {}  # by process: this one's, and the parent's where nobody told us of the fork


def find_home() -> Home:
    """The home of a client or pool that is first used here and now."""
    global _main
    if is_main_thread() and (monkey.is_module_patched("socket") or _background().has_ended):
        if _main is None or not _main.is_ours() or _main.hub is not get_hub():
            _main = Home()
        return _main
    return _background()


def _background() -> Background:
    pid = os.getpid()
    found = _backgrounds.get(pid)
    return _backgrounds.setdefault(pid, Background()) if found is None else found  # of two at once the first one's


def is_main_thread() -> bool:
    """Whether the caller is in the process's main thread, where Python's signal handlers run."""
    # By the kernel's ids: where threading is patched, its main thread has the id of a greenlet.
    return _native_id() == os.getpid()


def _is_exiting() -> bool:
    return not threading.main_thread().is_alive()


def _at_exit() -> None:
    _background().stop()


os.register_at_fork(after_in_child=_backgrounds.clear)
atexit.register(_at_exit)
