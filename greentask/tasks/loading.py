"""APP, as the command line takes it: ``package.module``, ``package.module:registry`` or ``module:function``."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigurationError
from .registry import Tasks
from .task import Task

__all__ = ["load_apps"]


def load_apps(apps: Iterable[str], *, in_processes: Iterable[str] = ()) -> Tasks:
    """The tasks of all these APPs, in one registry.

    ``in_processes`` names undecorated functions that are to run in task processes: ``NAME``, or ``NAME=GROUP``.
    Raises ``ConfigurationError`` naming the APP and what would do; errors of the user's own code pass through.
    """
    tasks, groups = Tasks(), dict(map(_name_and_group, in_processes))
    for app in apps:
        module_name, _, path = app.partition(":")
        module = _import(module_name, app)
        if not path:
            module = _celery_of(module) or module
        found = _attribute(module, path, app) if path else module
        for task in _tasks_of(found, app, groups):
            tasks.add(task)
            if task is not found and path and callable(found):
                tasks.also_as(app, task)  # a patched function doesn't say where it stands
        for registry in [found] if isinstance(found, Tasks) else list(vars(module).values()):
            if isinstance(registry, Tasks):
                tasks.middleware += [one for one in registry.middleware if one not in tasks.middleware]
    for name in groups:
        if name not in tasks or not tasks.get(name).process:
            raise ConfigurationError(
                f"--process {name}: no undecorated function of that name is served (a decorated one says process=True)"
            )
    return tasks


def _name_and_group(text: str) -> tuple[str, bool | str]:
    name, _, group = text.partition("=")
    return name, group or True


def _import(name: str, app: str) -> Any:
    if name.endswith(".py"):
        module = name.removesuffix(".py").replace("/", ".").lstrip(".")
        raise ConfigurationError(f"APP {app!r} is a file: name the module, {module!r}")
    if not all(part.isidentifier() for part in name.split(".")):
        raise ConfigurationError(
            f"{app!r} is not an APP: write package.module, package.module:registry or module:function"
        )
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise
        raise ConfigurationError(
            f"APP {app!r}: there is no module {error.name!r} in {_searched()}; is it spelled right, and installed?"
        ) from None


def _celery_of(package: Any) -> Any:
    """The module in which a package without tasks of its own has its application, as ``celery -A package`` finds it."""
    name = f"{package.__name__}.celery"
    if any(isinstance(value, (Task, Tasks)) for value in vars(package).values()) or not hasattr(package, "__path__"):
        return None
    return None if importlib.util.find_spec(name) is None else importlib.import_module(name)


def _attribute(module: Any, path: str, app: str) -> Any:
    found = module
    for part in path.split("."):
        try:
            found = getattr(found, part)
        except AttributeError:
            raise ConfigurationError(f"APP {app!r}: {module.__name__} has no {path!r}") from None
    return found


def _tasks_of(found: Any, app: str, groups: dict[str, bool | str]) -> list[Task[..., Any]]:
    if isinstance(found, Task):
        return [found]
    if isinstance(found, Tasks):
        return list(found)
    if isinstance(found, type(sys)):
        tasks: dict[int, Task[..., Any]] = {}
        for value in list(vars(found).values()):  # a registry may import more of a package when it is asked
            for task in [value] if isinstance(value, Task) else value if isinstance(value, Tasks) else ():
                tasks[id(task)] = task
        if not tasks:
            raise ConfigurationError(
                f"APP {app!r} has no tasks: decorate functions at its top with @task, "
                f"or name them as {found.__name__}:function"
            )
        return list(tasks.values())
    if callable(found):
        return [Task(found, process=groups.get(getattr(found, "__name__", ""), False))]
    raise ConfigurationError(f"APP {app!r} is a {type(found).__name__}: name a module, a Tasks registry or a function")


def _searched() -> str:
    return "sys.path, which begins with " + repr(sys.path[0] if sys.path else "")
