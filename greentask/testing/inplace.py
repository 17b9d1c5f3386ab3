"""What carries calls to no server: their tasks run in place, in the greenlet or thread that calls.

The lines are the wire's, in both directions, and what reads, binds, runs and writes is what a server has: what would
fail there for JSON or for a signature fails here.
"""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Generator
from contextvars import Context
from typing import Any, Literal

from ..client.carrier import Receiver
from ..errors import CallError, CancelRequest, Interrupt, UnknownTask, ended_by, from_wire, out_of_time, refusal
from ..hub.home import Home
from ..pool.frames import Body, whole
from ..runner import NOBODY
from ..runner.statistics import Statistics
from ..runner.watched import Watch, WatchedCall
from ..server.limits import Limits
from ..tasks.context import RunningTask
from ..tasks.execution import execute, execute_in_steps
from ..tasks.middleware import CallInfo, Hooks, Middleware
from ..tasks.task import Task
from ..wire.json import dumps, loads
from ..wire.message import Call, More, decode_request
from .callers_home import CallersHome
from .known import Known
from .limit import time_limit

__all__ = ["Answer", "InPlace", "KeepCause"]

_LIMITS = Limits()
_CAUSE = "greentask.testing.cause"  # in a call's state


class KeepCause(Middleware):
    """Keeps what a task raised itself, for the traceback of the error that its caller gets."""

    def task_failed(self, call: CallInfo, error: BaseException) -> None:
        call.state[_CAUSE] = error


_HERE = CallersHome(None)


class InPlace:
    """A ``Carrier``. ``start`` returns when the task has ended, or waits for its stream's reader."""

    def __init__(self, known: Known) -> None:
        self._known = known
        self._streams: dict[int, _Stream] = {}
        self._statistics = Statistics()

    @property
    def home(self) -> Home:
        return _HERE

    def check_may_wait(self) -> None:
        """Anybody may: nothing is waited for."""

    def start(self, id: int, data: bytes, receiver: Receiver, timeout: float | None, idempotent: bool = False) -> None:
        call = decode_request(data.rstrip(b"\n"))
        assert isinstance(call, Call)
        self.run(id, call, Answer(receiver), timeout)

    def run(self, id: int, call: Call, answer: Answer, timeout: float | None) -> None:
        """Run a call; of a durable one, an attempt."""
        began = time.monotonic()
        try:
            task, hooks = self._known.find(call.function)
        except UnknownTask as error:
            answer.refuse(error)
            return
        limits = [seconds for seconds in (timeout, task.timeout) if seconds is not None]
        deadline = began + min(limits) if limits else None
        state = answer.state
        watch = Watch(hooks, self._statistics, _LIMITS.max_unsent)
        watched = WatchedCall(watch, task, call, call.args, answer, NOBODY, None)
        report = (lambda progress: watched.progress(dumps(progress))) if call.progress else None
        running = RunningTask(call.id, task.name, deadline, report, call.attempt)
        where: Literal["process", "server"] = "process" if task.process else "server"
        info = CallInfo(task.name, call.id, None, None, where, task.group, began, state)
        try:
            watched.begin()
        except CallError as error:
            answer.refuse(error)
            watched.tell_refused(error)
            return
        if call.stream:
            stream = self._streams[id] = _Stream(task, call, running, hooks, info, watched)
            stream.go_on()
        else:
            _run(task, call, running, hooks, info, watched)

    def send(self, id: int, data: bytes) -> None:
        message = decode_request(data.rstrip(b"\n"))
        stream = self._streams.get(id)
        if stream is not None and isinstance(message, More):
            stream.credit += message.items
            stream.go_on()

    def forget(self, id: int) -> None:
        stream = self._streams.pop(id, None)
        if stream is not None:
            stream.cancel()


