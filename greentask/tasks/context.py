"""The running task's view of itself: its id, its deadline, and the way to report progress.

The context belongs to the greenlet (or, in a task process, to the main thread) that runs the task. Greenlets and
threads that the task starts begin without it; ``contextvars.copy_context().run`` takes it along.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

__all__ = ["NOT_A_TASK", "RunningTask", "current", "current_task", "enter"]


@dataclass(frozen=True, slots=True)
class RunningTask:
    """What ``greentask.current()`` gives.

    ``id`` is the call's id as its caller chose it (of a durable task, that of its receipt), ``name`` the task's,
    ``deadline`` the moment on ``time.monotonic()`` at which it will be stopped; ``attempt`` says which attempt at a
    durable task this is, from 1. All are None where the function runs as a plain function, and ``attempt`` also where
    the task is not durable.
    """

    id: str | int | None = None
    name: str | None = None
    deadline: float | None = None
    report: Callable[[dict[str, Any]], None] | None = None
    attempt: int | None = None

    def remaining(self) -> float | None:
        """Seconds left until the deadline, at least 0; None without one."""
        return None if self.deadline is None else max(0.0, self.deadline - time.monotonic())

    def progress(self, done: float, total: float | None = None, note: str | None = None) -> None:
        """Tell the caller how far the task is; does nothing where nobody asked.

        >>> greentask.current().progress(120, 1000, "a mail every 50 ms")   # doctest: +SKIP
        """
        if self.report is not None:
            report: dict[str, Any] = {"done": done}
            if total is not None:
                report["total"] = total
            if note is not None:
                report["note"] = note
            self.report(report)


#: What is the current task where there is none.
NOT_A_TASK = RunningTask()
#: The current task of this greenlet, or what makes it, when somebody looks: most tasks don't.
current_task: ContextVar[RunningTask | Callable[[], RunningTask]] = ContextVar("greentask.current", default=NOT_A_TASK)


def current() -> RunningTask:
    """The task that is running here. Outside of one, something harmless whose members are None."""
    running = current_task.get()
    if not isinstance(running, RunningTask):
        running = running()
        current_task.set(running)
    return running


def enter(running: RunningTask | Callable[[], RunningTask] | None) -> None:
    """Make ``running``, or what it returns, the current task of this greenlet (None: no task)."""
    current_task.set(running or NOT_A_TASK)
