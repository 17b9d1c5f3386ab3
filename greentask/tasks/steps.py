"""What follows a durable task: ``Step``, and ``Fan`` for several beside one another."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from .checks import in_seconds
from .task import Task, merge_arguments

__all__ = ["Fan", "Step", "Steps", "wire_chain"]


class Step:
    """A task to be enqueued when the one before it has ended, with its result as the first argument.

    takes
        Whether it takes that; of a group it is a list.
    errors
        Whether it is enqueued also where something before it has failed. What it takes is then
        ``{"result": …}`` or ``{"error": {"type", "message"}}``. Otherwise it fails as well, with that error.

    >>> report.using(then=Step(send_mail, to="boss@example.org")).enqueue(2026)         # doctest: +SKIP
    """

    def __init__(self, function: str | Task[..., Any], /, *args: Any, **kwargs: Any) -> None:
        if not isinstance(function, (str, Task)):
            raise TypeError(f"a step is a @task or the name of one, with its arguments, not {_told(function)}")
        name, binder = (function, None) if isinstance(function, str) else (function.name, function.binder)
        if args and kwargs:  # the wire doesn't mix them: all by name, but for the first
            named = merge_arguments((None, *args), kwargs, binder)
            assert isinstance(named, dict)
            given: Any = dict(list(named.items())[1:])
        else:
            given = list(args) if args else kwargs
        self._wire: dict[str, Any] = {"function": name, "args": given} if given else {"function": name}

    def __repr__(self) -> str:
        return f"<Step {self._wire['function']}>"

    def using(
        self,
        *,
        takes: bool = True,
        errors: bool = False,
        delay: float | timedelta | None = None,
        priority: int | None = None,
        retries: int | None = None,
        ttl: float | timedelta | None = None,
    ) -> Step:
        """The same step, with these options. ``delay`` and ``ttl``, in seconds (or a ``timedelta``), begin when it is
        enqueued.

        >>> Step("clean_up").using(takes=False, errors=True)
        <Step clean_up>
        """
        options = {"delay": in_seconds(delay), "priority": priority, "retries": retries, "ttl": in_seconds(ttl)}
        said = {name: value for name, value in options.items() if value is not None}
        other = Step.__new__(Step)
        other._wire = {**self._wire, "takes": takes, "errors": errors, **({"enqueue": said} if said else {})}
        return other


class Fan:
    """Steps (or lists of them) that run beside one another. What follows takes a list of their results.

    >>> collect.using(then=[Fan(Step(plot), Step(count)), Step(publish)]).enqueue()      # doctest: +SKIP
    """

    def __init__(self, *chains: Steps) -> None:
        if not chains:
            raise ValueError("a fan has at least one step")
        self._wire = {"group": [wire_chain(chain) for chain in chains]}

    def __repr__(self) -> str:
        return f"<Fan of {len(self._wire['group'])}>"


def _told(given: object) -> str:
    """What was given in place of a task."""
    return f"{given!r:.200}" + ": say several with using(then=…)" * isinstance(given, (Fan, Step, list, tuple))


#: One, or several of which each follows the one before it.
Steps = Step | Fan | Iterable[Step | Fan]


def wire_chain(steps: Any) -> list[dict[str, Any]]:
    """``Steps``, as the wire has them. Raises ``TypeError`` for what are none."""
    chain = list(steps) if isinstance(steps, Iterable) and not isinstance(steps, str) else [steps]
    for step in chain:
        if not isinstance(step, (Step, Fan)):
            raise TypeError(f"what follows is a Step or a Fan, not {step!r:.80}: write Step(task, arguments)")
    return [step._wire for step in chain]
