"""What can be sent: ``Canvas``, and ``Signature``, one call of a task.

A server's queue keeps a canvas as a whole (``composed``). Otherwise it is planned first, so that there are results to
hold of tasks which are not sent yet; then it is started. What follows on a task's end is done in this program then (in
the thread of its I/O), and ends with it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from .durable import Durable
from .exceptions import NotCarriedOver
from .members import refuse_member
from .message import Message, check_args, check_options, make_message
from .result import AsyncResult, EagerResult, Result
from .transport import Eager, Transport

if TYPE_CHECKING:
    from .app import Celery
    from .canvas import chain
    from .task import CeleryTask

__all__ = ["Canvas", "Plan", "Signature", "go_on", "maybe_signature", "signature"]

_Args = tuple[Any, ...]


@dataclass(frozen=True)
class Plan:
    """What is to be sent: its result, how to start it with arguments, and how to tell that it won't be."""

    result: Result
    start: Callable[[_Args, dict[str, Any]], None]
    fail: Callable[[Exception], None]


class Canvas(ABC):
    """What can be sent: a signature, chain, group or chord."""

    @abstractmethod
    def transport(self, *, eager: bool = False) -> Transport | Durable:
        """What sends it."""

    @abstractmethod
    def plan(self, transport: Transport) -> Plan:
        """Make the results of what is going to be sent. Raises ``NotCarriedOver`` for what can't be."""

    @abstractmethod
    def clone(self) -> Any:
        """A copy of it, which can be changed."""

    def __getattr__(self, name: str) -> Any:
        return refuse_member("signature", name, self)

    def apply_async(
        self, args: Iterable[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> Any:
        """Send it, with these arguments before its own.

        ``countdown``, ``eta`` and ``expires`` are for what is first in it: of a group, for all its tasks.
        """
        given = {name: value for name, value in options.items() if value is not None}
        canvas = self.with_options(given) if given else self
        return canvas._run(canvas.transport(), tuple(args or ()), kwargs)

    def with_options(self, options: dict[str, Any]) -> Canvas:
        """A copy of it, with these options for what is first; ``NotCarriedOver`` for those that it can't have."""
        for name in options:
            raise NotCarriedOver(f"{name}= of a {type(self).__name__}: give it to its tasks, with .set({name}=…)")
        return self

    def delay(self, *args: Any, **kwargs: Any) -> Any:
        """``apply_async``, with the arguments as they are."""
        return self.apply_async(args, kwargs)

    def apply(self, args: Iterable[Any] = (), kwargs: dict[str, Any] | None = None, throw: bool = False) -> Any:
        """Run it here and now. With ``throw`` an error is raised here, otherwise by the result's ``get``."""
        result = self._run(self.transport(eager=True), tuple(args), kwargs)
        if throw:
            result.get()
        return result

    def _run(self, transport: Transport | Durable, args: _Args, kwargs: dict[str, Any] | None) -> Result:
        if isinstance(transport, Durable):
            from .composed import compose

            return compose(transport.client, self, args, kwargs or {})
        plan = self.plan(transport)
        plan.start(args, kwargs or {})
        return plan.result

    def __or__(self, other: object) -> chain:
        from .canvas import chain

        return chain(self, other) if isinstance(other, Canvas) else NotImplemented

    def __invert__(self) -> Any:
        return self.apply_async().get()


class Signature(Canvas):
    """One call of a task, with some or all of its arguments.

    Arguments that come with ``delay`` and its like, and the result of the task before it in a chain, go before its
    own; with ``immutable`` they are left out. ``options`` are those of ``apply_async``.
    """

    def __init__(
        self,
        task: CeleryTask | str,
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        *,
        immutable: bool = False,
        app: Celery | None = None,
    ) -> None:
        self.task = task if isinstance(task, str) else task.name
        self._task = None if isinstance(task, str) else task
        self._app = app
        self.args = check_args(self.task, args)
        self.kwargs = dict(kwargs or {})
        self.immutable = immutable
        self.options: dict[str, Any] = {}
        self.set(**(options or {}))

    def __repr__(self) -> str:
        shown = [*map(repr, self.args), *(f"{name}={value!r}" for name, value in self.kwargs.items())]
        return f"{self.task}({', '.join(shown)})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and self._parts() == other._parts()

    def __hash__(self) -> int:
        return hash(self.task)

    def _parts(self) -> tuple[Any, ...]:
        return self.task, self.args, self.kwargs, self.options, self.immutable

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = self._merge(args, kwargs)
        return self._known_task()(*args, **kwargs)

    def clone(
        self, args: Iterable[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> Signature:
        """A copy, with these arguments before its own, and more options."""
        merged, named = self._merge(check_args(self.task, args), kwargs or {})
        task: CeleryTask | str = self.task if self._task is None else self._task
        return Signature(task, merged, named, {**self.options, **options}, immutable=self.immutable, app=self._app)

    def with_options(self, options: dict[str, Any]) -> Signature:
        """A copy of it with these options."""
        return self.clone(**options)

    def set(self, immutable: bool | None = None, **options: Any) -> Signature:
        """Give it more options. Raises ``NotCarriedOver`` for one that greentask has not."""
        check_options(self.task, options)
        self.options.update(options)
        self.immutable = self.immutable if immutable is None else immutable
        return self

    def link(self, other: Canvas) -> Canvas:
        """Send ``other``, with the result, when this one has ended well."""
        before = self.options.get("link") or ()
        self.options["link"] = (*(before if isinstance(before, (list, tuple)) else (before,)), other)
        return other

    def transport(self, *, eager: bool = False) -> Transport | Durable:
        """That of its application."""
        return self.app.transport(eager=eager)

    @property
    def app(self) -> Celery:
        """The application that sends it."""
        from .app import current_app

        if self._app is not None:
            return self._app
        return current_app() if self._task is None else self._task.app

    def apply_async(
        self, args: Iterable[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """Send it, with these arguments before its own, and these options."""
        return self.clone(args, kwargs, **options).send()

    def send(self) -> AsyncResult:
        """Send it as it is."""
        message = self.message(self.args, self.kwargs, is_merged=True)
        transport = self.transport()
        if isinstance(transport, Durable):
            return self._run(transport, (), None) if message.link else AsyncResult(transport.send(message))  # type: ignore[return-value]
        result = _kind(transport)(transport.send(message))
        self._send_links(transport, message, result)
        return result

    def plan(self, transport: Transport) -> Plan:
        """One task, for later."""
        planned = make_message(self.task, (), None, self.options)
        transport.check(planned)
        sent = transport.promise(planned)
        result = _kind(transport)(sent)
        self._send_links(transport, planned, result)

        def start(args: _Args, kwargs: dict[str, Any]) -> None:
            if sent.future.cancelled():
                return
            try:
                message = self.message(args, kwargs, task_id=sent.id)
                transport.send(message, into=sent)
            except Exception as error:
                transport.fail(sent, error)

        return Plan(result, start, partial(transport.fail, sent))

    def message(self, args: _Args, kwargs: dict[str, Any], *, is_merged: bool = False, **options: Any) -> Message:
        """What is sent, with these arguments before its own (or, where they are merged already, with no others)."""
        if not is_merged:
            args, kwargs = self._merge(args, kwargs)
        task = self.app.tasks.get(self.task) if self._task is None else self._task
        if task is not None:
            task.check_arguments(args, kwargs)
        return make_message(self.task, args, kwargs, {**self.options, **options}, packed=task is not None)

    def _send_links(self, transport: Transport, message: Message, result: AsyncResult) -> None:
        from .canvas import linked

        for link in linked(message.link):
            plan = link.plan(transport)
            plan.result.parent = result
            result.children.append(plan.result)
            result.when_done(partial(go_on, plan))

    def _merge(self, args: _Args, kwargs: dict[str, Any]) -> tuple[_Args, dict[str, Any]]:
        if self.immutable:
            return self.args, self.kwargs
        return (*args, *self.args), {**self.kwargs, **kwargs}

    def _known_task(self) -> CeleryTask:
        return self.app.find_task(self.task) if self._task is None else self._task


def _kind(transport: Transport) -> type[AsyncResult]:
    return EagerResult if isinstance(transport, Eager) else AsyncResult


def go_on(plan: Plan, value: Any, error: BaseException | None) -> None:
    """Start what comes behind a task that has ended with this value, or this error."""
    if error is None:
        plan.start((value,), {})
    else:
        plan.fail(error if isinstance(error, Exception) else RuntimeError(str(error)))


def signature(
    task: str | Canvas,
    args: Iterable[Any] | None = None,
    kwargs: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    *,
    immutable: bool = False,
    app: Celery | None = None,
    **more: Any,
) -> Any:
    """A signature of the task of that name, or a copy of the one that is given."""
    if isinstance(task, Canvas):
        return task.clone()
    return Signature(task, args, kwargs, {**(options or {}), **more}, immutable=immutable, app=app)


def maybe_signature(given: str | Canvas | None, app: Celery | None = None) -> Any:
    """A signature of what is given, where that is something."""
    return None if given is None else signature(given, app=app)
