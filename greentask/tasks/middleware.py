"""Middleware: what is to happen around calls and tasks, in a server and in its task processes.

A *call* is what a client sends, as the server sees it come and end. A *task* is the function that runs for it, in a
greenlet of the server or in a task process. The hooks have their order from the life of both::

    server_started
        process_started                     in each task process
        before_call                         in the server
            before_task                     in the greenlet or the process that runs the function
            task_failed                     there, where it raised
            after_task                      there
        call_failed                         in the server, where it has no result
        after_call                          in the server
        process_stopped
    server_stopped
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import logging
import pickle
import re
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeVar

from ..errors import (
    PROTOCOL_TYPES,
    CallError,
    CancelRequest,
    ConfigurationError,
    Interrupt,
    TimeLimit,
    refusal,
)

if TYPE_CHECKING:
    from ..server.server import Server

__all__ = [
    "CallInfo",
    "Hooks",
    "Middleware",
    "Outcome",
    "Refused",
    "error_of",
    "find_middleware",
    "load_middleware",
    "outcome_of",
    "pack",
]

logger = logging.getLogger(__name__)

T = TypeVar("T")

#: How a call or a task ended. ``refused``: it did not run. ``lost``: its process died.
Outcome = Literal["done", "failed", "refused", "cancelled", "out of time", "lost"]


class CallInfo(NamedTuple):
    """One call, as hooks see it: what can't be changed, and ``state``, which can.

    task, id
        The task's name, and the call's id as its caller chose it.
    item
        Which item of a batch it is; None: no batch, or in a task process.
    peer
        Who called, ``host:port``; None in a task process.
    where, group
        ``"server"`` or ``"process"``: where the hook runs; and the group of task processes in which the task does,
        None for a greenlet.
    began
        On ``time.monotonic()``: when the call came, or the task began, respectively.
    state
        For hooks to keep things in, from those before to those after. The hooks of a call and those of its task share
        it where the task runs in a greenlet.
    duration
        Seconds since ``began``; None before the end.
    outcome, error
        How it ended, and the error object that its caller gets: ``{"type": …, "message": …}``. None before the end.
    enqueues
        How many durable tasks of this name the call asks to be enqueued, without running them; 0: it runs. Each attempt
        at a durable task is a call of its own later, whose ``peer`` is ``"queue"``.
    """

    task: str
    id: str | int | None
    item: int | None
    peer: str | None
    where: Literal["server", "process"]
    group: str | None
    began: float
    state: dict[str, Any]
    duration: float | None = None
    outcome: Outcome | None = None
    error: dict[str, Any] | None = None
    enqueues: int = 0

    def ended(self, outcome: Outcome, error: dict[str, Any] | None = None) -> CallInfo:
        """The same, at its end."""
        return self._replace(duration=time.monotonic() - self.began, outcome=outcome, error=error)


class Middleware:
    """The base of what hangs on the hooks. All of them do nothing; those that a subclass has cost something.

    Hooks that begin something run in the order in which the middleware is given, those that end something in the
    reverse order. What a hook raises is logged, and everything goes on, with two exceptions: a ``CallError`` from
    ``before_call`` or ``before_task`` refuses the call, whose caller gets it, and a ``ConfigurationError`` from
    ``server_started`` ends the start. The hooks of a call run on the server's
    loop, where they must neither compute nor wait; those of a task run where it does.

    >>> class Slow(Middleware):
    ...     def after_call(self, call):
    ...         if call.duration > 10:
    ...             print(f"{call.task} took {call.duration:.1f} s")
    """

    def server_started(self, server: Server) -> None:
        """In the server, when it listens and its task processes are ready.

        A ``ConfigurationError`` ends the start: for what a server is not to be without, such as an address of its own.
        """

    def process_started(self, group: str) -> None:
        """In each task process, before its first task."""

    def before_call(self, call: CallInfo) -> None:
        """In the server: a call has come. It may have to wait before its task runs, or be enqueued (``enqueues``)."""

    def before_task(self, call: CallInfo) -> None:
        """In the greenlet or the process that is to run the function: it runs now."""

    def task_failed(self, call: CallInfo, error: BaseException) -> None:
        """There: it raised. ``TimeLimit`` and ``CancelRequest`` are out of time and cancelled."""

    def after_task(self, call: CallInfo) -> None:
        """There: it has ended, one way or another. Not told where the process dies."""

    def call_failed(self, call: CallInfo) -> None:
        """In the server: the call has ended without a result."""

    def after_call(self, call: CallInfo) -> None:
        """In the server: the call has ended, one way or another, and its caller is answered. Once for each call."""

    def process_stopped(self, group: str) -> None:
        """In a task process that ends in good order: by ``max_tasks``, a restart or the server's stop."""

    def server_stopped(self, server: Server) -> None:
        """In the server, when everything has ended."""


