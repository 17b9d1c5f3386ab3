"""A fixed number of task processes and the calls that wait for one: the pool's engine.

State has one owner: the hub in which ``Processes`` was made. Its methods are called there, and nothing in here blocks
but ``start`` and ``close``. What happens to a call when a process dies:

- waiting here: nothing, another process takes it;
- sent to the process: it fails (``WorkerLost``), for it may have run in part;
- answered, the answer in the socket: the answer counts, the socket is read to its end before the call is failed.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.hub import get_hub

from ..errors import CallError, Cancelled, GreentaskError, PoolBroken, WorkerLost, out_of_time
from .calls import Listener, PoolCall
from .child import CANCELLED, NUDGE, OUT_OF_TIME
from .frames import MOST_ITEMS, CallFrame, Flag
from .link import TemplateLink
from .process import Process
from .setup import Setup

__all__ = ["DEFAULT_GRACE", "PoolStats", "Processes", "default_size"]

#: Seconds between asking a running task to end and killing its process.
DEFAULT_GRACE = 2.0
# A process that dies before it is ready, or a template that dies, is started again after a pause that doubles.
_FIRST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
_FAILURES_ARE_A_DEFECT = 8  # in a row: then callers are told, and no longer wait
_EXIT_IS_TOLD_WITHIN = 0.5  # seconds between a socket's end and the template's word that the process is gone


def default_size() -> int:
    """How many processes a pool has unless told: one for each processor that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True, slots=True)
class PoolStats:
    """A look at the pool: processes, how many of them run a call, calls that wait, processes lost so far."""

    processes: int
    busy: int
    waiting: int
    lost: int


