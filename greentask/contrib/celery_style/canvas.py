"""Tasks put together: ``chain``, ``group`` and ``chord``."""

from __future__ import annotations

import itertools
import uuid
from collections.abc import Iterable
from functools import partial
from typing import Any

from .durable import Durable
from .exceptions import ChordError, NotCarriedOver
from .result import GroupResult, Result
from .signature import Canvas, Plan, Signature, go_on, maybe_signature, signature
from .transport import Transport

__all__ = ["Signature", "chain", "chord", "chunks", "group", "linked", "maybe_signature", "nested", "signature"]


class chain(Canvas):
    """Tasks one after another, each with the result of the one before it. Behind a group, with all its results.

    Its result is the last one's; ``parent`` leads to those before it.
    """

    def __init__(self, *tasks: Any) -> None:
        given = _members(tasks)
        self.tasks: tuple[Canvas, ...] = tuple(
            one for task in map(_unrolled, given) for one in (task.tasks if isinstance(task, chain) else (task,))
        )
        if not self.tasks:
            raise ValueError("a chain has at least one task")

    def __repr__(self) -> str:
        return " | ".join(map(repr, self.tasks))

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.apply_async(args, kwargs)

    def clone(self) -> chain:
        """A copy of it."""
        return self._of(task.clone() for task in self.tasks)

    def with_options(self, options: dict[str, Any]) -> chain:
        """A copy of it whose first task has these options."""
        first, *others = self.tasks
        return self._of([_with(first, options, self), *others])

    @classmethod
    def _of(cls, tasks: Iterable[Canvas]) -> chain:
        """Of these tasks as they are."""
        made = cls.__new__(cls)
        made.tasks = tuple(tasks)
        return made

    def transport(self, *, eager: bool = False) -> Transport | Durable:
        """That of its first task."""
        return self.tasks[0].transport(eager=eager)

    def plan(self, transport: Transport) -> Plan:
        """All its tasks, of which the first is started."""
        plans = [task.plan(transport) for task in self.tasks]
        for before, after in itertools.pairwise(plans):
            after.result.parent = before.result
            before.result.when_done(partial(_go_on_behind, before.result, after))

        def fail(error: Exception) -> None:
            plans[0].fail(error)  # and so the others

        return Plan(plans[-1].result, plans[0].start, fail)


def _go_on_behind(before: Result, after: Plan, value: Any, error: BaseException | None) -> None:
    if error is not None and isinstance(before, GroupResult):
        failed = ChordError(f"a task before it failed: {type(error).__name__}: {error}")
        failed.__cause__ = error
        error = failed
    go_on(after, value, error)


class group(Canvas):
    """Tasks beside one another. Its result is a ``GroupResult``."""

    def __init__(self, *tasks: Any) -> None:
        given = _members(tasks)
        self.tasks: tuple[Canvas, ...] = tuple(
            one for task in given for one in (task.tasks if type(task) is group else (task,))
        )

    def __repr__(self) -> str:
        return f"group({', '.join(map(repr, self.tasks))})"

    def __len__(self) -> int:
        return len(self.tasks)

    def __or__(self, other: object) -> chain:
        # What follows takes a list, also of one: only as a later part of a chain it is that one, as in Celery.
        return chain._of([self, *chain(other).tasks]) if isinstance(other, Canvas) else NotImplemented

    def __call__(self, *args: Any, **options: Any) -> GroupResult:
        return self.apply_async(args, **options)  # type: ignore[no-any-return]

    def clone(self) -> group:
        """A copy of it."""
        return type(self)(*(task.clone() for task in self.tasks))

    def with_options(self, options: dict[str, Any]) -> group:
        """A copy of it whose tasks all have these options."""
        return type(self)(*(_with(task, options, self) for task in self.tasks))

    def skew(self, start: float = 1.0, stop: float | None = None, step: float = 1.0) -> group:
        """Have its tasks wait: the first for ``start`` seconds, each for ``step`` more, up to ``stop`` at most."""
        delays = itertools.count(start, step)
        self.tasks = tuple(
            _with(task, {"countdown": delay if stop is None else min(delay, stop)}, self)
            for task, delay in zip(self.tasks, delays, strict=False)
        )
        return self

    def transport(self, *, eager: bool = False) -> Transport | Durable:
        """That of its first task."""
        from .app import current_app

        return self.tasks[0].transport(eager=eager) if self.tasks else current_app().transport(eager=eager)

    def plan(self, transport: Transport) -> Plan:
        """All its tasks, each started with the same arguments."""
        plans = [task.plan(transport) for task in self.tasks]

        def start(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            for plan in plans:
                plan.start(args, kwargs)

        def fail(error: Exception) -> None:
            for plan in plans:
                plan.fail(error)

        return Plan(GroupResult(str(uuid.uuid4()), [plan.result for plan in plans]), start, fail)


class nested(group):
    """A group in a group, whose result is a list there."""


class chunks(group):
    """What a task's ``chunks`` gives: a group of groups."""

    def group(self) -> group:
        """As a group."""
        return group(*self.tasks)


class chord(Canvas):
    """A body that is called with the results of all of a header's tasks: ``chord(header)(body)``.

    Its result is the body's; where a task of the header fails, a ``ChordError``.
    """

    def __init__(self, header: Any, body: Canvas | None = None) -> None:
        self.header = header if isinstance(header, group) else group(header)
        self.body = body

    def __repr__(self) -> str:
        return f"chord({self.header!r}, {self.body!r})"

    def __call__(self, body: Canvas | None = None, **options: Any) -> Any:
        return (self if body is None else chord(self.header, body)).apply_async(**options)

    def clone(self) -> chord:
        """A copy of it."""
        return chord(self.header.clone(), None if self.body is None else self.body.clone())

    def transport(self, *, eager: bool = False) -> Transport | Durable:
        """That of its body."""
        return self.as_chain().transport(eager=eager)

    def plan(self, transport: Transport) -> Plan:
        """The header, and the body behind it."""
        return self.as_chain().plan(transport)

    def as_chain(self) -> chain:
        """The header, and the body behind it."""
        if self.body is None:
            raise TypeError(f"{self!r} has no body: chord(header)(body)")
        return chain._of([self.header, *chain(self.body).tasks])  # the header stays a group, also of one


#: Options that what is first in a canvas may have.
_FIRST = frozenset({"countdown", "eta", "expires"})


def _with(task: Canvas, options: dict[str, Any], whole: Canvas) -> Canvas:
    """A copy of it with these options, which were given to the whole that it is part of."""
    for name in options.keys() - _FIRST:
        raise NotCarriedOver(f"{name}= of a {type(whole).__name__}: give it to its tasks, with .set({name}=…)")
    return task.with_options(options)


def _unrolled(task: Canvas) -> Canvas:
    """In a chain a group of one is that one, as in Celery."""
    return task.tasks[0] if type(task) is group and len(task.tasks) == 1 else task


def _members(tasks: tuple[Any, ...]) -> tuple[Canvas, ...]:
    given = tuple(tasks[0]) if len(tasks) == 1 and not isinstance(tasks[0], Canvas) else tasks
    for task in given:
        if not isinstance(task, Canvas):
            raise TypeError(f"{task!r:.80} is no signature: write task.s(arguments)")
    return given


def linked(links: tuple[Canvas, ...]) -> tuple[Canvas, ...]:
    """What is linked to a task, as Celery sends it: several are a group, but for those that are groups themselves."""
    if len(links) < 2:
        return links
    groups = [link for link in links if isinstance(link, group)]
    others = [link for link in links if not isinstance(link, group)]
    return (*groups, group(*others)) if others else tuple(groups)
