"""A call that runs in a greenlet of this process."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from typing import Any, TypeVar

import gevent
from gevent import getcurrent
from gevent.event import Event
from gevent.hub import get_hub

from ..errors import CallError, Cancelled, CancelRequest, Interrupt, TimeLimit, ended_by, out_of_time, refusal
from ..hub.spawner import Spawner
from ..pool.calls import Listener
from ..pool.frames import Body, whole
from ..tasks.context import RunningTask
from ..tasks.execution import execute
from ..tasks.middleware import Hooks
from ..wire.json import dumps
from .watched import WatchedCall
from .writers import Writers

__all__ = ["GreenletCall"]

T = TypeVar("T")

_IN_A_ROW = 32  # items of a stream, before others have their turn


class GreenletCall:
    """One call and its greenlet.

    At its deadline, or when it is cancelled, the caller is answered at once, whatever the task then makes of the
    ``Interrupt`` that is raised in it: a greenlet can't be forced to end.
    """

    __slots__ = (
        "_began",
        "_call",
        "_callers",
        "_credit",
        "_debug",
        "_emitted",
        "_ended",
        "_granted",
        "_greenlet",
        "_hooks",
        "_interrupt",
        "_listener",
        "_timer",
        "_writers",
        "deadline",
    )

    def __init__(
        self,
        call: WatchedCall,
        deadline: float | None,
        spawner: Spawner,
        debug: bool,
        ended: Callable[[], None] | None,
        hooks: Hooks | None,
        writers: Writers,
    ) -> None:
        self._call = call
        self._writers = writers
        self._listener: Listener | None = call
        self._debug = debug
        self._hooks = hooks
        self._credit = call.call.stream
        self._emitted = 0
        self._granted: Event | None = None
        self._timer: Any = None
        self._callers = self.deadline = deadline
        if call.task.timeout is not None:
            self._limit(call.task.timeout)
        elif deadline is not None:
            self._start_timer(deadline)
        self._began = False
        self._greenlet: Any = None  # while it runs
        self._interrupt: Interrupt | None = None  # that is to be raised in it
        self._ended = ended
        spawner.spawn(self._run)

    def cancel(self) -> None:
        self._stop(Cancelled("cancelled by its caller", started=self._began), CancelRequest("cancelled"))

    def grant(self, items: int) -> None:
        self._credit += items
        if self._granted is not None:
            self._granted.set()

    def _run(self) -> None:
        try:
            if self._writers.of:
                self._writers.wait(self._call.task.name)
            reader = self._call.reader
            if reader.lags and reader.is_behind and self._ended is None:  # whoever has a turn uses it
                self._hold()
                return
            if self.deadline is not None and time.monotonic() >= self.deadline:
                self._out_of_time()
                return
            if self._listener is None:  # it was stopped before
                return
            self._began = True
            self._greenlet = getcurrent()
            call, hooks = self._call, self._hooks
            body: Body
            try:
                # By position: names would cost as much again as the call.
                ended_well, body = execute(
                    call.task,
                    call.args,
                    self._running,
                    self._emit if call.call.stream else None,
                    self._debug,
                    call.call.attempt is not None,  # durable
                    hooks,
                    None if hooks is None else call.info,
                    self._write,
                )
            except Interrupt as interrupt:
                # Where _stop raised it, the caller has its answer; the task may also have raised it itself.
                ended_well, body = False, dumps(refusal(ended_by(interrupt)))
            finally:
                self._greenlet = None
            listener = self._listener if self._timer is None else self._take_listener()
            self._listener = None
            if listener is not None and ended_well:
                listener.done(body)
            elif listener is not None:
                listener.failed(whole(body))
        finally:
            if self._ended is not None:  # that is after its answer, where it was stopped and still cleans up
                self._ended()

    def _hold(self) -> None:
        """Begin when the reader has caught up. Until then it may be cancelled, or its caller's patience may end."""
        if self._listener is None:  # it was stopped before
            return
        if self._call.task.timeout is not None:
            self._stop_timer()
            self.deadline = self._callers
            if self.deadline is not None:
                self._start_timer(self.deadline)
        self._call.reader.hold(self._run_again)

    def _run_again(self) -> None:
        if self._listener is not None:
            seconds = self._call.task.timeout
            if seconds is not None:
                self._stop_timer()
                self._limit(seconds)
            gevent.spawn(self._run)

    def _limit(self, seconds: float) -> None:
        """The task's own limit counts from now on."""
        limit = time.monotonic() + seconds
        self.deadline = limit if self._callers is None else min(self._callers, limit)
        self._start_timer(self.deadline)

    def _start_timer(self, deadline: float) -> None:
        self._timer = get_hub().loop.timer(max(0.0, deadline - time.monotonic()))
        self._timer.start(self._out_of_time, update=True)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None

    def _write(self, steps: Generator[None, None, T]) -> T:
        return self._writers.run(self._call.task.name, steps)

    def _running(self) -> RunningTask:
        call = self._call.call
        report = self._report if call.progress else None
        return RunningTask(call.id, call.function, self.deadline, report, call.attempt)

    def _report(self, progress: dict[str, Any]) -> None:
        if self._listener is not None:
            self._listener.progress(dumps(progress))
            self._heed()

    def _emit(self, item: bytes) -> None:
        if self._listener is None:
            raise CancelRequest("nobody reads")  # it swallowed the first one, and would wait for a grant for ever
        while self._credit <= 0:
            if self._granted is None:
                self._granted = Event()
            self._granted.clear()
            self._granted.wait()
        self._credit -= 1
        self._emitted += 1
        if self._emitted % _IN_A_ROW == 0:
            gevent.sleep(1e-9)  # whoever reads may have granted a million, and the generator never waits: a whole turn
        if self._listener is not None:
            self._listener.item(item)
            self._heed()

    def _heed(self) -> None:
        """Raise what has stopped us while we told of something: that there is nobody to be told."""
        interrupt, self._interrupt = self._interrupt, None
        if interrupt is not None:
            raise interrupt

    def _out_of_time(self) -> None:
        self._stop(out_of_time(started=self._began), TimeLimit("out of time"))

    def _stop(self, answer: CallError, interrupt: Interrupt) -> None:
        listener = self._take_listener()
        if listener is not None:
            if self._greenlet is getcurrent():  # not kill, which might hit what this greenlet does next
                self._interrupt = interrupt
            elif self._greenlet is not None:
                self._greenlet.kill(interrupt, block=False)
            listener.refuse(answer)

    def _take_listener(self) -> Listener | None:
        """Whoever takes it answers; there is no second answer."""
        listener, self._listener = self._listener, None
        if self._timer is not None:
            self._stop_timer()
        return listener
