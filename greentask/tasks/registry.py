"""``Tasks``: the names that a server offers, and what stands behind each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, overload

from ..errors import ConfigurationError, UnknownTask
from .hints import Hints
from .importing import is_importable
from .middleware import Middleware
from .options import check_options
from .task import Task

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import TaskOptions

__all__ = ["Tasks"]

P = ParamSpec("P")
R = TypeVar("R")


class Tasks:
    """A registry of tasks, by name, with the middleware that is to be around all tasks of a server that has them.

    >>> tasks = Tasks([len])
    >>> @tasks.task(timeout=5)
    ... def add(a, b):
    ...     return a + b
    >>> sorted(task.name for task in tasks)
    ['add', 'len']
    """

    def __init__(
        self,
        tasks: Iterable[Task[..., Any] | Callable[..., Any]] = (),
        *,
        middleware: Iterable[Middleware | str] = (),
    ) -> None:
        self.middleware = list(middleware)
        self._tasks: dict[str, Task[..., Any]] = {}
        self._hints = Hints()
        self._names: dict[str, str] = {}  # by target
        for task in tasks:
            self.add(task)

    def __iter__(self) -> Iterator[Task[..., Any]]:
        return iter(self._tasks.values())

    def __len__(self) -> int:
        return len(self._tasks)

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def add(self, function: Task[..., Any] | Callable[..., Any], **options: Unpack[TaskOptions]) -> Task[..., Any]:
        """Offer a task, or a function that isn't one yet, with the options of ``greentask.task``.

        Raises ``ConfigurationError`` where the name is taken.
        """
        if not isinstance(function, Task):
            task: Task[..., Any] = Task(function, **options)
        elif options:
            raise ConfigurationError(f"{function.name!r} is a task already, with a name and options of its own")
        else:
            task = function
        taken = self._tasks.get(task.name)
        if taken is not None and not _are_one(taken, task):
            raise ConfigurationError(
                f"two tasks are named {task.name!r}: {taken.target} and {task.target}; give one another name=…"
            )
        self._tasks[task.name] = task
        self._names.setdefault(task.target, task.name)
        return task

    def also_as(self, target: str, task: Task[..., Any]) -> None:
        """Let ``find`` know that its function is also what stands there, ``module:qualified.name``."""
        self._names.setdefault(target, task.name)

    @overload
    def task(self, function: Callable[P, R], /) -> Task[P, R]: ...

    @overload
    def task(self, /, **options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...

    def task(self, function: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptions]) -> Any:
        """As ``greentask.task``, and offered by this registry."""
        check_options(options)

        def decorate(function: Callable[..., Any]) -> Task[..., Any]:
            return self.add(Task(function, **options))

        return decorate if function is None else decorate(function)

    def get(self, name: str) -> Task[..., Any]:
        """The task of that name. Raises ``UnknownTask``, which lists close names."""
        task = self._tasks.get(name)
        if task is None:
            shown = name if len(name) <= 80 else name[:80] + "…"
            close = self._hints.close(name, self._tasks)
            hint = f"; did you mean {', '.join(close)}?" if close else "; greentask.tasks lists what there is"
            raise UnknownTask(f"no task is named {shown!r}{hint}")
        return task

    def find(self, name: str) -> Task[..., Any]:
        """The task that a call means: by its name, or by where its function is defined, ``module:qualified.name``.

        Raises ``UnknownTask``.
        """
        task = self._tasks.get(name)
        if task is not None:
            return task
        if ":" in name:
            if name not in self._names:
                raise UnknownTask(
                    f"no task is the function {name[:200]!r}: serve it as it is, greentask serve {name[:200]}, "
                    "or decorate it with @task in a module that is served"
                )
            name = self._names[name]
        return self.get(name)

    def describe(self) -> list[dict[str, Any]]:
        """Each task's name, signature, first line of documentation, and how it runs."""
        return [
            {
                "name": task.name,
                "signature": task.binder.text,
                "doc": (inspect.getdoc(task.function) or "").partition("\n")[0],
                "process": task.process,
                "timeout": task.timeout,
                "max_running": task.max_running,
                "stream": task.streams,
            }
            for task in sorted(self, key=lambda task: task.name)
        ]


def _are_one(taken: Task[..., Any], task: Task[..., Any]) -> bool:
    # Two that are local to a function, or nameless, look alike though they are two.
    return taken.function is task.function or (taken.target == task.target and is_importable(task.target))
