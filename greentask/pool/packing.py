"""A function and its arguments as a call of the raw pool: a name and bytes, and the way back."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Callable
from functools import lru_cache
from types import FunctionType
from typing import Any

from .frames import Body
from .pickling import dump, load

__all__ = ["pack", "unpack"]

#: Functions whose names are remembered.
MOST_FUNCTIONS = 1000
_LONGEST_NAME = 200  # characters
# A function -> its name as the processes find it. Only those that can be imported, which stay as long as their module.
_names: dict[Callable[..., Any], str] = {}


def pack(function: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, Body]:
    """The call's name and payload. A plain function goes by its name, as pickle would do it, but is looked up once.

    Raises what pickle raises where it can't be pickled.
    """
    name = _names.get(function) if type(function) is FunctionType else None
    if name is not None:
        return name, dump((args, kwargs))
    payload = dump((function, args, kwargs))
    if type(function) is FunctionType:
        if len(_names) >= MOST_FUNCTIONS:
            _names.clear()
        module = pickle.whichmodule(function, function.__qualname__)  # type: ignore[attr-defined]
        name = _names[function] = f"{module}:{function.__qualname__}"
        return name, payload
    # This one's name is only told: it may be anything, where somebody answers for any attribute.
    qualname = getattr(function, "__qualname__", None)
    return (qualname if isinstance(qualname, str) else type(function).__qualname__)[:_LONGEST_NAME], payload


def unpack(name: str, payload: Body) -> tuple[Callable[..., Any], tuple[Any, ...], dict[str, Any]]:
    """The function, its arguments by position and by keyword. A process finds a function by its name once."""
    try:
        call = load(payload)
        return (_find(name), *call) if len(call) == 2 else call
    except AttributeError as error:
        if not any(main in str(error) for main in ("'__main__'", "'__mp_main__'")):
            raise
        hint = 'put it at the top of a module, or of the script, not below `if __name__ == "__main__":`'
        raise AttributeError(f"{error}; {hint} (and python -, -c and -m PACKAGE have no script)") from error


@lru_cache(MOST_FUNCTIONS)
def _find(name: str) -> Any:
    module, _, path = name.partition(":")
    found: Any = importlib.import_module(module)
    for part in path.split("."):
        found = getattr(found, part)
    return found
