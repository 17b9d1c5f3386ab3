"""``TaskExecutor``: a ``concurrent.futures.Executor`` whose functions run on a client's servers.

Submitted calls wait here, in order, while ``window`` of them are in flight: a program may submit a million at once, as
it may to the standard library's executors, and no server refuses the most of them. The lock guards what waits and the
count of what is in flight; it is held for moments only, and whichever thread ends a call starts the next.

Where something waits and there is room for it, somebody is about to start it: who put it there, or who made the room. A
Ctrl-C may hit that one anywhere. What it was starting fails then, and the rest is left to the home, which runs what it
is given until that has come to its own end (``Home.soon``): so nobody who waits for a future needs to look.
"""

from __future__ import annotations

import atexit
import functools
import inspect
import itertools
import os
import sys
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future
from contextvars import Context
from typing import TYPE_CHECKING, Any, NamedTuple, ParamSpec, TypeVar

from ..errors import ConfigurationError, ConnectionLost, out_of_time
from ..hub.bell import Bell
from ..hub.held import may_take
from ..hub.home import allocate_rlock
from ..tasks.binding import Binder
from ..tasks.checks import check_count
from ..tasks.context import current
from ..tasks.importing import is_importable, target_of
from ..tasks.task import RemoteFunction, Task, merge_arguments
from ..wire.message import Args
from .batching import Batching
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
        self.is_followed = False  # what becomes of that becomes of it
        self.has_left = False  # it is no longer counted

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


