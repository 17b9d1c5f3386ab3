"""Task processes and the calls that wait for one: the pool's engine.

State has one owner: the hub in which ``Processes`` was made. Its methods are called there, and nothing in here blocks
but ``start`` and ``close``. What happens to a call when a process dies:

- waiting here: nothing, another process takes it;
- sent to the process, behind another one: the same, for it has not been started;
- sent to the process, the first that is unanswered: it fails (``WorkerLost``), for it may have run in part;
- answered, the answer in the socket: the answer counts, the socket is read to its end before the call is failed.
"""

from __future__ import annotations

import itertools
import os
import time
import weakref
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from typing import Any

from gevent.hub import get_hub

from ..errors import CallError, Cancelled, GreentaskError, WorkerLost, out_of_time
from ..hub.forks import current_pid
from ..hub.home import is_main_thread
from ..hub.mending import MENDED_EVERY, Mending
from .ahead import Estimates, room_for
from .calls import Listener, PoolCall
from .child import CANCELLED, OUT_OF_TIME
from .cpus import processors
from .frames import MOST_ITEMS, PROGRESS, Body
from .looks import Looks
from .mending import mend
from .population import Population
from .process import Process
from .seen import PoolStats, described, look_at
from .setup import Setup

__all__ = ["DEFAULT_GRACE", "PoolStats", "Processes"]

#: Seconds between asking a running task to end and killing its process.
DEFAULT_GRACE = 2.0
_SILENCE = 0.005  # seconds without an answer, though it is due, after which the calls behind the first are asked back
_AGAIN = 0.05  # seconds after which a call that was told to end, and has not, is told once more


