"""Where a call runs, and until when."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import CallError, UnknownTask
from ..hub.spawner import Spawner
from ..pool.calls import Listener, PoolCall
from ..pool.processes import Processes
from ..tasks.middleware import Hooks
from ..tasks.registry import Tasks
from ..tasks.task import Task
from ..wire.json import dumps
from ..wire.message import Args, Call
from .greenlets import GreenletCall
from .readers import NOBODY, Reader
from .statistics import Statistics
from .turns import Leaving, Running, TurnCall, Turns
from .watched import Watch, WatchedCall
from .writers import Writers

__all__ = ["Runner", "Running"]


class Runner:
    """Runs the calls of one registry. Belongs to the hub that it was made in.

    ``groups`` are the task processes, by the names of their groups. ``max_running`` says of tasks how many of their
    calls run at once, in place of what they say themselves. ``hooks`` are told of all calls. A result of more than
    ``max_result`` bytes is refused (``InvalidResult``). ``statistics`` (its own, unless given) count them.
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
        max_result: float = math.inf,
        statistics: Statistics | None = None,
    ) -> None:
        self.statistics = statistics or Statistics()
        self.tasks = tasks
        self.groups: Mapping[str, Processes] = groups or {}
        self.debug = debug
        self.max_running = dict(max_running or {})
        self.hooks = hooks or Hooks()
        self._task_hooks = self.hooks if self.hooks.watch_tasks else None  # of greenlets
        self.turns: dict[str, Turns] = {}  # of tasks that were called
        self._spawner = Spawner()
        self._writers = Writers()
        self._watch = Watch(self.hooks, self.statistics, max_result)

    def is_carried(self, function: str) -> bool:
        """Whether its calls go to a process as their lines came, so that nobody needs their arguments here."""
        return function in self.tasks and bool(self.tasks.get(function).process)

    def start(
        self, call: Call, line: bytes, listener: Listener, deadline: float | None = None, reader: Reader = NOBODY
    ) -> Running:
        """Run a call that arrived as ``line``, which a task process gets as it is.

        ``deadline`` is its caller's, on ``time.monotonic()``; ``reader`` is who called. Raises ``UnknownTask``,
        and whatever ``CallError`` refuses it.
        """
        task = self.tasks.find(call.function)
        watched = WatchedCall(self._watch, task, call, call.args, listener, reader, None)
        return self._start(watched, task, line, deadline)

    def start_item(
        self,
        call: Call,
        args: Args | None,
        listener: Listener,
        deadline: float | None = None,
        reader: Reader = NOBODY,
        item: int | None = None,
    ) -> Running:
        """Run one item of a batch, as ``start`` does."""
        task = self.tasks.find(call.function)
        line = dumps({"id": call.id, "args": args}) if task.process else b""
        watched = WatchedCall(self._watch, task, call, args, listener, reader, item)
        return self._start(watched, task, line, deadline)

    def refuse(self, call: Call, listener: Listener, error: CallError, reader: Reader = NOBODY) -> None:
        """Refuse a call without a look at it, for a reason that its caller knows; the hooks hear of it all the same."""
        if call.function in self.tasks:
            watched = WatchedCall(self._watch, self.tasks.get(call.function), call, call.args, listener, reader, None)
            try:
                watched.begin()
            except CallError:
                pass  # refused it is, for the first reason
            watched.refuse(error)
        else:
            listener.refuse(error)

    def _start(self, watched: WatchedCall, task: Task[..., Any], line: bytes, deadline: float | None) -> Running:
        try:
            if self.hooks.before_call:
                watched.begin()
            most = self.max_running.get(task.name, task.max_running) if self.max_running else task.max_running
            if most is None:
                if task.process:
                    return self._run(watched, line, deadline, None)
                return GreenletCall(watched, deadline, self._spawner, self.debug, None, self._task_hooks, self._writers)
            turns = self.turns.get(task.name)
            if turns is None:
                turns = self.turns[task.name] = Turns(task.name, most, task.max_waiting)
            return TurnCall(
                turns, lambda leave: self._run(watched, line, deadline, leave), watched, deadline, watched.reader
            )
        except CallError as error:
            watched.tell_refused(error)
            raise

    def _run(
        self, watched: WatchedCall, line: bytes, deadline: float | None, ended: Callable[[], None] | None
    ) -> Running:
        """Run it now; ``ended`` is called when it does so no more."""
        task = watched.task
        if not task.process:
            return GreenletCall(watched, deadline, self._spawner, self.debug, ended, self._task_hooks, self._writers)
        processes = self.groups.get(task.group or "")
        if processes is None:
            raise UnknownTask(f"{task.name} runs in task processes, and this server has none for it ({task.group})")
        return ProcessCall(processes, watched, line, deadline, ended)


class ProcessCall:
    """A call in the pool."""

    __slots__ = ("_call", "_processes", "_reader")

    def __init__(
        self,
        processes: Processes,
        watched: WatchedCall,
        line: bytes,
        deadline: float | None,
        ended: Callable[[], None] | None,
    ) -> None:
        self._processes = processes
        self._reader = watched.reader
        task = watched.task
        self._call: PoolCall = processes.submit(
            task.name,
            line,
            watched if ended is None else Leaving(watched, ended),
            deadline=deadline,
            limit=task.timeout,
            window=watched.call.stream,
            progress=watched.call.progress,
            on_sent=self._may_be_sent if ended is None else None,  # whoever has a turn uses it
        )

    def cancel(self) -> None:
        self._processes.cancel(self._call)

    @property
    def is_waiting(self) -> bool:
        """Whether no process has it yet."""
        return self._processes.is_waiting(self._call)

    def grant(self, items: int) -> None:
        self._processes.grant(self._call, items)

    def _may_be_sent(self) -> bool | None:
        reader = self._reader
        if not (reader.lags and reader.is_behind):
            return True
        reader.hold(self._resume)
        return None

    def _resume(self) -> None:
        self._processes.resume(self._call)
