"""What a task process runs: the tasks of a server that are declared ``process=True``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..errors import ConfigurationError, Interrupt, InvalidArguments, ended_by, refusal
from ..pool.child import Handler, Job
from ..pool.frames import whole
from ..pool.setup import Setup
from ..wire.json import dumps, loads_checked
from .context import RunningTask
from .execution import execute
from .registry import Tasks
from .task import Task, find_target

__all__ = ["make_handler", "setup_for"]


def setup_for(tasks: Iterable[Task[..., Any]], *, debug: bool = False) -> Setup:
    """How to set up processes that run these tasks. Raises ``ConfigurationError`` where one can't be imported there."""
    targets = []
    for task in tasks:
        task.check_importable()
        if task.target.startswith("__main__:"):
            raise ConfigurationError(
                f"task {task.name!r} is defined in the program that was started (__main__), which a task process "
                "can't import: move it to a module of its own"
            )
        targets.append((task.name, task.target))
    return Setup(f"{__name__}:make_handler", (tuple(targets), debug))


def make_handler(targets: tuple[tuple[str, str], ...], debug: bool) -> Handler:
    """Import the tasks (in the template), and return what runs their calls (in the processes)."""
    tasks = Tasks()
    for name, target in targets:
        module, _, qualname = target.partition(":")
        found = find_target(module, qualname)
        tasks.add(found if isinstance(found, Task) and found.name == name else _plain(found, name))
    return _TaskHandler(tasks, debug=debug)


class _TaskHandler:
    """Runs the calls of tasks: their lines come as they came, results and errors leave as JSON."""

    def __init__(self, tasks: Tasks, *, debug: bool) -> None:
        self._tasks = tasks
        self._debug = debug

    def prepare(self) -> None:
        """Nothing: all is imported."""

    def run(self, job: Job) -> tuple[bool, bytes]:
        try:
            message = loads_checked(whole(job.take_payload()))
        except ValueError as error:  # a task has lowered Python's limit for integers
            return False, dumps(refusal(InvalidArguments(f"this process can't read the arguments: {error}")))

        def report(progress: dict[str, Any]) -> None:
            job.progress(dumps(progress))

        running = RunningTask(
            message.get("id"), job.call.name, job.call.deadline, report if job.wants_progress else None
        )
        return execute(
            self._tasks.get(job.call.name),
            message.get("args"),
            running,
            job.item if job.call.window else None,
            debug=self._debug,
        )

    def interrupted(self, interrupt: Interrupt) -> bytes:
        return dumps(refusal(ended_by(interrupt)))


def _plain(found: Any, name: str) -> Task[..., Any]:
    function = found.function if isinstance(found, Task) else found
    return Task(function, name=name, process=True)
