"""Of which calls only one waits or runs: all of a task's, or those with the same values of some arguments."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigurationError
from .binding import Binder

__all__ = ["Singleton", "make_singleton", "singleton_key"]

Singleton = bool | str | Iterable[str]

_LONGEST = 200  # characters of a key that is kept as it is


def make_singleton(name: str, singleton: Singleton, binder: Binder) -> tuple[str, ...] | None:
    """The arguments that tell calls of the task of that name apart; None where any number may wait.

    Raises ``ConfigurationError``.
    """
    if isinstance(singleton, bool):
        return () if singleton else None
    names: tuple[Any, ...] = (singleton,)
    if isinstance(singleton, Iterable) and not isinstance(singleton, str):
        names = tuple(singleton)
    for one in names:
        if not (isinstance(one, str) and binder.has(one)):
            raise ConfigurationError(
                f"task {name!r}: singleton is True, or names of parameters of {binder.text}, not {one!r:.80}"
            )
    return names


def singleton_key(names: tuple[str, ...], binder: Binder, args: dict[str, Any] | list[Any] | None) -> str:
    """What is the same for calls of which only one may wait or run. Raises ``InvalidArguments``."""
    if not names:
        return ""
    values = binder.values(args)
    # What JSON doesn't have is a parameter's default, the same for all.
    key = json.dumps([values[name] for name in names], sort_keys=True, separators=(",", ":"), default=lambda _: None)
    if len(key) <= _LONGEST:
        return key
    import hashlib  # takes an eighth of the time of `import greentask`

    return hashlib.sha256(key.encode()).hexdigest()
