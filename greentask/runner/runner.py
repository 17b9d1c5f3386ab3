"""Where a call runs, and until when."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ..errors import CallError, UnknownTask
from ..hub.spawner import Spawner
from ..pool.calls import Listener, PoolCall
from ..pool.frames import Body
from ..pool.processes import Processes
from ..tasks.middleware import Hooks
from ..tasks.registry import Tasks
from ..tasks.task import Task
from ..wire.json import dumps
from ..wire.message import Args, Call
from .greenlets import GreenletCall
from .statistics import Statistics
from .turns import Leaving, Running, TurnCall, Turns
from .watched import WatchedCall

__all__ = ["Runner", "Running"]


class Runner:
    """Runs the calls of one registry. Belongs to the hub that it was made in.

    ``groups`` are the task processes, by the names of their groups. ``max_running`` says of tasks how many of their
    calls run at once, in place of what they say themselves. ``hooks`` are told of all calls, and ``check_result`` of
    their results, which it may refuse (``InvalidResult``). ``statistics`` count them.
    A listener hears of the end of a call exactly once: ``done`` or ``failed``.
    """

    def __init__(
        self,
        tasks: Tasks,
        groups: Mapping[str, Processes] | None = None,
        *,
        debug: bool = False,
        max_running: Mapping[str, int] | None = None,
        hooks: Hooks | None = None,
        check_result: Callable[[Body], None] | None = None,
        statistics: Statistics | None = None,
    ) -> None:
        self.statistics = statistics
        self.tasks = tasks
        self.groups: Mapping[str, Processes] = groups or {}
        self.debug = debug
        self.max_running = dict(max_running or {})
        self.hooks = hooks or Hooks()
        self.check_result = check_result
        self.turns: dict[str, Turns] = {}  # of tasks that were called
        self._spawner = Spawner()

    def is_carried(self, function: str) -> bool:
        """Whether its calls go to a process as their lines came, so that nobody needs their arguments here."""
        return function in self.tasks and bool(self.tasks.get(function).process)

    def start(
        self, call: Call, line: bytes, listener: Listener, deadline: float | None = None, peer: str | None = None
    ) -> Running:
        """Run a call that arrived as ``line``, which a task process gets as it is.

        ``deadline`` is its caller's, on ``time.monotonic()``; ``peer`` is who called. Raises ``UnknownTask``, and
        whatever ``CallError`` refuses it.
        """
        return self._start(self.tasks.get(call.function), call, call.args, line, listener, deadline, peer, None)

    def start_item(
        self,
        call: Call,
        args: Args | None,
        listener: Listener,
        deadline: float | None = None,
        peer: str | None = None,
        item: int | None = None,
    ) -> Running:
        """Run one item of a batch, as ``start`` does."""
        task = self.tasks.get(call.function)
        line = dumps({"id": call.id, "args": args}) if task.process else b""
        return self._start(task, call, args, line, listener, deadline, peer, item)

    def refuse(self, call: Call, listener: Listener, error: CallError, peer: str | None = None) -> None:
        """Refuse a call without a look at it, for a reason that its caller knows; the hooks hear of it all the same."""
        if call.function in self.tasks:
            task = self.tasks.get(call.function)
            watched = WatchedCall(self.hooks, task, call, None, peer, listener, None, self.statistics, call.args)
            try:
                watched.begin()
            except CallError:
                pass  # refused it is, for the first reason
            watched.refuse(error)
        else:
            listener.refuse(error)

    def _start(
        self,
        task: Task[..., Any],
        call: Call,
        args: Args | None,
        line: bytes,
        listener: Listener,
        deadline: float | None,
        peer: str | None,
        item: int | None,
    ) -> Running:
        if not (self.hooks.watch_calls or self.statistics):
            return self._start_in_turn(task, call, args, line, listener, deadline, None)
        watched = WatchedCall(self.hooks, task, call, item, peer, listener, self.check_result, self.statistics, args)
        try:
            watched.begin()
            return self._start_in_turn(task, call, args, line, watched, deadline, watched)
        except CallError as error:
            watched.tell_refused(error)
            raise

    def _start_in_turn(
        self,
        task: Task[..., Any],
        call: Call,
        args: Args | None,
        line: bytes,
        listener: Listener,
        deadline: float | None,
        watched: WatchedCall | None,
    ) -> Running:
        most = self.max_running.get(task.name, task.max_running) if self.max_running else task.max_running
        if most is None:
            return self._run(task, call, args, line, listener, deadline, watched, None)

        def start(leave: Callable[[], None]) -> Running:
            return self._run(task, call, args, line, listener, deadline, watched, leave)

        turns = self.turns.get(task.name)
        if turns is None:
            turns = self.turns[task.name] = Turns(task.name, most, task.max_waiting)
        return TurnCall(turns, start, listener, deadline)

    def _run(
        self,
        task: Task[..., Any],
        call: Call,
        args: Args | None,
        line: bytes,
        listener: Listener,
        deadline: float | None,
        watched: WatchedCall | None,
        ended: Callable[[], None] | None,
    ) -> Running:
        """Run it now; ``ended`` is called when it does so no more."""
        if not task.process:
            if watched is None or not self.hooks.watch_tasks:
                return GreenletCall(task, args, call, listener, deadline, self._spawner, debug=self.debug, ended=ended)
            return GreenletCall(
                task,
                args,
                call,
                listener,
                deadline,
                self._spawner,
                debug=self.debug,
                ended=ended,
                hooks=self.hooks,
                info=watched.info,
            )
        processes = self.groups.get(task.group or "")
        if processes is None:
            raise UnknownTask(f"{task.name} runs in task processes, and this server has none for it ({task.group})")
        started = processes.submit(
            task.name,
            line,
            listener if ended is None else Leaving(listener, ended),
            deadline=deadline,
            limit=task.timeout,
            window=call.stream,
            progress=call.progress,
        )
        return ProcessCall(processes, started)


class ProcessCall:
    """A call in the pool."""

    __slots__ = ("_call", "_processes")

    def __init__(self, processes: Processes, call: PoolCall) -> None:
        self._processes = processes
        self._call = call

    def cancel(self) -> None:
        self._processes.cancel(self._call)

    def grant(self, items: int) -> None:
        self._processes.grant(self._call, items)