_BEGIN = ("server_started", "process_started", "before_call", "before_task")
_END = ("task_failed", "after_task", "call_failed", "after_call", "process_stopped", "server_stopped")
_OF_CALLS = ("before_call", "call_failed", "after_call")
_OF_TASKS = ("before_task", "task_failed", "after_task")
_OF_PROCESSES = ("process_started", *_OF_TASKS, "process_stopped")


class Refused(Exception):
    """A hook refuses the call; ``error`` is for the caller."""

    def __init__(self, error: CallError) -> None:
        super().__init__(error)
        self.error = error


class Hooks:
    """The hooks that some middleware has, by name, each list in the order in which they run."""

    __slots__ = (*_BEGIN, *_END, "watch_calls", "watch_tasks")

    server_started: list[Callable[[Server], object]]
    process_started: list[Callable[[str], object]]
    before_call: list[Callable[[CallInfo], object]]
    before_task: list[Callable[[CallInfo], object]]
    task_failed: list[Callable[[CallInfo, BaseException], object]]
    after_task: list[Callable[[CallInfo], object]]
    call_failed: list[Callable[[CallInfo], object]]
    after_call: list[Callable[[CallInfo], object]]
    process_stopped: list[Callable[[str], object]]
    server_stopped: list[Callable[[Server], object]]

    def __init__(self, middleware: Iterable[Middleware] = ()) -> None:
        middleware = list(middleware)
        for name in _BEGIN:
            setattr(self, name, [getattr(one, name) for one in middleware if _has(one, name)])
        for name in _END:
            setattr(self, name, [getattr(one, name) for one in reversed(middleware) if _has(one, name)])
        self.watch_tasks = any(getattr(self, name) for name in _OF_TASKS)
        self.watch_calls = self.watch_tasks or any(getattr(self, name) for name in _OF_CALLS)

    def ask(self, hooks: list[Callable[[CallInfo], object]], call: CallInfo) -> None:
        """Run hooks that may refuse the call. Raises ``Refused``."""
        for hook in hooks:
            try:
                hook(call)
            except CallError as error:
                raise Refused(error) from None
            except Interrupt:
                raise
            except BaseException:
                _log(hook)

    def begin(self, server: Server) -> None:
        """Tell of the server's start. Raises the ``ConfigurationError`` of one that won't have it."""
        for hook in self.server_started:
            try:
                hook(server)
            except ConfigurationError:
                raise
            except BaseException:
                _log(hook)

    def tell(self, hooks: list[Callable[..., object]], *what: object) -> None:
        """Run all of these hooks, whatever they raise. Raises ``Interrupt`` at the end, where one was interrupted."""
        interrupt = None
        for hook in hooks:
            try:
                hook(*what)
            except Interrupt as error:
                interrupt = error
            except BaseException:
                _log(hook)
        if interrupt is not None:
            raise interrupt

    def around(self, call: CallInfo, run: Callable[[], T], told: Callable[[BaseException], dict[str, Any]]) -> T:
        """Run a task with its hooks around it; ``told`` makes the error object of what it raises."""
        with self.watching(call, told):
            return run()

    @contextlib.contextmanager
    def watching(self, call: CallInfo, told: Callable[[BaseException], dict[str, Any]]) -> Iterator[None]:
        """The same, around what is inside."""
        call = call._replace(began=time.monotonic())
        try:
            self.ask(self.before_task, call)
            yield
        except BaseException as error:
            ended = call.ended(_outcome_of_raised(error), told(error))
            try:
                if ended.outcome != "refused":
                    self.tell(self.task_failed, ended, error)
            finally:
                self.tell(self.after_task, ended)
            raise
        if self.after_task:
            self.tell(self.after_task, call.ended("done"))


