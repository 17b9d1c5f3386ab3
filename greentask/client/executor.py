"""``TaskExecutor``: a ``concurrent.futures.Executor`` whose functions run on a client's servers.

Submitted calls wait here, in order, while ``window`` of them are in flight: a program may submit a million at once, as
it may to the standard library's executors, and no server refuses the most of them. The lock guards what waits and the
count of what is in flight; it is held for moments only, and whichever thread ends a call starts the next.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Context
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from ..errors import ConfigurationError, out_of_time
from ..hub.bell import Bell
from ..hub.home import allocate_lock
from ..tasks.binding import Binder
from ..tasks.context import current
from ..tasks.importing import is_importable, target_of
from ..tasks.task import RemoteFunction, Task, merge_arguments
from ..wire.message import Args
from .carrier import Carrier, carrier_of
from .future import ClientFuture

if TYPE_CHECKING:
    from .client import Client

__all__ = ["ExecutorFuture", "TaskExecutor"]

P = ParamSpec("P")
T = TypeVar("T")


class ExecutorFuture(ClientFuture):
    """The future of a submitted call: one that waits, then one in flight. ``cancel`` ends it in either state."""

    def __init__(self, executor: TaskExecutor, name: str, args: Args, deadline: float | None) -> None:
        super().__init__(executor.carrier())
        self.name = name
        self.args = args
        self.deadline = deadline  # of the task that submits it
        self._call: Future[Any] | None = None  # while it is in flight

    def running(self) -> bool:
        """Whether it is in flight: its server has it, or is about to. It can be cancelled all the same."""
        return self._call is not None and not self.done()

    def follow(self, call: Future[Any]) -> None:
        """It is in flight now."""
        self._call = call
        if self.cancelled():  # in this moment
            call.cancel()

    def _cancel_call(self) -> None:
        if self._call is not None:
            self._call.cancel()


class TaskExecutor(Executor):
    """What ``Client.executor`` gives."""

    def __init__(self, client: Client, *, window: int) -> None:
        if window < 1:
            raise ValueError(f"window must be at least 1, not {window}")
        self._client = client
        self._window = window
        self._waiting: deque[ExecutorFuture] = deque()
        self._in_flight = 0
        self._is_shut_down = False
        self._ended = Bell()  # shut down, and nothing is left
        self._lock = allocate_lock()
        _executors.add(self)

    def __repr__(self) -> str:
        return f"<TaskExecutor of {self._client!r}: {self._in_flight} in flight, {len(self._waiting)} waiting>"

    def submit(self, fn: Callable[P, T] | str, /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a task there; the future has its result.

        ``fn`` is a task, its name, a plain function that the server offers (``greentask serve module:function``), or a
        ``functools.partial`` of one of these. Raises ``ConfigurationError`` for a function that no server can have, and
        ``RuntimeError`` after ``shutdown``.
        """
        while isinstance(fn, functools.partial):
            args, kwargs, fn = (*fn.args, *args), {**fn.keywords, **kwargs}, fn.func
        name, binder = _find(fn, mixed=bool(args and kwargs))
        future = ExecutorFuture(self, name, merge_arguments(args, kwargs, binder), current().deadline)
        with self._lock:
            if self._is_shut_down:
                raise RuntimeError("cannot schedule new futures after shutdown")
            self._waiting.append(future)
        self._go_on()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; ``wait`` for those that are left, or take back those that are not in flight yet.

        The client goes on, for it is not the executor's.
        """
        with self._lock:
            self._is_shut_down = True
            taken_back = list(self._waiting) if cancel_futures else []
        for future in taken_back:
            future.cancel()
        self._go_on()
        if wait and not self._has_ended():
            self.carrier().check_may_wait()
            self._ended.wait()

    # ---- How

    def carrier(self) -> Carrier:
        """What carries the calls of the client."""
        return carrier_of(self._client._core.router)

    def _go_on(self) -> None:
        """Start what may start, by whichever thread finds that it may."""
        while True:
            with self._lock:
                if not self._waiting or self._in_flight >= self._window:
                    break
                future = self._waiting.popleft()
                self._in_flight += 1
            self._start(future)
        if self._has_ended():
            self._ended.ring()

    def _start(self, future: ExecutorFuture) -> None:
        try:
            call = None if future.cancelled() else self._submit(future)
        except BaseException as error:  # JSON can't carry its arguments, say
            future.ended(None, error)
            self._leave()
            if not isinstance(error, Exception):
                raise
            return
        if call is None:
            self._leave()
            return
        future.follow(call)
        if call.done():
            self._finish(future, call)
        else:
            call.add_done_callback(functools.partial(self._finished, future))

    def _submit(self, future: ExecutorFuture) -> Future[Any]:
        left = None
        if future.deadline is not None:
            left = future.deadline - time.monotonic()
            if left <= 0:
                raise out_of_time(started=False)
            if self._client._timeout is not None:
                left = min(left, self._client._timeout)
        # Whoever starts it may be a task with a deadline of its own, and not the one that has submitted it.
        return Context().run(self._client.submit_args, future.name, future.args, timeout=left)

    def _finished(self, future: ExecutorFuture, call: Future[Any]) -> None:
        self._finish(future, call)
        self._go_on()

    def _finish(self, future: ExecutorFuture, call: Future[Any]) -> None:
        try:
            if call.cancelled():
                future.cancel()
            else:
                error = call.exception()
                future.ended(None if error is not None else call.result(), error)
        finally:
            self._leave()  # who waits for a shutdown finds everything done

    def _leave(self) -> None:
        with self._lock:
            self._in_flight -= 1

    def _has_ended(self) -> bool:
        with self._lock:
            return self._is_shut_down and not self._waiting and not self._in_flight

    def _forked(self) -> None:
        # What was submitted is the parent's, and the lock may have been held by a thread that isn't here.
        self._lock = allocate_lock()
        self._waiting = deque()
        self._in_flight = 0


def _find(fn: Any, *, mixed: bool) -> tuple[str, Binder | None]:
    """The name under which a server has it, and its binder, if that is wanted."""
    if isinstance(fn, str):
        return fn, None
    if isinstance(fn, Task):
        return fn.name, fn.binder
    target = target_of(fn)
    remedy = "decorate it with @task at the top of a module that greentask serve has, or submit a task's name"
    if isinstance(fn, RemoteFunction):
        raise ConfigurationError(
            f"{fn!r:.200} has options, and an executor has those of its client: "
            f"client.using(timeout=…).executor().submit({fn.task.name}, …)"
        )
    if not callable(fn) or inspect.ismethod(fn) or not is_importable(target):
        raise ConfigurationError(
            f"{fn!r:.200} is no function that a server can have: it isn't sent anything but names; {remedy}"
        )
    module, _, qualname = target.partition(":")
    if module == "__main__":
        raise ConfigurationError(
            f"{qualname} is defined in the program that was started (__main__), which no server imports: {remedy}"
        )
    known = getattr(sys.modules.get(module), qualname, None)
    if isinstance(known, Task) and known.function is fn:
        return known.name, known.binder
    return target, Binder(fn, qualname) if mixed else None


_executors: weakref.WeakSet[TaskExecutor] = weakref.WeakSet()


def _after_fork() -> None:
    for executor in list(_executors):
        executor._forked()


def _at_exit() -> None:
    """What was submitted is run to its end, as with the standard library's executors."""
    for executor in list(_executors):
        executor.shutdown()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
