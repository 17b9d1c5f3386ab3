"""What a call's ``enqueue`` member says: that it is durable, and when and how it is to run."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from typing import Any, TypedDict

from .chain import MOST_STEPS, Chain, check_chain, check_length

__all__ = ["Enqueue", "EnqueueOptions", "decode_enqueue"]

#: The highest priority; the lowest one is as far below 0.
MOST_PRIORITY = 10
MOST_RETRIES = 10_000
MAX_KEY = 500  # characters
_LONGEST = 366 * 86400 * 100.0  # seconds
_SECONDS = "seconds from 0 to a hundred years"


@dataclass(frozen=True, slots=True)
class Enqueue:
    """How a durable task is to run.

    ``delay``: seconds from now, ``at``: a Unix time, before which it doesn't; ``priority``: from -10 to 10, higher ones
    go first; ``key``: while a task with it is known, it is not enqueued again; ``ttl``: seconds within which it must
    have begun; ``key_ttl``: seconds for which the key holds after its task is forgotten, in place of what the queue
    says; ``singleton``: while a task of this name with it waits or runs, it is not enqueued again. ``priority``,
    ``retries`` and ``ttl`` are in place of what the task says.

    ``then``: what follows it; ``after``: the task or group that it waits for, ``takes`` whether it takes what came of
    that, and ``errors`` whether it runs also where that has failed; ``group``: that a batch is a group (True), or more
    of that group, and ``open`` that more is to come.
    """

    delay: float | None = None
    at: float | None = None
    priority: int | None = None
    key: str | None = None
    retries: int | None = None
    ttl: float | None = None
    key_ttl: float | None = None
    singleton: str | None = None
    then: Chain | None = None
    after: str | None = None
    takes: bool = True
    errors: bool = False
    group: bool | str = False
    open: bool = False

    def __post_init__(self) -> None:
        if self.delay is not None and self.at is not None:
            raise ValueError("delay and at don't go together")
        if self.delay is not None:
            _check_number("delay", self.delay, 0, _LONGEST, _SECONDS)
        if self.at is not None:
            _check_number("at", self.at, 0, 1e11, "a Unix time in seconds, up to 1e11")
        if self.ttl is not None:
            _check_number("ttl", self.ttl, 0, _LONGEST, "seconds above 0")
            if self.ttl == 0:
                raise ValueError("ttl is seconds above 0, not 0")
        if self.priority is not None:
            _check_whole("priority", self.priority, -MOST_PRIORITY, MOST_PRIORITY)
        if self.retries is not None:
            _check_whole("retries", self.retries, 0, MOST_RETRIES)
        if self.key_ttl is not None:
            _check_number("key_ttl", self.key_ttl, 0, _LONGEST, _SECONDS)
        if self.key is not None:
            _check_key("key", self.key)
        if self.singleton is not None:
            _check_key("singleton", self.singleton)
        is_alone = self.then is None and self.after is None and self.group is False and self.open is False
        if not (is_alone and self.takes is True and self.errors is False):  # as it is of most
            self._check_composition()

    def _check_composition(self) -> None:
        if self.then is not None:
            object.__setattr__(self, "then", check_chain(self.then, "then", lambda options: Enqueue(**options)))
        for name, flag in (("takes", self.takes), ("errors", self.errors), ("open", self.open)):
            if not isinstance(flag, bool):
                raise ValueError(f"{name} is true or false, not {flag!r:.80}")
        if not isinstance(self.group, (bool, str)) or not isinstance(self.after, (str, type(None))):
            raise ValueError("group is true or the id of one, and after the id of a task or group")
        if self.after is not None and (self.key or self.singleton or self.at or self.then or self.group):
            raise ValueError("key, singleton, at, then and group don't go together with after")
        if self.after is None and (self.errors or not self.takes):
            raise ValueError("takes and errors are for what follows another: they go with after, or in a step of then")
        if self.open and not self.group:
            raise ValueError("open goes with group")
        if self.then is not None and isinstance(self.group, str):
            raise ValueError("then of a group is said where it begins")

    def to_json(self) -> dict[str, Any] | bool:
        """The member's value."""
        given = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in given.items() if value != _DEFAULTS[name]} or True


class EnqueueOptions(TypedDict, total=False):
    """As ``Enqueue`` has them, or as Python says such things, for the types of those who hand them on."""

    delay: float | timedelta | None
    at: float | datetime | None
    priority: int | None
    key: str | None
    retries: int | None
    ttl: float | timedelta | None
    key_ttl: float | timedelta | None
    singleton: str | None
    then: Any  # steps: what carries the call knows them


_DEFAULTS = {field.name: field.default for field in fields(Enqueue)}
_NAMES = frozenset(Enqueue.__dataclass_fields__)


def decode_enqueue(value: Any, max_steps: int = MOST_STEPS) -> Enqueue | None:
    """What the member says; None where the call is a plain one. Raises ``ValueError``, which says what would do."""
    if value is False:
        return None
    if value is True:
        return _AS_IT_IS
    if not isinstance(value, dict):
        raise ValueError("enqueue is true or an object")
    unknown = value.keys() - _NAMES
    if unknown:
        raise ValueError(f"enqueue has no {min(unknown)!r:.80}; it has {', '.join(sorted(_NAMES))}")
    if "then" in value:
        check_length(value["then"], "then", max_steps)
    return Enqueue(**{name: given for name, given in value.items() if given is not None})


def _check_number(name: str, value: Any, least: float, most: float, what: str) -> None:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not is_number or not least <= value <= most or not math.isfinite(value):
        raise ValueError(f"{name} is {what}, not {value!r:.80}")


def _check_key(name: str, value: Any) -> None:
    if not (isinstance(value, str) and 0 < len(value) <= MAX_KEY):
        raise ValueError(f"{name} is a string of 1 to {MAX_KEY} characters, not {value!r:.80}")


def _check_whole(name: str, value: Any, least: int, most: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
        raise ValueError(f"{name} is a whole number from {least} to {most}, not {value!r:.80}")


_AS_IT_IS = Enqueue()  # the same for all that say no more than true