class Processes:
    """Task processes, all alike. Make it, ``start`` it, ``submit`` calls, ``close`` it."""

    def __init__(self, setup: Setup, size: int | None = None, *, grace: float = DEFAULT_GRACE) -> None:
        self.size = default_size() if size is None else size
        if self.size < 1:
            raise ValueError(f"a pool has at least one process, not {self.size}")
        self.grace = grace
        self._setup = setup
        self._loop: Any = get_hub().loop
        self._link: TemplateLink | None = None
        self._tokens = itertools.count(1)
        self._waiting: OrderedDict[int, PoolCall] = OrderedDict()
        self._processes: dict[int, Process] = {}  # slot -> process
        self._idle: list[Process] = []
        self._dispatching = False
        self._failures = 0  # starts in a row that came to nothing
        self._lost = 0
        self._whole: AsyncResult[None] = AsyncResult()  # every process was ready once, or why that can't be
        self._closed = False
        self._pid = os.getpid()
        _instances.add(self)

    # ---- Life

    def start(self) -> None:
        """Start the template and wait until every process is ready.

        Raises ``PoolBroken``, with the traceback, where the code to be imported fails.
        """
        self._link = TemplateLink(self._loop, self._setup, self)
        try:
            self._whole.get()
        except BaseException:
            self.close()
            raise

    def close(self, timeout: float = 5.0) -> None:
        """End all processes at once, whatever they run; calls that are left fail with ``Cancelled``."""
        if self._closed or self._pid != os.getpid():
            return
        self._closed = True
        waiting, self._waiting = self._waiting, OrderedDict()
        processes, self._processes = self._processes, {}
        for process in processes.values():
            if process.call is not None:
                process.call.fail(Cancelled("the pool was closed while the task ran", started=True))
            process.close()
        for call in waiting.values():
            call.fail(Cancelled("the pool was closed before the task started", started=False))
        self._idle.clear()
        if self._link is not None:
            self._link.end(timeout)
            self._link = None

    def stats(self) -> PoolStats:
        """How things are."""
        busy = sum(process.call is not None for process in self._processes.values())
        return PoolStats(len(self._processes), busy, len(self._waiting), self._lost)

    def pids(self) -> list[int]:
        """The process ids of the task processes."""
        return [process.pid for process in self._processes.values()]

    # ---- Calls

    def submit(
        self,
        name: str,
        payload: bytes,
        listener: Listener,
        *,
        deadline: float | None = None,
        limit: float | None = None,
        window: int = 0,
        progress: bool = False,
    ) -> PoolCall:
        """Run ``name`` with ``payload`` in the next free process; ``listener`` hears of it.

        ``deadline`` is on ``time.monotonic()``, ``limit`` in seconds from the task's start: whichever comes first.
        """
        if self._pid != os.getpid():
            raise GreentaskError("this process was forked from the pool's owner: make a pool of its own here")
        if self._closed:
            raise GreentaskError("the pool is closed")
        flags = Flag.PROGRESS if progress else Flag.NONE
        frame = CallFrame(name, payload, deadline, window, flags)
        call = PoolCall(next(self._tokens), frame, listener, deadline, limit)
        self._waiting[call.token] = call
        if self._idle:
            self._dispatch()
        if call.deadline is not None and call.timer is None and not call.finished:
            self._set_timer(call, call.deadline - time.monotonic(), self._out_of_time)
        return call

    def cancel(self, call: PoolCall) -> None:
        """End a call: at once if it waits, else by ``CancelRequest`` inside it and SIGKILL after the grace."""
        if not call.finished:
            self._stop(call, CANCELLED, lambda started: Cancelled("cancelled by its caller", started=started))

    def grant(self, call: PoolCall, items: int) -> None:
        """The reader of a stream takes so many more items."""
        process = call.process
        if process is not None and process.call is call:
            process.grant(items)
            self._nudge(process)
        elif call.token in self._waiting and call.frame.window:
            frame = call.frame
            window = min(frame.window + items, MOST_ITEMS)
            call.frame = CallFrame(frame.name, frame.payload, frame.deadline, window, frame.flags)

    def _dispatch(self) -> None:
        if self._dispatching:
            return  # a listener that is told of an end may submit the next call
        self._dispatching = True
        try:
            while self._waiting and self._idle:
                _, call = self._waiting.popitem(last=False)
                self._run(self._idle.pop(), call)
        finally:
            self._dispatching = False

    def _run(self, process: Process, call: PoolCall) -> None:
        now = time.monotonic()
        if call.deadline is not None and call.deadline <= now:
            self._idle.append(process)
            call.fail(out_of_time(started=False))
            return
        if call.limit is not None and (call.deadline is None or now + call.limit < call.deadline):
            call.deadline = now + call.limit
            frame = call.frame
            call.frame = CallFrame(frame.name, frame.payload, call.deadline, frame.window, frame.flags)
            self._set_timer(call, call.limit, self._out_of_time)
        process.run(call)

    # ---- Time and cancellation

    def _set_timer(self, call: PoolCall, seconds: float, then: Callable[[PoolCall], None]) -> None:
        call.stop_timer()
        call.timer = self._loop.timer(max(0.0, seconds))
        call.timer.start(then, call, update=True)

    def _out_of_time(self, call: PoolCall) -> None:
        self._stop(call, OUT_OF_TIME, lambda started: out_of_time(started=started))

    def _stop(self, call: PoolCall, reason: bytes, error: Callable[[bool], CallError]) -> None:
        if self._waiting.pop(call.token, None) is not None:
            call.fail(error(False))
            return
        process = call.process
        if process is not None and process.call is call and not call.stopping:
            call.stopping = True
            process.interrupt(reason)
            self._nudge(process)

            def kill(call: PoolCall) -> None:
                process.doomed = True
                call.fail(error(True))
                self._kill(process)

            self._set_timer(call, self.grace, kill)

    def _nudge(self, process: Process) -> None:
        # The frame is written at the end of this turn of the loop, and the signal must come after it.
        self._loop.run_callback(self._nudge_now, process)

    def _nudge_now(self, process: Process) -> None:
        if process.is_behind:  # the frame is still here, behind a large call
            gevent.spawn(self._nudge_when_sent, process)
        elif self._link is not None:
            self._link.signal(process.pid, NUDGE)

    def _nudge_when_sent(self, process: Process) -> None:
        process.wait_until_sent()
        if self._link is not None:
            self._link.signal(process.pid, NUDGE)

    def _kill(self, process: Process) -> None:
        if self._link is not None:
            self._link.signal(process.pid, signal.SIGKILL, group=True)

    # ---- What processes say

    def _process_idle(self, process: Process) -> None:
        if process.doomed:
            return
        self._failures = 0
        self._idle.append(process)
        if not self._whole.ready() and sum(p.ready for p in self._processes.values()) == self.size:
            self._whole.set(None)
        if self._waiting:
            self._dispatch()

    def _process_lost(self, process: Process) -> None:
        """Its socket ended. The template says with which status it exited, unless the task only closed the socket."""
        self._take_away(process)
        timer = self._loop.timer(_EXIT_IS_TOLD_WITHIN)

        def kill() -> None:
            timer.close()
            if self._processes.get(process.slot) is process:
                self._kill(process)

        timer.start(kill)

    def _take_away(self, process: Process) -> None:
        with contextlib.suppress(ValueError):
            self._idle.remove(process)

    # ---- What the template says

    def template_ready(self) -> None:
        for slot in range(self.size):
            if self._link is not None:
                self._link.fork(slot)

    def template_failed(self, trace: str) -> None:
        self._break(f"the task processes can't be started, for what they import fails:\n{trace.rstrip()}")

    def template_gone(self) -> None:
        """Every process is gone with it. Start again, from the beginning."""
        if self._link is not None:
            self._link.close()
            self._link = None
        for process in list(self._processes.values()):
            process.read_rest()
            self._bury(process, None)
        if not self._whole.ready():
            self._break("the template of the task processes died while it started")
        elif not self._closed and self._whole.successful():
            self._again(self._restart)

    def _break(self, why: str) -> None:
        """Nothing can run for now: tell whoever waits."""
        if not self._whole.ready():
            self._whole.set_exception(PoolBroken(why))
        waiting, self._waiting = self._waiting, OrderedDict()
        for call in waiting.values():
            call.fail(WorkerLost(why, started=False))

    def _restart(self) -> None:
        if self._link is None:
            try:
                self._link = TemplateLink(self._loop, self._setup, self)
            except OSError:  # out of descriptors, processes or memory
                self._again(self._restart)

    def process_started(self, slot: int, pid: int, fd: int) -> None:
        if self._closed or slot in self._processes:
            os.close(fd)  # it sees the end, and exits
            return
        self._processes[slot] = Process(self._loop, slot, pid, fd, self._process_idle, self._process_lost)

    def process_exited(self, slot: int, pid: int, status: int) -> None:
        if self._closed:
            return
        process = self._processes.get(slot)
        if process is not None and process.pid == pid:
            process.read_rest()
            self._bury(process, status)
            if process.ready:
                self._replace(slot)
                return
        self._again(self._replace, slot)

    def _bury(self, process: Process, status: int | None) -> None:
        self._lost += 1
        self._take_away(process)
        self._processes.pop(process.slot, None)
        call, process.call = process.call, None
        process.close()
        if call is not None:
            call.fail(WorkerLost(f"the process that ran {call.frame.name} {_say(status)}"))

    def _replace(self, slot: int) -> None:
        if self._link is not None and slot not in self._processes:
            self._link.fork(slot)

    def _again(self, what: Callable[..., None], *args: Any) -> None:
        """Do it after a pause that doubles with every failure in a row."""
        timer = self._loop.timer(min(_FIRST_PAUSE * 2**self._failures, _LONGEST_PAUSE))
        self._failures += 1
        if self._failures >= _FAILURES_ARE_A_DEFECT:
            self._failures = _FAILURES_ARE_A_DEFECT
            self._break("the task processes can't be started: they die at once (see what they wrote to stderr)")

        def act() -> None:
            timer.close()
            if not self._closed:
                what(*args)

        timer.start(act)

    # ---- Fork

    def abandon(self) -> None:
        """In a forked child: drop the inherited sockets, so that the processes see the end of their real owner."""
        if self._link is not None:
            self._link.abandon()
        for process in self._processes.values():
            process.abandon()


def _say(status: int | None) -> str:
    if status is None:
        return "died with the whole pool"
    if status < 0:
        try:
            return f"was killed by signal {-status} ({signal.Signals(-status).name})"
        except ValueError:
            return f"was killed by signal {-status}"
    return f"exited with code {status}"


_instances: weakref.WeakSet[Processes] = weakref.WeakSet()


def _abandon_all() -> None:
    for processes in list(_instances):
        processes.abandon()


os.register_at_fork(after_in_child=_abandon_all)