class _Target(NamedTuple):
    """What is to be called: by which name, and with which arguments besides those of each call."""

    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    binder: Callable[[], Binder | None]

    def bind(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Args:
        """A call's arguments as the wire takes them."""
        args, kwargs = (*self.args, *args), {**self.kwargs, **kwargs}
        return merge_arguments(args, kwargs, self.binder() if args and kwargs else None)


class _Chunk(NamedTuple):
    """Calls that start together; ``batching`` is there where they may share a line."""

    futures: list[ExecutorFuture]
    batching: Batching | None


class TaskExecutor(Executor):
    """What ``Client.executor`` gives."""

    def __init__(self, client: Client, *, window: int) -> None:
        self._client = client
        self._window = check_count("window", window)
        self._waiting: deque[_Chunk] = deque()
        self._in_flight = 0  # calls
        self._is_shut_down = False
        self._ended = Bell()  # shut down, and nothing is left
        self._lock = allocate_rlock()
        _executors.add(self)

    def __repr__(self) -> str:
        return f"<TaskExecutor of {self._client!r}: {self._in_flight} in flight>"

    def submit(self, fn: Callable[P, T] | str, /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run a task there; the future has its result.

        ``fn`` is a task, its name, a plain function that the server offers (``greentask serve module:function``), or a
        ``functools.partial`` of one of these. Raises ``ConfigurationError`` for a function that no server can have, and
        ``RuntimeError`` after ``shutdown``.
        """
        target = _find(fn)
        future = ExecutorFuture(self, target.name, target.bind(args, kwargs), current().deadline)
        self._put(_Chunk([future], None))
        return future

    def map(
        self,
        fn: Callable[..., T] | str,
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Like the builtin ``map``, there, in order.

        ``timeout`` is for the whole, in seconds. ``chunksize`` calls start at the same time and share lines, which
        costs less where they are small and quick; what becomes of each is its own. All of them are submitted at once;
        with ``buffersize``, at most so many chunks are ahead of the results that are taken.
        """
        if chunksize < 1:
            raise ValueError("chunksize must be >= 1.")
        if buffersize is not None and buffersize < 1:
            raise ValueError("buffersize must be None or > 0")
        until = None if timeout is None else time.monotonic() + timeout
        submitted = self._submit_chunks(_find(fn), zip(*iterables), min(chunksize, self._window))
        return _results(deque(itertools.islice(submitted, buffersize)), submitted, until)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; ``wait`` for those that are left, or take back those that are not in flight yet.

        The client goes on, for it is not the executor's.
        """
        with self._lock:
            self._is_shut_down = True
            taken_back = [future for chunk in self._waiting for future in chunk.futures] if cancel_futures else []
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

    def _submit_chunks(
        self, target: _Target, items: Iterator[tuple[Any, ...]], size: int
    ) -> Iterator[list[ExecutorFuture]]:
        deadline = current().deadline
        batching = self._batching(target.name, deadline) if size > 1 else None
        while chunk := list(itertools.islice(items, size)):
            futures = [ExecutorFuture(self, target.name, target.bind(args, {}), deadline) for args in chunk]
            self._put(_Chunk(futures, batching))
            yield futures

    def _put(self, chunk: _Chunk) -> None:
        try:
            with self._lock:
                if self._is_shut_down:
                    raise RuntimeError("cannot schedule new futures after shutdown")
                self._waiting.append(chunk)
            self._go_on()
        except BaseException as error:
            if not isinstance(error, Exception):  # it may have come when the chunk was put there
                self.carrier().home.soon(self._go_on_at_home)
            raise

    def _go_on(self) -> None:
        """Start what may start, by whichever thread finds that it may."""
        taken: list[_Chunk] = []
        try:
            while self._take(taken):
                try:
                    self._start(taken[-1])
                except Exception as error:  # JSON can't carry its arguments, say
                    self._fail(taken[-1], error)
            if self._has_ended():
                self._ended.ring()
        except BaseException:  # a Ctrl-C, which is not that of whoever waits for these
            if taken:
                self._fail(taken[-1], ConnectionLost("a Ctrl-C came as it was sent", sent=True))
            self.carrier().home.soon(self._go_on_at_home)
            raise

    def _go_on_at_home(self) -> None:
        if may_take(self._lock, self.carrier().home, self._go_on_at_home):
            self._go_on()

    def _take(self, taken: list[_Chunk]) -> bool:
        """Put there what is to be started now; False where nothing is."""
        with self._lock:
            while self._waiting and self._in_flight < self._window:
                chunk = self._waiting[0]
                count = len(chunk.futures)
                # No call in these lines: what a signal handler does or raises comes before or after them.
                if self._waiting and self._waiting[0] is chunk:
                    del self._waiting[0]
                    self._in_flight += count
                    taken += [chunk]
                    return True
        return False

    def _start(self, chunk: _Chunk) -> None:
        futures = []
        for future in chunk.futures:
            if future.cancelled():
                self._leave(future)
            else:
                futures.append(future)
        # Whoever starts it may be a task with a deadline of its own, and not the one that has submitted it.
        calls = Context().run(self._call, futures, chunk.batching)
        for future, call in zip(futures, calls):
            future.follow(call)
            if call.done():
                self._finish(future, call)
            else:
                call.add_done_callback(functools.partial(self._finished, future))
            future.is_followed = True

    def _fail(self, chunk: _Chunk, error: Exception) -> None:
        """What of it was not started fails; of no effect where that was said before."""
        for future in chunk.futures:
            if not future.is_followed:
                future.ended(None, error)
                self._leave(future)

    def _call(self, futures: list[ExecutorFuture], batching: Batching | None) -> Sequence[Future[Any]]:
        if batching is not None:
            return batching.start([future.args for future in futures], True)
        return [
            self._client._submit_patiently(future.name, future.args, self._time_left(future.deadline))
            for future in futures
        ]

    def _batching(self, name: str, deadline: float | None) -> Batching:
        client = self._client

        def time_left() -> float | None:
            return client._time_left(self._time_left(deadline))

        def submit(args: Args) -> Future[Any]:
            return client._try_submit(name, args, self._time_left(deadline), None)

        return Batching(client._core, name, submit, time_left, idempotent=client._idempotent, patient=True)

    def _time_left(self, deadline: float | None) -> float | None:
        """Seconds for a call that is made now, for a task with that deadline; None: as the client says."""
        if deadline is None:
            return None
        left = deadline - time.monotonic()
        if left <= 0:
            raise out_of_time(started=False)
        return left if self._client._timeout is None else min(left, self._client._timeout)

    def _finished(self, future: ExecutorFuture, call: Future[Any]) -> None:
        if may_take(self._lock, self.carrier().home, self._finished, future, call):
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
            self._leave(future)  # who waits for a shutdown finds everything done

    def _leave(self, future: ExecutorFuture) -> None:
        """It is no longer in flight; of no effect where that was said before."""
        with self._lock:
            if not future.has_left:
                future.has_left = True
                self._in_flight -= 1

    def _has_ended(self) -> bool:
        with self._lock:
            return self._is_shut_down and not self._waiting and not self._in_flight

    def _forked(self) -> None:
        # What was submitted is the parent's, and the lock may have been held by a thread that isn't here.
        self._lock = allocate_rlock()
        self._waiting = deque()
        self._in_flight = 0


def _results(
    flying: deque[list[ExecutorFuture]], submitted: Iterator[list[ExecutorFuture]], until: float | None
) -> Iterator[Any]:
    def results() -> Iterator[Any]:
        left: list[ExecutorFuture] = []
        try:
            while flying:
                left = flying.popleft()
                flying.extend(itertools.islice(submitted, 1))
                left.reverse()
                while left:
                    yield left[-1].result(None if until is None else until - time.monotonic())
                    left.pop()
        finally:
            while left:
                left.pop().cancel()  # of no effect where it has ended
            while flying:
                left.extend(flying.popleft())
                while left:
                    left.pop().cancel()

    return results()


def _find(fn: Any) -> _Target:
    """The name under which a server has it."""
    if isinstance(fn, functools.partial):
        inner = _find(fn.func)
        return inner._replace(args=(*inner.args, *fn.args), kwargs={**inner.kwargs, **fn.keywords})
    if isinstance(fn, str):
        return _Target(fn, (), {}, lambda: None)
    if isinstance(fn, Task):
        return _Target(fn.name, (), {}, lambda: fn.binder)
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
        return _find(known)
    return _Target(target, (), {}, lambda: Binder(fn, qualname))


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
