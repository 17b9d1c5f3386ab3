"""What a test sees of the calls that a program makes, and what it has become of them."""

from __future__ import annotations

import difflib
import inspect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from ..errors import CallError, Overloaded, WorkerLost, describe, from_wire, refusal
from ..hub.home import allocate_lock
from ..tasks.task import Task
from ..wire.json import dumps, loads
from .known import imported_names, known_task

__all__ = ["Calls", "Plan", "RecordedCall"]

#: Finds the task of a name, in place of a look at all modules that are imported.
Find = Callable[[str], Task[..., Any] | None]
#: How many calls are kept; of more, the newest.
MOST_CALLS = 10_000
_OWN = "greentask."  # how the names of a server's own functions begin


@dataclass(eq=False)
class RecordedCall:
    """One call that the program made.

    task
        The task's name.
    args, kwargs
        As they were on the wire, so either may be empty, whichever way they were passed: see ``arguments``.
    timeout
        Its caller's, in seconds; None: none.
    idempotent
        Whether its caller said that it may run twice.
    ended
        Whether there was an answer.
    result, error
        That. Of a stream, the result is ``{"items": …}`` and ``items`` are those that its reader got.
    """

    task: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    timeout: float | None = None
    idempotent: bool = False
    ended: bool = False
    result: Any = None
    error: BaseException | None = None
    items: list[Any] = field(default_factory=list)
    find: Find | None = field(default=None, repr=False)

    @property
    def arguments(self) -> dict[str, Any]:
        """The arguments by their parameters' names. Raises ``LookupError`` where the task is not imported here."""
        task = (self.find or known_task)(self.task)
        if task is None:
            raise LookupError(f"the task {self.task!r} is in no module that is imported: use args and kwargs")
        positional, named = task.binder.bind(list(self.args) or self.kwargs)
        return dict(inspect.signature(task.function).bind(*positional, **named).arguments)


@dataclass
class _Rule:
    """What is to become of the next ``left`` calls (None: all) of the task with one of these names (None: any)."""

    tasks: tuple[str, ...] | None
    left: int | None
    seconds: float = 0.0
    outcome: Callable[[], tuple[Any, BaseException | None]] | None = None


@dataclass(frozen=True)
class Plan:
    """What is to become of a call: when its answer comes at the soonest, and which, if not its own."""

    seconds: float
    outcome: tuple[Any, BaseException | None] | None