class Answer:
    """The ``Listener`` of a call: reads what a client would read, and tells its receiver."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self.state: dict[str, Any] = {}

    def done(self, result: Body) -> None:
        self._receiver.ended(loads(whole(result)), None)

    def failed(self, error: bytes) -> None:
        raised = from_wire(loads(error))
        cause = self.state.get(_CAUSE)
        if cause is not None:
            raised.__cause__ = cause
        self._receiver.ended(None, raised)

    def refuse(self, error: CallError) -> None:
        self.failed(dumps(refusal(error)))

    def progress(self, report: bytes) -> None:
        self._receiver.progress(loads(report))

    def item(self, item: bytes) -> None:
        self._receiver.item(loads(item))


def _run(
    task: Task[..., Any], call: Call, running: RunningTask, hooks: Hooks, info: CallInfo, watched: WatchedCall
) -> None:
    def run() -> tuple[bool, Body]:
        with time_limit(running.deadline):
            # A context of its own, as on a server: what the caller has in its own is not there.
            durable = call.attempt is not None
            return Context().run(execute, task, call.args, running, durable=durable, hooks=hooks, info=info)

    try:
        ended_well, body = _beside_event_loop(run) if _is_coroutine(task) else run()
    except Interrupt as interrupt:
        watched.refuse(ended_by(interrupt))
        return
    _raise_what_is_not_the_tasks(info)
    if _is_over(running):  # what came of it then, its caller doesn't hear
        watched.refuse(out_of_time(started=True))
    elif ended_well:
        watched.done(body)
    else:
        watched.failed(whole(body))


def _is_coroutine(task: Task[..., Any]) -> bool:
    return inspect.iscoroutinefunction(inspect.unwrap(task.function))


def _beside_event_loop(run: Callable[[], tuple[bool, Body]]) -> tuple[bool, Body]:
    """Run it here, or in a thread where this one runs an event loop already: coroutine tasks have one of their own."""
    if asyncio._get_running_loop() is None:
        return run()
    results: list[tuple[bool, Body]] = []
    errors: list[BaseException] = []

    def run_there() -> None:
        try:
            results.append(run())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run_there, name="greentask-in-place")
    thread.start()
    thread.join()
    if errors:
        raise errors[0]
    return results[0]


class _Stream:
    """A generator task, driven by its reader: it runs while there is credit, and in whoever gives that."""

    def __init__(
        self,
        task: Task[..., Any],
        call: Call,
        running: RunningTask,
        hooks: Hooks,
        info: CallInfo,
        watched: WatchedCall,
    ) -> None:
        self.credit = call.stream
        self._running = running
        self._info = info
        self._watched = watched
        self._context = Context()
        steps = execute_in_steps(task, call.args, running, hooks, info)
        self._steps: Generator[bytes, None, tuple[bool, Body]] | None = steps

    def go_on(self) -> None:
        while self.credit > 0 and self._steps is not None:
            steps = self._steps
            try:
                with time_limit(self._running.deadline):
                    item = self._context.run(next, steps)
            except StopIteration as end:
                self._steps = None
                _raise_what_is_not_the_tasks(self._info)
                ended_well, body = end.value
                self._end(self._watched.done if ended_well else self._watched.failed, body)
            except Interrupt as interrupt:
                self._end(self._watched.refuse, ended_by(interrupt))
            else:
                if _is_over(self._running):
                    self._context.run(steps.close)
                    self._end(self._watched.refuse, out_of_time(started=True))
                else:
                    self.credit -= 1
                    self._watched.item(item)

    def cancel(self) -> None:
        if self._steps is not None:
            interrupt = CancelRequest("cancelled")
            try:
                self._context.run(self._steps.throw, interrupt)
            except (CancelRequest, StopIteration):
                pass
            self._end(self._watched.refuse, ended_by(interrupt))

    def _end(self, tell: Callable[[Any], None], what: Any) -> None:
        self._steps = None
        tell(what)


def _is_over(running: RunningTask) -> bool:
    return running.deadline is not None and time.monotonic() >= running.deadline


def _raise_what_is_not_the_tasks(info: CallInfo) -> None:
    """Ctrl-C, a failure of pytest's, a timeout of gevent's: what hit a task here that it would not meet on a server."""
    cause = info.state.get(_CAUSE)
    if cause is not None and not isinstance(cause, (Exception, Interrupt, SystemExit, GeneratorExit)):
        raise cause
