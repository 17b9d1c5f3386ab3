"""Where a call runs, and until when."""

from __future__ import annotations

from typing import Any, Protocol

from ..errors import UnknownTask
from ..pool.calls import Listener, PoolCall
from ..pool.processes import Processes
from ..tasks.registry import Tasks
from ..tasks.task import Task
from ..wire.json import dumps
from ..wire.message import Args, Call
from .greenlets import GreenletCall

__all__ = ["Runner", "Running"]


class Running(Protocol):
    """A call that was started."""

    def cancel(self) -> None:
        """End it; its listener hears ``Cancelled``."""

    def grant(self, items: int) -> None:
        """The reader of its stream takes so many more items."""


class Runner:
    """Runs the calls of one registry. Belongs to the hub that it was made in; ``processes`` may be None.

    A listener hears of the end of a call exactly once: ``done`` or ``failed``.
    """

    def __init__(self, tasks: Tasks, processes: Processes | None = None, *, debug: bool = False) -> None:
        self.tasks = tasks
        self.processes = processes
        self.debug = debug

    def start(self, call: Call, line: bytes, listener: Listener, deadline: float | None = None) -> Running:
        """Run a call that arrived as ``line``, which a task process gets as it is.

        ``deadline`` is its caller's, on ``time.monotonic()``. Raises ``UnknownTask``.
        """
        return self._start(self.tasks.get(call.function), call, call.args, line, listener, deadline)

    def start_item(self, call: Call, args: Args | None, listener: Listener, deadline: float | None = None) -> Running:
        """Run one item of a batch. Raises ``UnknownTask``."""
        task = self.tasks.get(call.function)
        line = dumps({"id": call.id, "args": args}) if task.process else b""
        return self._start(task, call, args, line, listener, deadline)

    def _start(
        self,
        task: Task[..., Any],
        call: Call,
        args: Args | None,
        line: bytes,
        listener: Listener,
        deadline: float | None,
    ) -> Running:
        if not task.process:
            return GreenletCall(task, args, call, listener, deadline, debug=self.debug)
        if self.processes is None:
            raise UnknownTask(f"{task.name} runs in task processes, and this server has none")
        started = self.processes.submit(
            task.name,
            line,
            listener,
            deadline=deadline,
            limit=task.timeout,
            window=call.stream,
            progress=call.progress,
        )
        return ProcessCall(self.processes, started)


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
