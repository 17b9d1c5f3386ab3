"""Which tasks there are for calls that run in place: those of some APPs, or those of whatever is imported."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from ..errors import ConfigurationError, UnknownTask
from ..tasks.loading import load_apps
from ..tasks.middleware import Hooks, Middleware, load_middleware
from ..tasks.registry import Tasks
from ..tasks.task import Task

__all__ = ["App", "Known", "imported_names", "known_task"]

#: A module or its name, a registry, a task or a function; as a text, whatever ``greentask serve`` takes.
App = str | ModuleType | Tasks | Task[..., Any] | Callable[..., Any]


class Known:
    """Finds tasks by their names, with the hooks that are to be around them.

    Without APPs it knows the tasks of all modules that are imported, when it is asked.
    """

    def __init__(self, apps: Iterable[App], middleware: Iterable[Middleware]) -> None:
        self._apps = [_load(app) for app in apps]
        self._own = list(middleware)
        self._found: dict[str, tuple[Task[..., Any], Hooks]] = {}
        if self._apps:
            merged = Tasks(task for app in self._apps for task in app)
            hooks = self._hooks(self._apps)
            self._found = {task.name: (task, hooks) for task in merged}
            self._tasks = merged

    def find(self, name: str) -> tuple[Task[..., Any], Hooks]:
        """The task of that name. Raises ``UnknownTask``, ``ConfigurationError`` where there are two."""
        if name not in self._found:
            if self._apps:
                return self._found[self._find_in_apps(name).name]
            known = known_task(name)
            if known is None:
                raise UnknownTask(
                    f"no task is named {name!r} in any module that is imported: import it, "
                    "or name it to eager(), as in eager('shop.tasks')"
                )
            self._found[name] = known, self._hooks(one for one in _registries() if known.name in one)
        return self._found[name]

    def _find_in_apps(self, name: str) -> Task[..., Any]:
        for app in self._apps:
            try:
                return app.find(name)
            except UnknownTask:
                pass
        return self._tasks.find(name)  # raises, with close names

    def task(self, name: str) -> Task[..., Any] | None:
        """The task of that name, if there is one."""
        try:
            return self.find(name)[0]
        except UnknownTask:
            return None

    def names(self) -> set[str]:
        """All by which a task may be called."""
        return _names_of(self._tasks) if self._apps else imported_names()

    def _hooks(self, registries: Iterable[Tasks]) -> Hooks:
        given: list[Middleware] = []
        for one in (one for registry in registries for one in registry.middleware):
            loaded = load_middleware(one)
            if loaded not in given:
                given.append(loaded)
        return Hooks([*given, *self._own])


def known_task(name: str) -> Task[..., Any] | None:
    """The task of that name in a module that is imported. Raises ``ConfigurationError`` where there are several."""
    found = {id(task): task for task in _tasks_of_modules() if name in (task.name, task.target)}
    if len(found) > 1:
        targets = sorted(task.target for task in found.values())
        raise ConfigurationError(
            f"{name!r} is the name of several tasks that are imported, {' and '.join(targets)}: "
            f"say which there are, as in eager({targets[0]!r})"
        )
    return next(iter(found.values()), None)


def imported_names() -> set[str]:
    """All by which tasks of the modules that are imported may be called."""
    return _names_of(_tasks_of_modules())


def _names_of(tasks: Iterable[Task[..., Any]]) -> set[str]:
    return {name for task in tasks for name in (task.name, task.target)}


def _load(app: App) -> Tasks:
    if isinstance(app, Tasks):
        return app
    if isinstance(app, ModuleType):
        app = app.__name__
    return load_apps([app]) if isinstance(app, str) else Tasks([app])


def _values() -> Iterable[Any]:
    for module in list(sys.modules.values()):
        if type(module) is ModuleType:  # others may do things when they are looked at
            yield from list(vars(module).values())


def _registries() -> Iterable[Tasks]:
    return (value for value in _values() if isinstance(value, Tasks))


def _tasks_of_modules() -> Iterable[Task[..., Any]]:
    for value in _values():
        # By its type: isinstance would have proxies (of Flask, say) look for what isn't there yet.
        if issubclass(type(value), Task):
            yield value
        elif issubclass(type(value), Tasks):
            yield from value
