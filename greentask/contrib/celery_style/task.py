"""``CeleryTask``: a greentask task that is declared and called as Celery's are."""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterable
from datetime import datetime
from types import MethodType
from typing import TYPE_CHECKING, Any, NoReturn

from ...errors import ConfigurationError, ConnectionLost
from ...tasks.context import current
from ...tasks.retries import Retry
from ...tasks.task import Task
from . import states
from .django import on_commit
from .exceptions import MaxRetriesExceededError, NotCarriedOver
from .members import refuse_member
from .missing import refuse_option
from .request import Request, RequestBinder, current_request, entered, unpack
from .result import AsyncResult, EagerResult
from .retrying import OPTIONS, Retrying
from .signature import Signature

if TYPE_CHECKING:
    from .app import Celery
    from .canvas import chunks, group

__all__ = ["CeleryTask"]

#: Options that ask for what is so in any case.
_HARMLESS = frozenset({"ignore_result", "store_errors_even_if_ignored", "send_events", "throws", "trail", "shared"})


class CeleryTask(Task[..., Any]):
    """A task of a Celery application's, or a shared one.

    ``run`` is its function; with ``bind`` that gets the task as its first argument.
    """

    MaxRetriesExceededError = MaxRetriesExceededError
    OperationalError = ConnectionLost

    def __init__(self, function: Callable[..., Any], app: Celery | None, options: dict[str, Any]) -> None:
        if isinstance(function, Task) or not callable(function):
            raise ConfigurationError(f"a task is a function, not {function!r}")
        name, given = _named(function, app, options)
        self._app = app
        self.run: Callable[..., Any] = MethodType(function, self) if given.pop("bind") else function
        self._retrying = Retrying(**{option: given.pop(option) for option in OPTIONS if option in given})
        self._checks, self._tells_start = given.pop("typing"), given.pop("track_started")
        if inspect.iscoroutinefunction(function):
            raise NotCarriedOver(f"{name} is a coroutine function: declare it with greentask.task(process=True)")
        super().__init__(_server_side(self, name), name=name, timeout=given.pop("time_limit"), **given)
        self.binder: RequestBinder = RequestBinder(self.run, name)
        found = getattr(sys.modules.get(self.function.__module__), self.function.__name__, None)
        if self.process and found is function:
            raise ConfigurationError(
                f"task {name!r}: a task process would find the function, and not the task, as {self.target}: write "
                "@app.task above its definition, or say process=False"
            )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the function here."""
        with entered(Request(called_directly=True)):
            return self.run(*args, **kwargs)

    def __getattr__(self, name: str) -> Any:
        return refuse_member("task", name, self)

    @property
    def app(self) -> Celery:
        """Its application; of a shared task the one that was made last."""
        from .app import current_app

        return current_app() if self._app is None else self._app

    # ---- Calling

    def delay(self, *args: Any, **kwargs: Any) -> AsyncResult:
        """Start it on a server, with these arguments."""
        return self.apply_async(args, kwargs)

    def apply_async(
        self, args: Iterable[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """Start it on a server: ``expires`` (seconds, or a datetime), ``countdown`` (seconds), ``eta`` (a datetime).

        Or with ``task_id`` or ``link``. Raises ``NotCarriedOver`` naming any other option, and ``NeedsQueue`` for
        ``countdown`` and ``eta`` where the server has no queue.
        """
        return self.signature(args, kwargs, **options).apply_async()

    def delay_on_commit(self, *args: Any, **kwargs: Any) -> None:
        """``delay``, when the transaction of a Django project's database is committed, and only then."""
        self.apply_async_on_commit(args, kwargs)

    def apply_async_on_commit(
        self, args: Iterable[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> None:
        """``apply_async`` in the same way. What can't be sent is refused now."""
        on_commit(self.name, self.signature(args, kwargs, **options).apply_async)

    def apply(
        self,
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        throw: bool = False,
        **options: Any,
    ) -> EagerResult:
        """Run it here and now, as a task; the result has its end. With ``throw``, its error is raised."""
        return self.signature(args, kwargs, **options).apply(throw=throw)  # type: ignore[no-any-return]

    def check_arguments(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Raise ``InvalidArguments`` (a ``TypeError``) where they don't fit its signature."""
        if self._checks:
            self.binder.check(args, kwargs)

    def AsyncResult(self, id: str) -> AsyncResult:
        """The result of that id."""
        return AsyncResult(id, app=self.app)

    # ---- Signatures

    def signature(
        self,
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Any,
    ) -> Signature:
        """A call of it that can be sent later, and be part of a canvas."""
        return Signature(self, args, kwargs, options, immutable=immutable)

    subtask = signature

    def s(self, *args: Any, **kwargs: Any) -> Signature:
        """A signature with these arguments."""
        return self.signature(args, kwargs)

    def si(self, *args: Any, **kwargs: Any) -> Signature:
        """A signature with these arguments, and no others before them."""
        return self.signature(args, kwargs, immutable=True)

    def map(self, items: Iterable[Any]) -> group:  # type: ignore[override]
        """A group of calls, one for each item; its results are those of the items."""
        return self.starmap((item,) for item in items)

    def starmap(self, items: Iterable[Iterable[Any]]) -> group:  # type: ignore[override]
        """A group of calls, one for each item, which has its arguments."""
        from .canvas import group

        return group(*(self.s(*item) for item in items))

    def chunks(self, items: Iterable[Iterable[Any]], n: int) -> chunks:
        """Groups of ``n`` calls each, beside one another; their results are lists."""
        from .canvas import chunks, nested

        arguments = [self.s(*item) for item in items]
        return chunks(*(nested(*arguments[start : start + n]) for start in range(0, len(arguments), n)))

    # ---- In a running task

    @property
    def request(self) -> Request:
        """The call that runs here: ``id``, ``args``, ``kwargs``, ``retries`` …"""
        return current_request()

    def update_state(self, task_id: str | None = None, state: str | None = None, meta: Any = None) -> None:
        """Tell who holds the result of the running task how far it is.

        For greentask's own callers it is a progress report: ``current`` or ``done``, and ``total`` of a dict are its
        numbers.
        """
        if task_id not in (None, self.request.id):
            raise NotCarriedOver(f"update_state(task_id={task_id!r}): a task tells of itself only, leave task_id out")
        report = current().report
        if report is not None:
            told = meta if isinstance(meta, dict) else {}
            done = told.get("current", told.get("done", 0))
            total = {"total": told["total"]} if "total" in told else {}
            report({"done": done, **total, "state": state or states.STARTED, "meta": meta})

    @property
    def max_retries(self) -> int | None:
        """How often it is tried again at most; None: there is no end to it."""
        return self._retrying.max_retries

    @property
    def default_retry_delay(self) -> float:
        """Seconds until then, where ``retry`` isn't told."""
        return self._retrying.default_retry_delay

    def retry(
        self,
        args: Any = None,
        kwargs: Any = None,
        exc: Exception | None = None,
        throw: bool = True,
        eta: datetime | None = None,
        countdown: float | None = None,
        max_retries: int | None = None,
        **options: Any,
    ) -> NoReturn:
        """Have the running task be tried again, in ``countdown`` or ``default_retry_delay`` seconds: raises ``Retry``.

        Where it has been tried ``max_retries`` times, raises ``exc``, or ``MaxRetriesExceededError``; in a task that no
        queue keeps, ``NeedsQueue``.
        """
        given = {"args": args, "kwargs": kwargs, "throw": None if throw else False, **options}
        for name, value in given.items():
            if value is not None:
                raise NotCarriedOver(
                    f"{name}= of retry() of task {self.name!r}: it is tried again as it was sent, or send another one"
                )
        asked = self._retrying.asked(
            self.request, self.name, exc, countdown=countdown, eta=eta, max_retries=max_retries
        )
        raise asked from exc if asked is not exc else None

    def attempt(self, args: Iterable[Any], kwargs: dict[str, Any]) -> Any:
        """Run the function once, in a request; raises ``Retry`` where it is to be tried again."""
        try:
            return self.run(*args, **kwargs)
        except Retry:
            raise
        except Exception as error:
            if not self._retrying.is_worth_it(error):
                raise
            asked = self._retrying.by_itself(self.request, self.name, error)
            if asked is error:
                raise
            raise asked from error

    def tell_start(self) -> None:
        """Say that it runs, where it was declared so (``track_started``)."""
        tells = self.app.conf.task_track_started if self._tells_start is None else self._tells_start
        if tells:
            self.update_state(state=states.STARTED, meta={"pid": os.getpid(), "hostname": self.request.hostname})


def _server_side(task: CeleryTask, name: str) -> Callable[..., Any]:
    """What a server runs: the function, with the call's request around it."""

    @functools.wraps(task.run)
    def run(*args: Any, **kwargs: Any) -> Any:
        with entered(unpack(name, args, kwargs)):
            task.tell_start()
            return task.attempt(args, kwargs)

    return run


def _named(function: Callable[..., Any], app: Celery | None, options: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """The task's name, and its options. Raises ``NotCarriedOver`` naming one that greentask has not."""
    module = getattr(function, "__module__", None) or "__main__"
    if module == "__main__" and app is not None and app.main:
        module = app.main
    own = getattr(function, "__name__", type(function).__name__)
    given = {key: value for key, value in options.items() if key not in _HARMLESS}
    if given.get("serializer") == "json":
        del given["serializer"]
    name = given.pop("name", None) or f"{module}.{own}"
    carried: dict[str, Any] = {
        "bind": False,
        "typing": True,
        "track_started": None,
        "time_limit": None,
        "process": True if app is None else app.process,
        "max_running": None,
        "max_waiting": None,
        "needs": (),
        "retries": None,
        "backoff": None,
        "retry_on": None,
        "give_up_on": None,
        "every": None,
        "timezone": None,
        "catch_up": True,
        "rate": None,
        "singleton": False,
        "ttl": None,
    }
    for option, value in given.items():
        if option not in carried and option not in OPTIONS:
            raise refuse_option(name, option, call=False)
        carried[option] = value
    return name, carried