def load_middleware(given: str | Middleware) -> Middleware:
    """What was given, or is at ``package.module:object``; a class there is called. Raises ``ConfigurationError``."""
    found: Any = find_middleware(given) if isinstance(given, str) else given
    if isinstance(given, str) and isinstance(found, type):
        found = found()
    if not isinstance(found, Middleware):
        remedy = f"; give an object, as {found.__name__}()" if isinstance(found, type) else ""
        raise ConfigurationError(f"middleware {given!r:.200} is no greentask.Middleware{remedy}")
    for name in (*_BEGIN, *_END):
        if inspect.iscoroutinefunction(getattr(found, name)):
            raise ConfigurationError(
                f"{name} of middleware {found!r:.200} is a coroutine function, and nobody awaits it"
            )
    return found


def find_middleware(name: str) -> Any:
    """What is at ``package.module:object``: a middleware, or its class. Raises ``ConfigurationError``."""
    module_name, _, path = name.partition(":")
    if not (module_name and path):
        raise ConfigurationError(f"middleware {name!r}: write package.module:object")
    try:
        found: Any = importlib.import_module(module_name)
        for part in path.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        if error.name is None or not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise
        raise ConfigurationError(f"middleware {name!r}: there is no module {error.name!r}") from None
    except AttributeError:
        raise ConfigurationError(f"middleware {name!r}: {module_name} has no {path!r}") from None
    if not (issubclass(found, Middleware) if isinstance(found, type) else isinstance(found, Middleware)):
        raise ConfigurationError(f"middleware {name!r} is no greentask.Middleware, but {found!r:.200}")
    return found


def pack(given: str | Middleware) -> str | bytes | None:
    """A middleware as task processes get it; None where it has nothing to do there. Raises ``ConfigurationError``.

    By its name where it was given by name. Otherwise as a copy, which is pickled, as between a program and the
    processes that it starts.
    """
    if not any(_has(find_middleware(given) if isinstance(given, str) else given, name) for name in _OF_PROCESSES):
        return None
    if isinstance(given, str):
        return given
    remedy = "give its name instead, 'package.module:object'"
    if type(given).__module__ == "__main__":
        raise ConfigurationError(
            f"{given!r} is for task processes as well, and they can't import the program that was started "
            f"(__main__): move its class to a module of its own, and {remedy}"
        )
    try:
        return pickle.dumps(given)
    except Exception as error:
        raise ConfigurationError(f"{given!r} can't be copied to task processes ({error}): {remedy}") from None


def outcome_of(error: CallError | bytes) -> Outcome:
    """How a call ended that has this error: one of ours, or the error object's JSON as the task's execution made it."""
    if isinstance(error, CallError):
        name = error.type
    else:
        found = _TYPE.match(error)
        name = found[1].decode() if found else ""
        if name not in PROTOCOL_TYPES:  # a task's own errors never have such a name
            return "failed"
    return _OUTCOMES.get(name, "refused")


def error_of(error: CallError | bytes) -> dict[str, Any]:
    """The error object of a call that ended with it. What is very long is cut short."""
    if isinstance(error, CallError):
        return refusal(error)
    if len(error) <= _LONG:
        told: dict[str, Any] = json.loads(error)
        return told
    found = _TYPE.match(error)
    return {
        "type": json.loads(b'"' + found[1] + b'"') if found else "",
        "message": error[found.end() if found else 0 : _LONG].decode("utf-8", "replace") + "…",
    }


_LONG = 64 * 1024  # bytes
_TYPE = re.compile(rb'\{"type":"((?:[^"\\]|\\.)*)"(?:,"message":")?')
_OUTCOMES: dict[str, Outcome] = {
    "DeadlineExceeded": "out of time",
    "Cancelled": "cancelled",
    "WorkerLost": "lost",
    "InvalidResult": "failed",
    "TaskError": "failed",
}


def _outcome_of_raised(error: BaseException) -> Outcome:
    if isinstance(error, Refused):
        return "refused"
    if isinstance(error, TimeLimit):
        return "out of time"
    return "cancelled" if isinstance(error, CancelRequest) else "failed"


def _has(middleware: Middleware | type[Middleware], name: str) -> bool:
    hook = getattr(middleware, name)
    return getattr(hook, "__func__", hook) is not getattr(Middleware, name)


def _log(hook: Callable[..., object]) -> None:
    name = getattr(hook, "__qualname__", repr(hook))
    logger.exception("the hook %s failed", name)
