"""What a call asks to be enqueued, as a queue takes it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from itertools import count
from typing import Any

from ..errors import InvalidArguments
from ..tasks.registry import Tasks
from ..tasks.singletons import singleton_key
from ..tasks.task import Task
from ..wire.chain import Chain as WireChain
from ..wire.enqueue import Enqueue, decode_enqueue
from ..wire.json import dumps
from ..wire.message import Args
from .interface import Fan, Message, Step

__all__ = ["chain_of", "count_steps", "message_of", "messages_of", "step_of"]

_FEW = 64  # items of a batch that are looked at in one step


def messages_of(
    task: Task[..., Any], batch: Sequence[Args | None], options: Enqueue
) -> Generator[None, None, list[Message]]:
    """Those of a batch, in steps between which others may run."""
    messages = []
    for number, item in enumerate(batch):
        try:
            task.binder.bind(item)
        except InvalidArguments as error:
            raise InvalidArguments(f"item {number} of the {len(batch)}, from 0 on: {error}") from None
        messages.append(message_of(task, dumps({"args": item}), item, options))
        if number % _FEW == _FEW - 1:
            yield
    return messages


def message_of(task: Task[..., Any], payload: bytes, args: Args | None, options: Enqueue) -> Message:
    singleton = options.singleton
    if singleton is None and task.singleton is not None:
        singleton = singleton_key(task.singleton, task.binder, args)
    return Message(
        task.name,
        payload,
        task.priority if options.priority is None else options.priority,
        options.delay or 0.0,
        options.at,
        options.key,
        options.retries,
        task.ttl if options.ttl is None else options.ttl,
        options.key_ttl,
        singleton,
    )


def count_steps(tasks: Tasks, chain: WireChain) -> Counter[Task[..., Any]]:
    """How many steps of a chain there are of each task. Raises ``UnknownTask``."""
    counts: Counter[Task[..., Any]] = Counter()
    for given in chain:
        if "group" in given:
            for inner in given["group"]:
                counts += count_steps(tasks, inner)
        else:
            counts[tasks.find(given["function"])] += 1
    return counts


def chain_of(
    tasks: Tasks, chain: WireChain, *, is_first: bool = False, counter: Iterator[int] | None = None
) -> Generator[None, None, list[Step | Fan]]:
    """The steps of a chain that was checked, in steps between which others may run.

    Raises ``UnknownTask`` and ``InvalidArguments``. ``is_first``: nothing comes before it, and so its first steps take
    nothing.
    """
    steps: list[Step | Fan] = []
    counter = counter or count(1)
    for given in chain:
        if "group" in given:
            chains = []
            for inner in given["group"]:
                chains.append((yield from chain_of(tasks, inner, is_first=is_first, counter=counter)))
            steps.append(Fan(chains))
        else:
            task, options = tasks.find(given["function"]), decode_enqueue(given.get("enqueue") or True)
            assert options is not None
            takes, errors = given.get("takes", True) and not is_first, given.get("errors", False)
            steps.append(step_of(task, given.get("args"), options, takes=takes, errors=errors))
            if next(counter) % _FEW == 0:
                yield
        is_first = False
    return steps


def step_of(task: Task[..., Any], args: Args | None, options: Enqueue, *, takes: bool, errors: bool) -> Step:
    """One that waits for another, and takes what comes of that as its first argument."""
    where: bool | str = takes
    if takes and isinstance(args, dict):
        name = next(iter(task.binder.name_positionals((None,)) or ()), None)
        if name is None or name in args:
            raise InvalidArguments(
                f"{task.binder.text}: the first argument is what comes of the task before: pass the others "
                + ("as an array" if name is None else f"without {name!r}")
            )
        where, args = name, {name: None, **args}
    elif takes:
        args = [None, *(args or ())]
    task.binder.bind(args)
    return Step(message_of(task, dumps({"args": args}), args, options), where, errors)
