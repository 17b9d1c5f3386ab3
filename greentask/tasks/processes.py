"""What a task process runs: the tasks of a server that are declared ``process=True``."""

from __future__ import annotations

import pickle
import time
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigurationError, Interrupt, InvalidArguments, ended_by, refusal
from ..pool.child import Handler, Job
from ..pool.frames import whole
from ..pool.setup import DEFAULT_START, Setup
from ..pool.within import within
from ..wire.json import dumps, loads_checked
from .context import RunningTask
from .execution import execute
from .importing import find_target
from .middleware import CallInfo, Hooks, Middleware, load_middleware, pack
from .registry import Tasks
from .resources import close_resources
from .task import DEFAULT_GROUP, Task

__all__ = ["DEFAULT_START", "DEFAULT_TEARDOWN", "make_handler", "setup_for"]


#: Seconds that a task process has for its end in good order.
DEFAULT_TEARDOWN = 5.0


def setup_for(
    tasks: Iterable[Task[..., Any]],
    *,
    debug: bool = False,
    group: str = DEFAULT_GROUP,
    middleware: Iterable[Middleware | str] = (),
    start: float = DEFAULT_START,
    teardown: float = DEFAULT_TEARDOWN,
) -> Setup:
    """How to set up processes that run these tasks. Raises ``ConfigurationError`` where one can't be imported there.

    ``start``: seconds that the template has for importing them, and a process for getting ready, once it is forked;
    0: any time. ``teardown``: seconds that
    it has for its end in good order.
    """
    targets = []
    for task in tasks:
        task.check_importable()
        if task.target.startswith("__main__:"):
            raise ConfigurationError(
                f"task {task.name!r} is defined in the program that was started (__main__), which a task process "
                "can't import: move it to a module of its own"
            )
        targets.append((task.name, task.target, _names_of_needs(task)))
    packed = tuple(one for given in middleware if (one := pack(given)) is not None)
    made_of = (tuple(targets), debug, group, packed, start, teardown)
    return Setup(f"{__name__}:make_handler", made_of, farewell=teardown, start=start)


def make_handler(
    targets: tuple[tuple[str, str, tuple[str, ...]], ...],
    debug: bool,
    group: str = DEFAULT_GROUP,
    middleware: tuple[str | bytes, ...] = (),
    start: float = 0.0,
    teardown: float = DEFAULT_TEARDOWN,
) -> Handler:
    """Import the tasks (in the template), and return what runs their calls (in the processes)."""
    # Before the tasks: it may have something to make ready for their modules.
    hooks = Hooks(load_middleware(one) if isinstance(one, str) else pickle.loads(one) for one in middleware)
    tasks = Tasks()
    for name, target, needs in targets:
        found = find_target(target)
        tasks.add(found if _is_task(found, name) else _plain(found, name, needs))
    for task in tasks:
        for need in task.needs:
            if need.preload:
                need()
    return _TaskHandler(tasks, hooks, group, start, teardown, debug=debug)


class _TaskHandler:
    """Runs the calls of tasks: their lines come as they came, results and errors leave as JSON."""

    def __init__(self, tasks: Tasks, hooks: Hooks, group: str, start: float, teardown: float, *, debug: bool) -> None:
        self._tasks = tasks
        self._hooks = hooks
        self._group = group
        self._start = start
        self._teardown = teardown
        self._debug = debug

    def prepare(self) -> None:
        try:
            with within(self._start):
                for task in self._tasks:
                    for need in task.needs:
                        need()
                self._hooks.tell(self._hooks.process_started, self._group)
        except BaseException:
            with within(self._teardown):
                close_resources()  # those that were loaded before it
            raise

    def finish(self) -> None:
        with within(self._teardown):
            self._hooks.tell(self._hooks.process_stopped, self._group)
            close_resources()

    def run(self, job: Job) -> tuple[bool, bytes]:
        try:
            message = loads_checked(whole(job.take_payload()))
        except ValueError as error:  # a task has lowered Python's limit for integers
            return False, dumps(refusal(InvalidArguments(f"this process can't read the arguments: {error}")))

        id, attempt = message.get("id"), None
        if "call" in message:  # no line has that: the queue has put it around one
            attempt, message = message["attempt"], message["call"]
        call = job.call
        name, emit = call.name, job.item if call.window else None

        def running() -> RunningTask:  # for who looks: most tasks don't
            def report(progress: dict[str, Any]) -> None:
                job.progress(dumps(progress))

            return RunningTask(id, name, call.deadline, report if job.wants_progress else None, attempt)

        hooks = info = None
        if self._hooks.watch_tasks:
            hooks = self._hooks
            info = CallInfo(name, id, None, None, "process", self._group, time.monotonic(), {})
        task = self._tasks.get(name)
        args = message["args"] if "args" in message else message.get("params")  # as JSON-RPC calls them
        ended_well, body = execute(
            task, args, running, emit, debug=self._debug, durable=attempt is not None, hooks=hooks, info=info
        )
        return ended_well, whole(body)

    def interrupted(self, interrupt: Interrupt) -> bytes:
        return dumps(refusal(ended_by(interrupt)))


def _names_of_needs(task: Task[..., Any]) -> tuple[str, ...]:
    """Where a process finds what the task needs, if it doesn't find the task itself, but only its function."""
    if not task.needs or _is_task(find_target(task.target), task.name):
        return ()
    for need in task.needs:
        need.check_importable()
    return tuple(need.target for need in task.needs)


def _is_task(found: object, name: str) -> bool:
    return isinstance(found, Task) and found.name == name


def _plain(found: Any, name: str, needs: tuple[str, ...]) -> Task[..., Any]:
    function = found.function if isinstance(found, Task) else found
    return Task(function, name=name, process=True, needs=map(find_target, needs))
