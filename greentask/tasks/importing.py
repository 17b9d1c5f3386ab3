"""The names by which another process finds what this one has: ``module:qualified.name``."""

from __future__ import annotations

from typing import Any

__all__ = ["find_target", "is_importable", "target_of"]


def target_of(function: object) -> str:
    """Where another process finds the function, if it is importable."""
    module = getattr(function, "__module__", None)
    qualname = getattr(function, "__qualname__", getattr(function, "__name__", "<nameless>"))
    return f"{module}:{qualname}"


def is_importable(target: str) -> bool:
    """Whether it can be imported by its name: a local function, a lambda or a partial has none."""
    return "<" not in target and not target.startswith("None:")


def find_target(target: str) -> Any:
    """The object at ``module:qualified.name``, imported."""
    module, _, qualname = target.partition(":")
    found: Any = __import__(module, fromlist=["_"])
    for part in qualname.split("."):
        found = getattr(found, part)
    return found
