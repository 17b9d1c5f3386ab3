"""A call that has not ended, and the errors with which one ends that no server has answered."""

from __future__ import annotations

import math
from typing import Any

from ..errors import (
    CallError,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    InvalidArguments,
    InvalidMessage,
    Overloaded,
    Unauthenticated,
    UnknownTask,
    from_wire,
    out_of_time,
)
from .balance import RetryBudget, Target
from .carrier import Receiver
from .link import UNTRUSTED, Link

__all__ = ["NOT_HERE", "Sent", "could_not_be_sent", "error_of"]

#: Refusals with which another server may do: one that has less to do, or other code.
NOT_HERE = (Overloaded, UnknownTask, InvalidArguments, InvalidMessage)

#: How often a call that may have run is sent again, though it does no harm: it may be what ends its servers.
#: A batch is once as a whole, and its items then are each alone: one of them may be, and not the others.
_MOST_REPEATS, _MOST_REPEATS_OF_BATCH = 3, 1
_NAME_BEGINS = b'{"function":"'
_NONE: frozenset[Target] = frozenset()
_REMEDY = "; is a server running there?"


class Sent:
    """A call that has not ended."""

    __slots__ = (
        "avoid",
        "data",
        "due",
        "has_begun",
        "idempotent",
        "is_being_sent",
        "is_late",
        "link",
        "receiver",
        "refusal",
        "repeats",
        "size",
        "timer",
        "tries",
        "was_sent",
    )

    def __init__(self, data: bytes, receiver: Receiver, size: int, idempotent: bool) -> None:
        self.data = data  # for another try
        self.size = size  # how many calls it is, if it is a batch
        self.receiver = receiver
        self.idempotent = idempotent
        self.link: Link | None = None  # to which it was given
        self.was_sent = False  # over that, and not kept until it is open
        self.is_being_sent = False  # somebody is at it, or a signal handler in their midst
        self.has_begun = False  # something was heard of it
        self.is_late = False  # its time is over, and the server is about to say what has become of it
        self.repeats = 0  # after which it may have run more than once
        self.timer: Any = None
        self.due = -math.inf  # when it is sent again, where it waits for that
        self.tries = 0  # that a server refused
        self.avoid: frozenset[Target] = _NONE  # servers that were tried
        self.refusal: Exception | None = None  # the last one

    @property
    def task(self) -> bytes:
        """Which task it calls: its line to the end of the name, which tells it from the others."""
        return self.data[: self.data.find(b'"', len(_NAME_BEGINS))]

    def stop_timer(self) -> None:
        if self.timer is not None:
            self.timer.stop()
            self.timer.close()
            self.timer = None

    def may_repeat(self, budget: RetryBudget) -> bool:
        """Whether it may be sent again where it may have run; then that is taken from the budget."""
        most = _MOST_REPEATS if self.size == 1 else _MOST_REPEATS_OF_BATCH
        is_harmless = self.idempotent and not self.has_begun
        return is_harmless and self.repeats < most and budget.spend(self.size)

    def no_answer(self, timeout: float) -> DeadlineExceeded:
        """The error where nothing was heard of it in time."""
        if self.was_sent:
            where = "from the server"
        else:
            where = "and no room" if isinstance(self.refusal, Overloaded) else "and no connection"
        why = "" if self.was_sent or self.refusal is None else f": {self.refusal}"
        error = DeadlineExceeded(f"no answer {where} within {timeout:g} s{why}")
        error.started = None if self.was_sent or self.repeats else False
        return error

    def too_late(self) -> DeadlineExceeded:
        """The error where it could be sent again, and its time is over."""
        error = out_of_time(started=False)
        if self.repeats:  # it may have run before
            error.started = None
        return error


def could_not_be_sent(before: Exception | None, why: str | Unauthenticated, may_have_run: bool) -> Exception:
    """The error of a call that could not be sent, after what was tried ``before`` that."""
    if isinstance(before, (Draining, *NOT_HERE)):
        return before
    told = str(why)
    if before is not None:
        earlier = str(before).removesuffix(_REMEDY)
        told = earlier if told in earlier else f"{earlier}; {told}"
    if isinstance(before, Unauthenticated) or isinstance(why, Unauthenticated):
        return Unauthenticated(told)
    return ConnectionLost(told if told.endswith(UNTRUSTED) else told + _REMEDY, sent=may_have_run)


def error_of(described: dict[str, Any], target: Target) -> Exception:
    error = from_wire(described)
    if not isinstance(error, CallError) and hasattr(error, "add_note"):  # since Python 3.11
        error.add_note(f"raised by the task, on {target}")
    return error
