"""The ids of durable tasks: the moment of their enqueueing and a number, which sorts as they were enqueued.

In the file they are integers, so that a task is found without an index of its own; outside 13 letters and digits.
"""

from __future__ import annotations

import random
from functools import lru_cache

__all__ = ["MOST_ID", "id_text", "next_id", "parse_id"]

_DIGITS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"  # Crockford's base 32: no I, L, O, U to be taken for others
_VALUES = {digit: value for value, digit in enumerate(_DIGITS)}
_PAIRS = [first + second for first in _DIGITS for second in _DIGITS]
_LENGTH = 13
_RANDOM_BITS = 20
MOST_ID = 2**63 - 1


def next_id(last: int, now: float) -> int:
    """An id for a task that is enqueued now (a Unix time), greater than the last one, whatever the clock says.

    A random part keeps the ids of two queues from being the same.
    """
    fresh = int(now * 1000) << _RANDOM_BITS | random.getrandbits(_RANDOM_BITS - 1)
    return max(last + 1, min(fresh, MOST_ID // 2))


def id_text(id: int) -> str:
    """The id as others see it."""
    return _head(id >> 10) + _PAIRS[id & 1023]


@lru_cache(maxsize=1024)
def _head(head: int) -> str:
    """All but the last two digits. There are thousands a second that differ in nothing else."""
    digits = _PAIRS[head & 1023]
    for shift in (10, 20, 30, 40):  # not digit by digit
        digits = _PAIRS[head >> shift & 1023] + digits
    return _DIGITS[head >> 50] + digits


def parse_id(text: str) -> int | None:
    """The integer of an id's text; None where it is none."""
    if len(text) != _LENGTH:
        return None
    id = 0
    for digit in text:
        value = _VALUES.get(digit)
        if value is None:
            return None
        id = id << 5 | value
    return id if id <= MOST_ID else None
