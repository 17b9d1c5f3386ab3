"""``Pool``: a ``concurrent.futures.Executor`` on task processes, at home in gevent programs and in plain ones.

Its engine lives in a home (see ``hub.home``): in a monkey-patched program the main thread's hub, else a background
thread. Callers may be in any thread or greenlet; whatever they ask is carried out there.
"""

from __future__ import annotations

import atexit
import math
import os
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Executor, Future
from functools import partial
from multiprocessing import spawn
from typing import Any, ParamSpec, TypeVar

import gevent
from gevent import getcurrent

from ..errors import GreentaskError, WorkerLost
from ..hub.bell import Bell
from ..hub.future import HomeFuture
from ..hub.held import may_take
from ..hub.home import Home, allocate_rlock, find_home
from .cpus import processors
from .frames import Body
from .future import PoolFuture, run_apart
from .mapping import map_in_chunks
from .packing import pack
from .pickling import dump
from .processes import DEFAULT_GRACE, PoolStats, Processes
from .receiver import Receiver
from .setup import DEFAULT_START, Setup, is_loading

__all__ = ["Pool", "PoolFuture"]

P = ParamSpec("P")
T = TypeVar("T")

# By name, for it is above us: what the processes run, and how their errors are read.
_HANDLER = "greentask.tasks.work:make_handler"
# Python takes it from a main module that has come to its end, while threads and what was submitted still go on.
_FILE: str | None = getattr(sys.modules.get("__main__"), "__file__", None)
# What they have to know of the program, of all that multiprocessing tells its processes.
_PROGRAM = ("init_main_from_name", "init_main_from_path", "sys_argv", "authkey")


