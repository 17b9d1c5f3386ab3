"""What options may be: the errors name the option, what it takes, and what it got."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import Any

__all__ = ["check_count", "check_seconds", "in_seconds"]


def in_seconds(value: Any) -> Any:
    """A ``timedelta`` as a number of seconds; anything else as it is."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def check_seconds(name: str, value: Any, *, zero: bool = False) -> float:
    """A duration, as a float where it is another kind of number (a ``Decimal``, say).

    Raises ``ValueError`` for a number that can't be one, ``TypeError`` for what is no number.
    """
    said = f"{name} is in seconds {'from 0 on' if zero else 'above 0'}, not {_show(value)}"
    if isinstance(value, (str, bytes, bool)):  # a float can be made of them
        raise TypeError(said)
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise TypeError(said) from None
    except OverflowError:  # an integer of hundreds of digits
        raise ValueError(said) from None
    if not (0 < seconds < math.inf or (zero and seconds == 0)):
        raise ValueError(said)
    return value if type(value) is int else seconds


def check_count(name: str, value: Any, least: int = 1) -> int:
    """A whole number. Raises ``ValueError`` for one that is too small, ``TypeError`` for what is none."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise TypeError(f"{name} must be a whole number, not {_show(value)}")
    count: int = value.__index__()
    if count < least:
        raise ValueError(f"{name} must be at least {least}, not {_show(value)}")
    return count


def _show(value: Any) -> str:
    try:
        return f"{value!r:.80}"
    except Exception as error:  # an integer has more digits than Python writes, say
        return f"{type(value).__name__} ({error})"
