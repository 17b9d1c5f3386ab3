"""What follows a durable task, as ``enqueue`` says it: steps one after another, and some beside one another."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

__all__ = ["GROUP", "MOST_STEPS", "Chain", "check_chain", "check_length"]

#: The name that a group has among tasks.
GROUP = "greentask.batch"

#: Steps, as JSON has them: ``{"function": …, "args": …}``, or ``{"group": [chain, …]}``.
Chain = list[dict[str, Any]]

#: Steps of what one line has follow, unless a server is told otherwise.
MOST_STEPS = 10_000
_STEP = frozenset({"function", "args", "takes", "errors", "enqueue"})
_OPTIONS = frozenset({"delay", "priority", "retries", "ttl"})


def check_chain(given: Any, name: str, check_options: Callable[[dict[str, Any]], object]) -> Chain:
    """A chain of at least one step; one step by itself is one, too. Raises ``ValueError``, which says what is wrong.

    ``check_options`` looks at a step's ``enqueue``.
    """
    chain: Chain = [given] if isinstance(given, dict) else given
    if not isinstance(chain, list) or not chain:
        raise ValueError(f"{name} is a step, or an array of at least one")
    for step in chain:
        if not isinstance(step, dict):
            raise ValueError(f"{name} has steps, which are objects, and not {step!r:.80}")
        if "group" in step:
            chains = step["group"]
            if len(step) > 1 or not isinstance(chains, list) or not chains:
                raise ValueError(f"a group in {name} is an array of at least one chain, and nothing else")
            for number, inner in enumerate(chains):
                chains[number] = check_chain(inner, name, check_options)
        else:
            _check_step(step, name, check_options)
    return chain


def check_length(given: Any, name: str, most: int) -> None:
    """Raise ``ValueError`` where it has more steps, those of its groups included: before each of them is looked at."""
    room, left = most, [given]
    while left:
        chain = left.pop()
        if isinstance(chain, dict):
            chain = [chain]  # one step by itself
        elif not isinstance(chain, list):
            continue
        room -= len(chain)
        if room < 0:
            raise ValueError(f"{name} has more than {most:,} steps (max_steps): use several lines")
        for step in chain:
            if isinstance(step, dict) and isinstance(step.get("group"), list):
                left += step["group"]


def _check_step(step: dict[str, Any], name: str, check_options: Callable[[dict[str, Any]], object]) -> None:
    for unknown in sorted(step.keys() - _STEP):
        raise ValueError(f"a step in {name} has no {unknown!r:.80}; it has {', '.join(sorted(_STEP))}, or group")
    if not isinstance(step.get("function"), str):
        raise ValueError(f"a step in {name} has a function, a string")
    if not isinstance(step.get("args"), (list, dict, type(None))):
        raise ValueError(f"args of a step in {name} are an array or an object")
    for member in ("takes", "errors"):
        if not isinstance(step.get(member, False), bool):
            raise ValueError(f"{member} of a step in {name} is true or false")
    options = step.get("enqueue", {})
    if not isinstance(options, dict) or options.keys() - _OPTIONS:
        raise ValueError(f"enqueue of a step in {name} is an object of some of {', '.join(sorted(_OPTIONS))}")
    if options:
        check_options(options)