class Calls:
    """The calls of a program while a test looks on, and what is to become of the next ones.

    All of its clients' calls, from all of its threads and greenlets; not those of other processes. ``times``, in what
    follows, is how many calls are meant: 1, the next one, unless it says otherwise; None, all of them from now on, of
    which the newest holds, after what is meant for the next ones only.

    A task's name that no task has is a ``LookupError``, which names close ones. Where calls go to whichever server,
    that may have tasks which are not imported here: then it is one only where there are close names.
    """

    def __init__(self, find: Find | None = None, names: Callable[[], set[str]] | None = None) -> None:
        self.find = find
        self._names = names  # all that there are; None: there may be others than those that are imported
        self._calls: deque[RecordedCall] = deque(maxlen=MOST_CALLS)
        self._rules: list[_Rule] = []
        self._lock = allocate_lock()  # guards the rules: two threads' calls must not take the same one

    def __repr__(self) -> str:
        return f"<{len(self._calls)} calls>"

    @property
    def calls(self) -> list[RecordedCall]:
        """All calls so far, in the order in which they were made; of very many, the newest 10,000."""
        return list(self._calls)

    def calls_to(self, task: Task[..., Any] | str) -> list[RecordedCall]:
        """The calls of one task so far.

        >>> [call] = calls.calls_to(send_mail)                # doctest: +SKIP
        >>> call.arguments["to"]                              # doctest: +SKIP
        'you@example.org'
        """
        self._check(task)
        found = [call for call in self._calls if call.task in (_names(task) or ())]
        if isinstance(task, Task):
            for call in found:
                call.find = lambda _: task
        return found

    def lose_worker(self, task: Task[..., Any] | str | None = None, *, times: int | None = 1) -> None:
        """Calls end as where the process dies that runs them: with ``WorkerLost``.

        One that is idempotent is made again, as a client does by itself.
        """
        self._check(task)
        lost = WorkerLost("the process was lost (a test's doing)")
        self._add(_Rule(_names(task), times, outcome=partial(_raised, lost)))

    def refuse(
        self, task: Task[..., Any] | str | None = None, *, times: int | None = 1, error: CallError | None = None
    ) -> None:
        """Calls are refused, with ``Overloaded`` unless another ``error`` is given; their tasks don't run."""
        self._check(task)
        given = error or Overloaded("too many calls in flight (a test's doing)")
        self._add(_Rule(_names(task), times, outcome=partial(_raised, given)))

    def delay(self, task: Task[..., Any] | str | None, seconds: float, *, times: int | None = 1) -> None:
        """Calls take ``seconds`` at least: nothing is heard of them before. Whose timeout is less is out of time."""
        if not 0 < seconds < float("inf"):
            raise ValueError(f"a delay is in seconds above 0, not {seconds!r}")
        self._check(task)
        self._add(_Rule(_names(task), times, seconds=seconds))

    def answer(self, task: Task[..., Any] | str, result: Any, *, times: int | None = None) -> None:
        """Calls (all of them, unless ``times`` says otherwise) have this result, or raise it where it is an exception.

        Their task doesn't run, and need not be here.
        """
        if isinstance(result, BaseException):
            self._add(_Rule(_names(task), times, outcome=partial(_raised, result)))
        else:
            told = dumps(result)  # raises where JSON can't carry it
            self._add(_Rule(_names(task), times, outcome=lambda: (loads(told), None)))

    def clear(self) -> None:
        """Forget the calls so far, and what was to become of the next ones."""
        with self._lock:
            self._calls.clear()
            self._rules.clear()

    def _check(self, task: Task[..., Any] | str | None) -> None:
        """Raise ``LookupError`` for a name that is none. One that was called or answered here is one."""
        if not isinstance(task, str) or task.startswith(_OWN) or any(call.task == task for call in self._calls):
            return
        if any(task in (rule.tasks or ()) for rule in list(self._rules)):
            return
        names = imported_names() if self._names is None else self._names()
        close = difflib.get_close_matches(task, names, n=3)
        if task not in names and (close or self._names is not None):
            hint = f"; did you mean {' or '.join(map(repr, close))}?" if close else ""
            raise LookupError(f"no task is named {task!r}{hint}")

    def _add(self, rule: _Rule) -> None:
        if rule.left is not None and rule.left < 1:
            raise ValueError(f"times is at least 1, or None for all calls, not {rule.left}")
        with self._lock:
            # Behind those for some calls, before those for all: so these don't hide what is said later.
            place = next((place for place, other in enumerate(self._rules) if other.left is None), len(self._rules))
            self._rules.insert(place, rule)

    # ---- For what carries them

    def record(self, call: RecordedCall) -> None:
        """It was made."""
        self._calls.append(call)

    def plan(self, name: str) -> Plan:
        """What becomes of a call of that task; what was meant for the next one is used up."""
        with self._lock:
            delay = self._take(name, lambda rule: rule.outcome is None)
            fault = self._take(name, lambda rule: rule.outcome is not None)
        outcome = fault.outcome() if fault is not None and fault.outcome is not None else None
        return Plan(0.0 if delay is None else delay.seconds, outcome)

    def _take(self, name: str, fits: Callable[[_Rule], bool]) -> _Rule | None:
        for rule in self._rules:
            if (rule.tasks is None or name in rule.tasks) and fits(rule):
                if rule.left is not None:
                    rule.left -= 1
                    if not rule.left:
                        self._rules.remove(rule)
                return rule
        return None


def _raised(error: BaseException) -> tuple[None, Exception]:
    """What a client makes of an error that was raised on a server."""
    return None, from_wire(refusal(error) if isinstance(error, CallError) else describe(error))


def _names(task: Task[..., Any] | str | None) -> tuple[str, ...] | None:
    """What it may be called by on the wire."""
    if isinstance(task, Task):
        return task.name, task.target
    return None if task is None else (task,)