class Processes:
    """Task processes, all alike. Make it, ``start`` (or ``begin``) it, ``submit`` calls, ``close`` it.

    setup
        What the processes run.
    size
        How many there are.
    grace
        Seconds between asking a task to end and killing its process.
    max_tasks
        A process is replaced after so many calls.
    max_memory
        Bytes of resident memory. A process that has more is replaced; while it runs a call, it is killed.
    """

    def __init__(
        self,
        setup: Setup,
        size: int | None = None,
        *,
        grace: float = DEFAULT_GRACE,
        max_tasks: int | None = None,
        max_memory: int | None = None,
    ) -> None:
        self.size = processors() if size is None else size
        if self.size < 1:
            raise ValueError(f"a pool has at least one process, not {self.size}")
        self.grace = grace
        self.max_tasks = max_tasks
        self._loop: Any = get_hub().loop
        self._population = Population(self._loop, setup, self.size, self, max_memory)
        self._tokens = itertools.count(1)
        self._waiting: OrderedDict[int, PoolCall] = OrderedDict()
        self._held: dict[int, PoolCall] = {}  # those that are not to be sent for now
        self._idle: OrderedDict[int, Process] = OrderedDict()  # slot -> process without a call
        self._estimates = Estimates()
        self._dispatching = False
        self._looks = Looks(self._loop)  # for processes that have gone silent
        self._mending = Mending(self._loop if is_main_thread() else None, partial(mend, self))
        self._closed = False
        self._pid = current_pid()
        _instances.add(self)

    # ---- Life

    def begin(self) -> None:
        """Start the processes. Calls may be submitted at once."""
        self._population.begin()

    def start(self) -> None:
        """Begin, and wait until every process is ready.

        Raises ``PoolBroken``, with the traceback, where the code to be imported fails.
        """
        try:
            self.begin()
            self._population.whole.get()
        except BaseException:
            self.close()
            raise

    def close(self, timeout: float = 5.0) -> None:
        """End all processes at once, whatever they run; calls that are left fail with ``Cancelled``."""
        if self._closed or self._pid != current_pid():
            return
        self._closed = True
        self._looks.take(self._look_for_silence, 0.0)
        self._mending.end()
        waiting = self._take_waiting()
        for process in self._population.members.values():
            for number, call in enumerate(process.calls):
                call.fail(_closed(started=number == 0))
        for call in waiting:
            call.fail(_closed(started=False))
        self._idle.clear()
        self._population.close(timeout)

    def stats(self) -> PoolStats:
        """How things are."""
        processes = self._population.members.values()
        return PoolStats(
            processes=sum(process.ready for process in processes),
            busy=sum(bool(process.calls) for process in processes),
            waiting=len(self._waiting) + len(self._held),
            sent=sum(len(process.calls) for process in processes),
            lost=self._population.lost,
            recycled=self._population.recycled,
        )

    def describe(self) -> list[dict[str, Any]]:
        """Each process: its id, what it does (``starting``, ``idle``, ``busy``, ``stopped``, ``ending``), the task that
        it runs and for how many seconds, and its resident memory in bytes.
        """
        now = time.monotonic()
        return [described(process, now) for process in self._population.members.values()]

    def look(self, within: float = 1.0) -> dict[int, str | None]:
        """What each process is doing, as text, by its process id; None for one that doesn't say so in time.

        Waits for up to ``within`` seconds. One that is stopped, or busy in C, is silent.
        """
        ready = [process for process in self._population.members.values() if process.ready]
        return look_at(ready, self._population.nudge, within)

    def pids(self) -> list[int]:
        """The process ids of the task processes."""
        return [process.pid for process in self._population.members.values()]

    def resize(self, size: int) -> None:
        """Have more or fewer processes. A busy one that is too many ends after its call."""
        if size < 1:
            raise ValueError(f"a pool has at least one process, not {size}")
        self.size = size
        self._population.resize(size)

    def recycle(self) -> None:
        """Replace every process, each after the call that it runs."""
        self._population.recycle()

    # ---- Calls

    def submit(
        self,
        name: str,
        payload: Body,
        listener: Listener,
        *,
        deadline: float | None = None,
        limit: float | None = None,
        window: int = 0,
        progress: bool = False,
        on_sent: Callable[[], bool | None] | None = None,
    ) -> PoolCall:
        """Run ``name`` with ``payload`` in the next free process; ``listener`` hears of it.

        ``deadline`` is on ``time.monotonic()``, ``limit`` in seconds from the task's start: whichever comes first.
        ``on_sent`` is asked when a process is to get it, and drops it with False: then the listener hears nothing.
        With None it is held, until ``resume``.
        """
        if self._pid != current_pid():
            raise GreentaskError("this process was forked from the pool's owner: make a pool of its own here")
        if self._closed:
            raise GreentaskError("the pool is closed")
        flags = PROGRESS if progress else 0
        call = PoolCall(next(self._tokens), name, payload, listener, deadline, limit, window, flags)
        call.on_sent = on_sent
        if self._population.broken is not None:
            call.fail(WorkerLost(self._population.broken, started=False))
            return call
        self._mending.begin()
        self._waiting[call.token] = call
        if self._idle:
            self._dispatch()
        if call.deadline is not None and call.timer is None and not call.finished:
            self._set_timer(call, call.deadline - time.monotonic(), self._out_of_time)
        return call

    def cancel(self, call: PoolCall) -> None:
        """End a call: at once if it waits, else by ``CancelRequest`` inside it and SIGKILL after the grace."""
        if not call.finished:
            self._stop(call, CANCELLED)

    def withdraw(self, call: PoolCall) -> bool:
        """Take back a call that was not sent to a process; its listener hears nothing. False where it was."""
        if not self._take(call):
            return False
        call.stop_timer()
        call.finished = True
        return True

    def resume(self, call: PoolCall) -> None:
        """Let a call wait for a process again that was held."""
        if self._held.pop(call.token, None) is not None:
            self._mending.begin()
            self._waiting[call.token] = call
            if self._idle:
                self._dispatch()

    def is_waiting(self, call: PoolCall) -> bool:
        """Whether it has not been sent to a process, or was handed back by one."""
        return call.token in self._waiting or call.token in self._held

    def grant(self, call: PoolCall, items: int) -> None:
        """The reader of a stream takes so many more items."""
        if call.window:  # with which it begins, if it is still to be sent, or is sent once more
            call.window = min(call.window + items, MOST_ITEMS)
        if call.process is not None:
            call.process.grant(call, items)
            self._population.nudge(call.process)

    # ---- Handing calls to processes

    def _dispatch(self) -> None:
        if self._dispatching:
            return  # a listener that is told of an end may submit the next call
        self._dispatching = True
        try:
            while self._waiting and self._idle:
                call = next(iter(self._waiting.values()))
                if self._is_over(call):
                    self._waiting.pop(call.token, None)
                else:
                    self._send(call, self._estimates.of(call.name), next(reversed(self._idle.values())))
        finally:
            self._dispatching = False

    def _send_ahead(self, process: Process) -> None:
        """Give a process what it can take besides what it has."""
        while self._waiting:
            call = next(iter(self._waiting.values()))
            estimate = self._estimates.of(call.name)
            if not room_for(call, estimate, process) or self._is_used_up(process):
                break
            if self._is_over(call):
                self._waiting.pop(call.token, None)
            else:
                self._send(call, estimate, process)
        if len(process.calls) > 1 and not self._looks.are_taken:
            self._looks.take(self._look_for_silence, _SILENCE)

    def _is_over(self, call: PoolCall) -> bool:
        """Whether it is not to be sent: it is too late, or nobody wants it, any more or for now."""
        if call.finished:
            return True
        if call.deadline is not None and call.deadline <= time.monotonic():
            call.fail(out_of_time(started=False))
            return True
        if call.on_sent is not None:
            wanted = call.on_sent()
            if wanted is None:
                self._held[call.token] = call
                return True
            call.on_sent = None  # it may be handed back, and sent again
            if not wanted:
                call.stop_timer()
                call.finished = True
                return True
        return False

    def _take(self, call: PoolCall) -> bool:
        """Have it wait no more; False where it doesn't."""
        return self._waiting.pop(call.token, None) is not None or self._held.pop(call.token, None) is not None

    def _take_waiting(self) -> list[PoolCall]:
        calls = [*self._waiting.values(), *self._held.values()]
        self._waiting, self._held = OrderedDict(), {}
        return calls

    def _send(self, call: PoolCall, estimate: float, process: Process) -> None:
        """Give it to a process. It waits until that has it, so that a Ctrl-C in between loses nothing."""
        try:
            process.send(call, estimate)
            del self._waiting[call.token]
            if len(process.calls) == 1:
                self._idle.pop(process.slot, None)
                self._begins(call)
            most = self.max_tasks
            if most is not None and process.done + len(process.calls) >= most - most // 10:
                self._population.replace(process)  # its successor is there by the time that it has had its last
        except BaseException:  # nobody knows whether it has left
            if call in process.calls:
                self._waiting.pop(call.token, None)
                self._population.kill(process, "a Ctrl-C came as a call was sent to it")
            raise

    def _is_used_up(self, process: Process) -> bool:
        return self.max_tasks is not None and process.done + len(process.calls) >= self.max_tasks

    def _begins(self, call: PoolCall) -> None:
        """A call's turn has come: its limit counts from now on."""
        if call.begun or call.finished:
            return
        call.begun = True
        if call.stopped_by is not None and call.process is not None:
            self._interrupt(call, call.process)
        elif call.limit is not None:
            until = time.monotonic() + call.limit
            if call.deadline is None or until < call.deadline:
                call.deadline = until
                self._set_timer(call, call.limit, self._out_of_time)

    def _look_for_silence(self) -> None:
        """Ask back what waits behind calls that turn out to be long, or could run at once elsewhere."""
        now, longest = time.monotonic(), -1.0
        for process in self._population.members.values():
            if len(process.calls) > 1:
                # Where nobody is idle it would come back, and the process had to wait for it after its call.
                expected = 0.0 if self._idle else process.calls[0].estimate
                longest = max(longest, expected)
                if not process.asked_back and now - process.heard >= expected + _SILENCE:
                    process.ask_back()
                    self._population.nudge(process)
        self._looks.take(self._look_for_silence, longest + _SILENCE if longest >= 0 else 0.0)

    # ---- Time and cancellation

    def _set_timer(self, call: PoolCall, seconds: float, then: Callable[[PoolCall], None]) -> None:
        call.stop_timer()
        call.timer = self._loop.timer(max(0.0, seconds), MENDED_EVERY)
        call.timer.start(then, call, update=True)

    def _out_of_time(self, call: PoolCall) -> None:
        self._stop(call, OUT_OF_TIME)

    def _stop(self, call: PoolCall, reason: bytes) -> None:
        if self._take(call):
            call.fail(_ended(reason, started=False))
        elif call.process is not None and call.stopped_by is None:
            call.stopped_by = reason
            self._interrupt(call, call.process)

    def _interrupt(self, call: PoolCall, process: Process) -> None:
        """Tell a call to end. The first of its process is killed where it doesn't; the others have not begun."""
        process.interrupt(call, call.stopped_by or CANCELLED)
        self._population.nudge(process)
        is_first = process.calls[0] is call

        def nudge_again(call: PoolCall) -> None:
            # A signal that comes just before a system call is heard of when that is over: in `sleep(60)`, too late.
            self._population.nudge(process)
            self._set_timer(call, self.grace - _AGAIN, give_up)

        def give_up(call: PoolCall) -> None:
            if call.process is not process:
                return
            started = process.calls[0] is call
            if started and not is_first:
                self._interrupt(call, process)  # its turn came meanwhile: it gets a grace of its own
                return
            if started:
                self._population.kill(process, "it did not end when it was told to")
            call.fail(_ended(call.stopped_by or CANCELLED, started=started))

        self._set_timer(call, min(_AGAIN, self.grace), nudge_again)

    # ---- What processes say

    def process_ready(self, process: Process) -> None:
        if self._population.process_ready(process):
            self._idle[process.slot] = process
            if self._waiting:
                self._dispatch()

    def process_unfit(self, process: Process, trace: str) -> None:
        self._population.process_unfit(trace)

    def process_lost(self, process: Process) -> None:
        self._population.process_lost(process)

    def process_answered(self, process: Process, call: PoolCall, seconds: float) -> None:
        self._estimates.learn(call.name, seconds)

    def process_has_room(self, process: Process) -> None:
        self._population.process_works(process)
        if self.max_tasks is not None and process.done >= self.max_tasks and not process.retiring:
            self._population.retire(process)
            self._population.fill_up()
        if process.retiring:
            if process.calls:
                self._begins(process.calls[0])
            elif process.doom is None:
                self._population.end(process)
            return
        if self._waiting:
            self._send_ahead(process)
        if process.calls:
            self._begins(process.calls[0])
        else:
            self._idle[process.slot] = process

    def calls_handed_back(self, process: Process, calls: list[PoolCall]) -> None:
        for call in reversed(calls):
            if call.stopped_by is not None:
                call.fail(_ended(call.stopped_by, started=False))
            elif not call.finished:
                self._waiting[call.token] = call
                self._waiting.move_to_end(call.token, last=False)
        process.forget(calls)  # not before: a Ctrl-C may come in between
        self._dispatch()

    def call_not_started(self, call: PoolCall, reason: bytes) -> None:
        call.fail(_ended(reason, started=False))

    def process_missed(self, process: Process) -> None:
        for call in process.give_up():
            call.fail(WorkerLost(f"a Ctrl-C came as the process that had {call.name or 'it'} was heard"))
        process.calls.clear()
        self._population.kill(process, "a Ctrl-C came as it was heard")

    # ---- What the population says

    def process_leaves(self, process: Process) -> None:
        self._idle.pop(process.slot, None)

    def process_died(self, process: Process, how: str) -> None:
        if process.calls:
            first, *ahead = process.calls
            first.fail(WorkerLost(f"the process that ran {first.name or 'it'} {how}"))
            process.forget([first])
            self.calls_handed_back(process, ahead)

    def nothing_can_run(self, why: str) -> None:
        for call in self._take_waiting():
            call.fail(WorkerLost(why, started=False))

    # ---- Fork

    def abandon(self) -> None:
        """In a forked child: drop the inherited sockets, so that the processes see the end of their real owner.

        The calls are the parent's, and so it is for the parent to say when they are out of time.
        """
        self._looks.abandon()
        self._mending.end()
        for call in (*self._waiting.values(), *self._held.values()):
            call.stop_timer()
        for process in self._population.members.values():
            for call in process.calls:
                call.stop_timer()
        self._population.abandon()


def _closed(*, started: bool) -> CallError:
    return Cancelled(
        f"the pool was closed {'while the task ran' if started else 'before the task started'}", started=started
    )


def _ended(reason: bytes, *, started: bool) -> CallError:
    if reason == OUT_OF_TIME:
        return out_of_time(started=started)
    return Cancelled("cancelled by its caller", started=started)


_instances: weakref.WeakSet[Processes] = weakref.WeakSet()


def _abandon_all() -> None:
    for processes in list(_instances):
        processes.abandon()


os.register_at_fork(after_in_child=_abandon_all)
