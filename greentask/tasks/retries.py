"""When a durable task that failed is tried again: the arithmetic, without a clock.

Whether an error is worth another attempt is decided where it was raised, in the greenlet or the process that ran the
task, for there it is an exception with a class: names tell neither subclasses nor another library's ``Retry``. The
answer travels in the error object, as its ``retry``.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from ..errors import ConfigurationError, InvalidArguments, UnknownTask
from .checks import check_seconds, in_seconds

__all__ = ["Backoff", "Exceptions", "Retry", "RetryPolicy", "Wanted", "make_policy"]

Exceptions = type[BaseException] | Iterable[type[BaseException]]

#: Whether an error is worth another attempt; of one that asks for it, in how many seconds (None: as the backoff says).
Wanted = bool | dict[str, float | None]

# Another attempt would end as this one did.
_NEVER_MENDS = (InvalidArguments, UnknownTask)
_MOST_DELAY = 366 * 86400.0


@dataclass(frozen=True, slots=True)
class Backoff:
    """How long a task waits before it is tried again.

    base
        Seconds after the first failure.
    factor
        By how much longer each further wait is.
    max
        The longest wait, in seconds.
    jitter
        Wait a random part of that time, between half and all of it, so that tasks that failed together don't come back
        together.

    >>> [Backoff(base=1, factor=2, max=5, jitter=False).delay(failures) for failures in (1, 2, 3, 4)]
    [1.0, 2.0, 4.0, 5.0]
    """

    base: float = 1.0
    factor: float = 2.0
    max: float = 300.0
    jitter: bool = True

    def __post_init__(self) -> None:
        for name, value, least in (("base", self.base, 0), ("factor", self.factor, 1), ("max", self.max, 0)):
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not least <= value < math.inf:
                what = "a number, 1 or more" if name == "factor" else "in seconds, 0 or more"
                raise ConfigurationError(f"{name} of a Backoff is {what}, not {value!r:.80}")
        if self.max > _MOST_DELAY:
            raise ConfigurationError(f"max of a Backoff is in seconds, up to a year, not {self.max!r}")

    def delay(self, failures: int, chance: float | None = None) -> float:
        """Seconds to wait after so many failures, the last one included. ``chance``, from 0 to 1, is what jitter is."""
        try:
            longest = min(self.max, self.base * self.factor ** (failures - 1))
        except OverflowError:
            longest = self.max
        if not self.jitter:
            return float(longest)
        return longest * (0.5 + (random.random() if chance is None else chance) / 2)


class Retry(Exception):
    """Raised by a durable task that wants to be tried again, in ``delay`` seconds (or a ``timedelta``); None: as its
    backoff says.

    It counts as a failure where the task says how many ``retries`` it has; otherwise it may be raised any number of
    times. ``give_up_on`` is not asked. Where the task does not run durably, it is an error like any other.

    >>> raise Retry(delay=30)                                 # doctest: +SKIP
    """

    def __init__(self, message: str = "", *, delay: float | timedelta | None = None) -> None:
        seconds = None if delay is None else float(check_seconds("delay of a Retry", in_seconds(delay), zero=True))
        if seconds is not None and seconds > _MOST_DELAY:
            raise ValueError(f"delay of a Retry is in seconds, up to a year, not {delay!r}")
        super().__init__(message or "tried again later")
        self.delay = seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """What a task says of its retries; ``retries`` is None where it says nothing."""

    retries: int | None = None
    backoff: Backoff = Backoff()
    retry_on: tuple[type[BaseException], ...] = (Exception,)
    give_up_on: tuple[type[BaseException], ...] = ()

    def wants_retry(self, error: BaseException) -> Wanted:
        """Whether the error is worth another attempt, or asks for it."""
        if isinstance(error, Retry):
            return {"delay": _delay_of(error)}
        return isinstance(error, self.retry_on) and not isinstance(error, (*self.give_up_on, *_NEVER_MENDS))

    def delay(self, error: dict[str, Any], failures: int, retries: int | None = None) -> float | None:
        """Seconds until the next attempt after so many failures, the last one with this error object; None: no more.

        ``retries`` takes the place of those of the task.
        """
        wanted: Wanted = error.get("retry", False)
        most = self.retries if retries is None else retries
        if isinstance(wanted, dict):  # where nobody says how often, it may ask as often as it likes
            asked, may = wanted["delay"], most is None or failures <= most
        else:
            asked, may = None, wanted and failures <= (most or 0)
        if not may:
            return None
        return self.backoff.delay(failures) if asked is None else asked


def _delay_of(error: Retry) -> float | None:
    """In how many seconds it asks for another attempt.

    A subclass may not have called ``Retry.__init__``, and have put anything there. What is no delay is none: from here
    on nobody could tell the task's author, and the attempt has to come to an end.
    """
    try:
        return Retry(delay=error.delay).delay
    except Exception:
        return None


def make_policy(
    name: str,
    retries: int | None,
    backoff: Backoff | None,
    retry_on: Exceptions | None,
    give_up_on: Exceptions | None,
) -> RetryPolicy:
    """The policy of the task of that name. Raises ``ConfigurationError``."""
    if retries is not None and (isinstance(retries, bool) or not isinstance(retries, int) or retries < 0):
        raise ConfigurationError(f"task {name!r}: retries is a number of further attempts, 0 or more, not {retries!r}")
    if backoff is not None and not isinstance(backoff, Backoff):
        raise ConfigurationError(f"task {name!r}: backoff is a Backoff(base=…, factor=…, max=…), not {backoff!r:.200}")
    return RetryPolicy(
        retries,
        backoff or Backoff(),
        (Exception,) if retry_on is None else _classes(name, "retry_on", retry_on),
        () if give_up_on is None else _classes(name, "give_up_on", give_up_on),
    )


def _classes(name: str, option: str, given: Exceptions) -> tuple[type[BaseException], ...]:
    classes: tuple[Any, ...] = (given,)
    if isinstance(given, Iterable) and not isinstance(given, (type, str)):
        classes = tuple(given)
    for one in classes:
        if not (isinstance(one, type) and issubclass(one, BaseException)):
            raise ConfigurationError(f"task {name!r}: {option} has exception classes, not {one!r:.200}")
    return classes
