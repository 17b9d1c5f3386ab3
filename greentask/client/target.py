"""What a call is of."""

from __future__ import annotations

from typing import Any

from ..tasks.task import Task, merge_arguments
from ..wire.message import Args

__all__ = ["Target", "arguments_of", "name_of"]

#: What is called: a task's name, or the task.
Target = str | Task[..., Any]


def name_of(function: Target) -> str:
    """The name by which a server has it."""
    if isinstance(function, str):
        return function
    name = getattr(function, "name", None)
    if not isinstance(name, str):
        raise TypeError(f"what is called is a @task or the name of one, not {function!r:.200}")
    return name


def arguments_of(function: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Args:
    """A call's arguments as the wire takes them."""
    return merge_arguments(args, kwargs, None if isinstance(function, str) else function.binder)