class Pool(Executor):
    """Runs functions in processes.

    processes
        How many; None: one for each processor that this process may use (a container's quota counts).
    preload
        Names of modules that are imported once, before the processes are forked: they share that memory.
    initializer, initargs
        Called in each process before its first task.
    max_tasks
        A process is replaced after so many tasks.
    max_memory
        Bytes of resident memory. A process that has more is replaced, or killed while it runs a task.
    timeout
        The limit of each task, in seconds from its start.
    grace
        Seconds between raising ``TimeLimit`` (or ``CancelRequest``) in a task and killing its process.
    start_timeout
        Seconds for importing what the processes run, each time that this is begun, and then for the initializer in
        each process; 0: any time.

    The processes start at the first task; until then, a forked child may use the pool as well as its parent. A process
    that dies costs only the task that it ran, which gets ``WorkerLost``.

    >>> with Pool(2) as pool:
    ...     pool.submit(pow, 2, 5).result()
    32
    """

    def __init__(
        self,
        processes: int | None = None,
        *,
        preload: Iterable[str] = (),
        initializer: Callable[..., object] | None = None,
        initargs: tuple[Any, ...] = (),
        max_tasks: int | None = None,
        max_memory: int | None = None,
        timeout: float | None = None,
        grace: float = DEFAULT_GRACE,
        start_timeout: float = DEFAULT_START,
    ) -> None:
        size = processors() if processes is None else processes
        if size < 1:
            raise ValueError(f"processes must be at least 1, not {processes}")
        if initializer is not None and not callable(initializer):
            raise TypeError(f"initializer must be callable, not {initializer!r}")
        for name, value in (("max_tasks", max_tasks), ("max_memory", max_memory), ("timeout", timeout)):
            if value is not None and not value > 0:
                raise ValueError(f"{name} must be above 0, not {value!r}")
        for name, value in (("grace", grace), ("start_timeout", start_timeout)):
            if not 0 <= value < math.inf:
                raise ValueError(f"{name} is in seconds, 0 or more, not {value!r}")
        self._size = size
        self._preload = tuple(preload)
        self._initializer = None if initializer is None else dump((initializer, initargs))
        self._max_tasks = max_tasks
        self._max_memory = max_memory
        self._timeout = timeout
        self._grace = grace
        self._start_timeout = start_timeout
        self._pid: int | None = None  # of the process that used it first
        self._lock = allocate_rlock()  # guards the start, and that other threads submit nothing after a shutdown
        self._home: Home | None = None
        self._engine: Processes | None = None  # its home's alone
        self._futures: set[PoolFuture] = set()  # its home's alone: those that the engine has
        self._is_shut_down = False
        self._has_all = False  # nothing more will be submitted, and what was is in the engine: its home's alone
        self._is_closing = False
        self._closed = Bell()
        _pools.add(self)

    def __del__(self) -> None:
        # Nobody can submit any more, and nothing is on its way, for that would refer to us.
        home, engine = getattr(self, "_home", None), getattr(self, "_engine", None)
        if engine is not None and home is not None and self._pid == os.getpid() and not home.has_ended:
            home.post(gevent.spawn, _close_engine, engine, home)

    # ---- What concurrent.futures promises

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run ``fn(*args, **kwargs)`` in a process; the future has its result."""
        return self.schedule(fn, args, kwargs)

    def schedule(
        self,
        fn: Callable[..., T],
        args: Iterable[Any] = (),
        kwargs: dict[str, Any] | None = None,
        *,
        timeout: float | None = None,
        on_progress: Callable[[dict[str, Any]], None] | None = None,
    ) -> PoolFuture:
        """As ``submit``, with a limit in seconds of its own, and a callback for ``greentask.current().progress(...)``.

        ``on_progress`` is called in the I/O's thread: it must be quick and must not block.
        """
        if timeout is not None and not 0 < timeout < math.inf:
            raise ValueError(f"timeout is in seconds above 0, not {timeout!r}")
        self._check_may_submit()
        packed: tuple[str, Body] | Exception
        try:
            packed = pack(fn, tuple(args), kwargs or {})
        except Exception as error:
            if not isinstance(args, Iterable):
                raise TypeError(
                    f"args has the call's arguments, as in ({args!r:.80},), and is not {args!r:.80}"
                ) from None
            packed = error
        home = self._home
        if home is None or home.has_ended:
            home = self._find_home()
        future = PoolFuture(self, home)
        if home.is_here():
            run_apart(home, self._submit, future, packed, timeout or self._timeout, on_progress)
        else:
            with self._lock:
                self._check_may_submit()
                home.post(self._submit, future, packed, timeout or self._timeout, on_progress)
        return future

    def map(
        self,
        fn: Callable[..., T],
        *iterables: Iterable[Any],
        timeout: float | None = None,
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[T]:
        """Like the builtin ``map``, in the processes, in order.

        ``timeout`` is for the whole, in seconds. ``chunksize`` items are one task. With ``buffersize``, at most so many
        tasks are submitted ahead of the results that are taken, and the iterables are read only as far as that.
        """
        return map_in_chunks(self.submit, fn, iterables, timeout, chunksize, buffersize)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more tasks; end the processes when those that are there have ended."""
        if self._pid not in (None, os.getpid()):
            return
        home = self._home
        again = partial(self.shutdown, False, cancel_futures=cancel_futures)
        if home is not None and not may_take(self._lock, home, again):
            first = cancel_futures = False  # for the one who comes again
        else:
            with self._lock:
                first, self._is_shut_down = not self._is_shut_down, True
                home = self._home
        if home is None:
            self._closed.ring()
        elif first or cancel_futures:  # behind whatever was submitted, here and by other threads
            run_apart(home, home.post, self._shut_down, cancel_futures)
        if wait and home is not None:
            self._wait_closed()

    # ---- Beyond it

    def stats(self) -> PoolStats:
        """How things are."""
        return self._ask(lambda engine: engine.stats(), PoolStats(0, 0, 0, 0, 0, 0))

    def resize(self, processes: int) -> None:
        """Have more or fewer processes. One that is too many ends after its task."""
        if processes < 1:
            raise ValueError(f"processes must be at least 1, not {processes}")
        self._size = processes
        self._ask(lambda engine: engine.resize(processes), None)

    def restart(self) -> None:
        """Replace every process: a few at a time, each after its task and when its successor is ready.

        Doesn't wait for it. They are forked from the same template: code that it has imported stays as it is.
        """
        self._ask(lambda engine: engine.recycle(), None)

    def pids(self) -> list[int]:
        """The process ids of the processes."""
        return self._ask(lambda engine: engine.pids(), [])

    # ---- In the caller's thread

    def _find_home(self) -> Home:
        if is_loading():
            raise RuntimeError(
                "a task process's template is importing this module, which uses a Pool as it is imported: "
                'put that under `if __name__ == "__main__":`'
            )
        with self._lock:
            if self._home is None or self._home.has_ended:
                self._check_may_submit()
                self._home, self._pid = find_home(), os.getpid()
            return self._home

    def _check_owner(self) -> None:
        if self._pid not in (None, os.getpid()):
            raise GreentaskError("this process was forked from the pool's owner: make a pool of its own here")

    def _check_may_submit(self) -> None:
        self._check_owner()
        if self._is_shut_down:
            raise RuntimeError("cannot schedule new futures after shutdown")

    def _ask(self, question: Callable[[Processes], T], otherwise: T) -> T:
        self._check_owner()
        home = self._home
        if home is None or home.has_ended:
            return otherwise
        answer = HomeFuture(home)

        def ask() -> None:
            try:
                answer.ended(otherwise if self._engine is None else question(self._engine), None)
            except Exception as error:
                answer.ended(None, error)

        if getcurrent() is home.hub:  # nobody can wait there
            ask()
        else:
            run_apart(home, ask)
        told: T = answer.result()
        return told

    def _wait_closed(self) -> None:
        while not self._closed.wait(1.0):
            if self._home is not None and self._home.has_ended:
                return

    # ---- In the home's thread

    def _begin(self) -> Processes:
        if self._engine is None:
            made_of = (_the_program(), self._preload, self._initializer, self._start_timeout)
            setup = Setup(_HANDLER, made_of, start=self._start_timeout)
            self._engine = Processes(
                setup, self._size, grace=self._grace, max_tasks=self._max_tasks, max_memory=self._max_memory
            )
            assert self._home is not None
            self._home.keep()  # an engine that could not start its template has nothing in the loop
        self._engine.begin()  # again, where a template could not be started the last time
        return self._engine

    def _submit(
        self,
        future: PoolFuture,
        packed: tuple[str, Body] | Exception,
        limit: float | None,
        on_progress: Callable[[dict[str, Any]], None] | None,
    ) -> None:
        if future.cancelled():  # before it came here
            return
        if future in self._futures:  # a Ctrl-C has hit us, and we are run again
            if future._call is None:
                self._fail(future, WorkerLost("a Ctrl-C came as it was submitted"))
            return
        self._futures.add(future)
        try:
            if isinstance(packed, Exception):
                raise packed
            name, payload = packed
            receiver = Receiver(self, future, on_progress)
            call = self._begin().submit(
                name, payload, receiver, limit=limit, progress=on_progress is not None, on_sent=receiver.is_wanted
            )
            if not call.finished:
                future._call = call
        except Exception as error:
            self._fail(future, error)

    def _fail(self, future: PoolFuture, error: BaseException) -> None:
        self._ended(future)
        if future.begins():
            future.ended(None, error)

    def _take_back(self, future: PoolFuture) -> None:
        if future._call is not None and self._engine is not None and self._engine.withdraw(future._call):
            self._ended(future)

    def _cancel(self, future: PoolFuture) -> None:
        if future._call is not None and self._engine is not None:
            self._engine.cancel(future._call)

    def _ended(self, future: PoolFuture) -> None:
        self._futures.discard(future)
        future._call = None
        if self._has_all and not self._futures:
            self._close_soon()

    def _shut_down(self, cancel_futures: bool) -> None:
        self._has_all = True
        if cancel_futures:
            for future in list(self._futures):
                future.cancel()
        if not self._futures:
            self._close_soon()

    def _close_soon(self) -> None:
        gevent.spawn(self._close)

    def _close(self) -> None:
        if self._futures or self._is_closing:
            return  # those that are left will come by here again
        self._is_closing = True
        engine, self._engine = self._engine, None
        if engine is not None:
            assert self._home is not None
            _close_engine(engine, self._home)
        self._closed.ring()


def _the_program() -> dict[str, Any]:
    data = spawn.get_preparation_data("greentask")
    program = {key: data[key] for key in _PROGRAM if key in data}
    program["authkey"] = bytes(program["authkey"])  # else it refuses to be pickled
    if _FILE is not None and not any(key.startswith("init_main") for key in program):
        program["init_main_from_path"] = _FILE
    if os.path.basename(program.get("init_main_from_path", "")) == "<stdin>":
        del program["init_main_from_path"]  # nobody can read that again
    return program


def _close_engine(engine: Processes, home: Home) -> None:
    try:
        engine.close()
    finally:
        home.let_go()


_pools: weakref.WeakSet[Pool] = weakref.WeakSet()


def _after_fork() -> None:
    for pool in list(_pools):
        pool._lock = allocate_rlock()  # another thread may have held it, and one that was not used yet is ours to use


os.register_at_fork(after_in_child=_after_fork)


def _at_exit() -> None:
    """What was submitted is run to its end, as with the standard library's executors."""
    for pool in list(_pools):
        pool.shutdown()


atexit.register(_at_exit)
