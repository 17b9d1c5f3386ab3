"""``@task``: a function that stays callable as before, and can be called somewhere else as well."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypeVar, overload

from ..errors import ConfigurationError
from ..wire.enqueue import MOST_PRIORITY, EnqueueOptions
from .binding import Binder
from .checks import check_count, check_seconds, in_seconds
from .importing import find_target, is_importable, target_of
from .options import check_options, refuse_unknown
from .rates import make_rate
from .remote import BatchReceipt, Caller, ProgressCallback, Receipt, TaskFuture, default_caller
from .resources import Resource
from .retries import Backoff, Exceptions, RetryPolicy, make_policy
from .schedules import Every, make_schedule
from .singletons import Singleton, make_singleton

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import TaskOptions

__all__ = ["DEFAULT_GROUP", "DEFAULT_WINDOW", "RemoteFunction", "Task", "task"]

P = ParamSpec("P")
R = TypeVar("R")

#: How many calls of a ``map`` are in flight at once, unless told otherwise.
DEFAULT_WINDOW = 100
#: The group of task processes that runs what says ``process=True``.
DEFAULT_GROUP = "default"
_OF_CALLS = ("client", "timeout", "progress", "idempotent")  # options of using() for what isn't enqueued, too
_GROUP = re.compile(r"[A-Za-z0-9][\w.-]*", re.ASCII)


class Task(Generic[P, R]):
    """A function under a name, with the way in which a server runs it.

    Calling it runs the function here. ``call``, ``submit`` and ``map`` run it on the default client's server.
    """

    def __init__(
        self,
        function: Callable[P, R],
        *,
        name: str | None = None,
        process: bool | str = False,
        timeout: float | None = None,
        max_running: int | None = None,
        max_waiting: int | None = None,
        needs: Iterable[Resource[Any]] = (),
        retries: int | None = None,
        backoff: Backoff | None = None,
        retry_on: Exceptions | None = None,
        give_up_on: Exceptions | None = None,
        every: Every | None = None,
        timezone: str | None = None,
        catch_up: bool = True,
        rate: str | None = None,
        singleton: Singleton = False,
        ttl: float | timedelta | None = None,
        priority: int = 0,
    ) -> None:
        if isinstance(function, Task):
            raise ConfigurationError(f"{function.name!r} is a task already")
        if not callable(function):
            raise ConfigurationError(f"a task is a function, not {function!r}")
        self.function = function
        if not isinstance(name, (str, type(None))):
            raise ConfigurationError(f"a task's name is a string, not {name!r:.200}")
        self.name: str = name or str(getattr(function, "__name__", ""))
        if self.name == "<lambda>":
            raise ConfigurationError("a lambda has no name that a caller could say: give name=…, or write it with def")
        if not self.name or self.name.startswith("greentask."):
            raise ConfigurationError(
                f"{self.name!r} can't be a task's name: give name=…, not beginning with greentask."
            )
        try:
            self.timeout = None if timeout is None else check_seconds("timeout", timeout)
            self.ttl = None if ttl is None else check_seconds("ttl", in_seconds(ttl))
            self.max_running = None if max_running is None else check_count("max_running", max_running)
            self.max_waiting = None if max_waiting is None else check_count("max_waiting", max_waiting, 0)
        except (TypeError, ValueError) as error:
            raise ConfigurationError(f"task {self.name!r}: {error}") from None
        if not isinstance(process, (bool, str)):
            raise ConfigurationError(f"task {self.name!r}: process is True, or a group's name, not {process!r:.200}")
        if isinstance(process, str) and not _GROUP.fullmatch(process):
            raise ConfigurationError(
                f"task {self.name!r}: {process!r} can't be a group's name; letters and digits can, and - _ . in between"
            )
        if type(priority) is not int or not -MOST_PRIORITY <= priority <= MOST_PRIORITY:
            bounds = f"from {-MOST_PRIORITY} to {MOST_PRIORITY}"
            raise ConfigurationError(f"task {self.name!r}: priority is a whole number {bounds}, not {priority!r}")
        self.process = process
        self.priority = priority
        self.policy: RetryPolicy = make_policy(self.name, retries, backoff, retry_on, give_up_on)
        if not isinstance(needs, Iterable):
            raise ConfigurationError(f"task {self.name!r}: needs are several: needs=(…,), not {needs!r:.200}")
        self.needs = tuple(needs)
        for need in self.needs:
            if not isinstance(need, Resource):
                raise ConfigurationError(f"task {self.name!r} needs {need!r:.200}, which is no @resource")
        self.binder = Binder(function, self.name)
        self.schedule = make_schedule(self.name, every, timezone)
        if self.schedule is not None and not self.binder.fits_none():
            raise ConfigurationError(f"task {self.name!r} runs by itself (every=…): each parameter needs a default")
        self.catch_up = catch_up
        self.rate = make_rate(self.name, rate)
        self.singleton = make_singleton(self.name, singleton, self.binder)
        self.streams = inspect.isgeneratorfunction(function)
        if inspect.isasyncgenfunction(function):
            raise ConfigurationError(f"task {self.name!r} is an async generator; a plain generator can stream")
        if inspect.iscoroutinefunction(function) and not process:
            raise ConfigurationError(
                f"task {self.name!r} is a coroutine function: declare it process=True, "
                "an event loop can't run in a greenlet"
            )
        if process:
            self.check_importable()
        functools.update_wrapper(self, function, updated=())

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.function(*args, **kwargs)

    def __repr__(self) -> str:
        where = f" in a process of {self.process}" if isinstance(self.process, str) else " in a process" * self.process
        return f"<task {self.binder.text}{where}>"

    def __get__(self, instance: object, owner: type | None = None) -> Any:
        if instance is None:
            return self
        raise ConfigurationError(f"task {self.name!r} is a method: tasks are functions, an object can't be sent")

    def __reduce__(self) -> Any:
        return find_target, (self.target,)

    @property
    def group(self) -> str | None:
        """The group of task processes that it runs in; None: a greenlet."""
        return self.process if isinstance(self.process, str) else DEFAULT_GROUP if self.process else None

    @property
    def target(self) -> str:
        """Where another process finds the function: ``module:qualified.name``."""
        return target_of(self.function)

    def check_importable(self) -> None:
        """Raise ``ConfigurationError`` where another process couldn't import the function."""
        if not is_importable(self.target):
            raise ConfigurationError(
                f"task {self.name!r} ({self.target}) can't run in a process: a task process imports it by its name, "
                "so it must be a function at the top of a module"
            )

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it on the default client's server and wait for the result."""
        result: R = default_caller().call_args(self.name, merge_arguments(args, kwargs, self.binder))
        return result

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Start it on the default client's server; the future has its result."""
        return default_caller().submit_args(self.name, merge_arguments(args, kwargs, self.binder))

    def map(
        self,
        *iterables: Iterable[Any],
        unordered: bool = False,
        window: int = DEFAULT_WINDOW,
        return_exceptions: bool = False,
        progress: bool | None = None,
    ) -> Iterator[R]:
        """Like the builtin ``map``, run there: at most ``window`` calls are in flight."""
        return RemoteFunction(self).map(
            *iterables, unordered=unordered, window=window, return_exceptions=return_exceptions, progress=progress
        )

    def starmap(
        self,
        items: Iterable[dict[str, Any] | list[Any] | tuple[Any, ...]],
        *,
        unordered: bool = False,
        window: int = DEFAULT_WINDOW,
        return_exceptions: bool = False,
        progress: bool | None = None,
    ) -> Iterator[R]:
        """As ``map``, each item being one call's arguments: a dict of keywords, or a sequence."""
        return RemoteFunction(self).starmap(
            items, unordered=unordered, window=window, return_exceptions=return_exceptions, progress=progress
        )

    def stream(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        """The items of a generator task, one by one, as the default client's server makes them."""
        return RemoteFunction(self).stream(*args, **kwargs)

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Receipt[R]:
        """Have the default client's server keep it, and run it later; returns when it is on disk."""
        return RemoteFunction(self).enqueue(*args, **kwargs)

    def enqueue_many(self, items: Iterable[dict[str, Any] | list[Any] | tuple[Any, ...]]) -> BatchReceipt[R]:
        """As ``enqueue``, for many: each item is one call's arguments, a dict of keywords or a sequence."""
        return RemoteFunction(self).enqueue_many(items)

    def using(
        self,
        client: Caller | None = None,
        *,
        timeout: float | None = None,
        progress: ProgressCallback | bool | None = None,
        idempotent: bool = False,
        **durable: Unpack[EnqueueOptions],
    ) -> RemoteFunction[P, R]:
        """The same calls on another client, with a timeout in seconds, or with progress reports.

        ``idempotent`` ones do no harm when they run twice, and may be sent again (see ``Client.using``). What is to be
        enqueued has further options: ``delay``, ``at``, ``priority``, ``key``, ``key_ttl``, ``singleton``,
        ``retries`` and ``ttl``.

        >>> send_mail.using(timeout=5).call(to="b@example.org")   # doctest: +SKIP
        """
        return RemoteFunction(self, client, timeout=timeout, progress=progress, idempotent=idempotent, **durable)


class RemoteFunction(Generic[P, R]):
    """A task as it is called somewhere else: on which client, with which timeout and progress callback."""

    def __init__(
        self,
        task: Task[P, R],
        client: Caller | None = None,
        *,
        timeout: float | None = None,
        progress: ProgressCallback | bool | None = None,
        idempotent: bool = False,
        **durable: Unpack[EnqueueOptions],
    ) -> None:
        refuse_unknown("using()", durable, EnqueueOptions.__annotations__, _OF_CALLS)
        self.task = task
        self._client = client
        self._timeout = timeout
        self._progress = progress
        self._idempotent = idempotent
        self._durable = durable

    @property
    def client(self) -> Caller:
        """The client that carries the calls."""
        client = default_caller() if self._client is None else self._client
        if self._durable:
            return client.using(idempotent=self._idempotent or None, **self._durable)
        return client.using(idempotent=True) if self._idempotent else client

    def call(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it there and wait for the result."""
        result: R = self.client.call_args(
            self.task.name, self._args(args, kwargs), timeout=self._timeout, progress=self._progress
        )
        return result

    def submit(self, *args: P.args, **kwargs: P.kwargs) -> TaskFuture[R]:
        """Start it there; the future has its result."""
        return self.client.submit_args(
            self.task.name, self._args(args, kwargs), timeout=self._timeout, progress=self._progress
        )

    def map(
        self,
        *iterables: Iterable[Any],
        unordered: bool = False,
        window: int = DEFAULT_WINDOW,
        return_exceptions: bool = False,
        progress: bool | None = None,
    ) -> Iterator[R]:
        """Like the builtin ``map``, run there."""
        return self._map(
            zip_arguments(iterables), known_length(iterables), unordered, window, return_exceptions, progress
        )

    def starmap(
        self,
        items: Iterable[dict[str, Any] | list[Any] | tuple[Any, ...]],
        *,
        unordered: bool = False,
        window: int = DEFAULT_WINDOW,
        return_exceptions: bool = False,
        progress: bool | None = None,
    ) -> Iterator[R]:
        """As ``map``, each item being one call's arguments."""
        return self._map(items, known_length((items,)), unordered, window, return_exceptions, progress)

    def _map(
        self,
        items: Iterable[dict[str, Any] | list[Any] | tuple[Any, ...]],
        total: int | None,
        unordered: bool,
        window: int,
        return_exceptions: bool,
        progress: bool | None,
    ) -> Iterator[R]:
        return self.client.map_args(
            self.task.name,
            each_arguments(items),
            timeout=self._timeout,
            unordered=unordered,
            window=window,
            return_exceptions=return_exceptions,
            progress=self._progress if progress is None else progress,
            total=total,
        )

    def enqueue(self, *args: P.args, **kwargs: P.kwargs) -> Receipt[R]:
        """Have the server keep it, and run it later; returns when it is on disk."""
        return self.client.enqueue_args(self.task, self._args(args, kwargs), timeout=self._timeout)

    def enqueue_many(self, items: Iterable[dict[str, Any] | list[Any] | tuple[Any, ...]]) -> BatchReceipt[R]:
        """As ``enqueue``, for many: each item is one call's arguments."""
        return self.client.enqueue_many_args(self.task, each_arguments(items), timeout=self._timeout)

    def stream(self, *args: P.args, **kwargs: P.kwargs) -> Iterator[Any]:
        """The items of a generator task, one by one."""
        return self.client.stream_args(
            self.task.name, self._args(args, kwargs), timeout=self._timeout, progress=self._progress
        )

    def _args(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any] | list[Any]:
        return merge_arguments(args, kwargs, self.task.binder)


def merge_arguments(
    args: tuple[Any, ...], kwargs: dict[str, Any], binder: Binder | None = None
) -> dict[str, Any] | list[Any]:
    """Arguments of a Python call as the wire takes them: by position, or by name.

    Raises ``TypeError`` for a mixture whose names are not known here.
    """
    if not args:
        return kwargs
    if not kwargs:
        return list(args)
    named = binder.name_positionals(args) if binder is not None else None
    if named is None:
        raise TypeError("pass the arguments either by position or by name: the wire does not mix them")
    for name in named.keys() & kwargs.keys():
        raise TypeError(f"{name!r} is given by position and by name")
    return {**named, **kwargs}


def each_arguments(items: Iterable[Any]) -> Iterator[dict[str, Any] | list[Any]]:
    """The arguments of each of many calls, which an item has. Raises ``TypeError`` for an item that can't be them."""
    if isinstance(items, (str, bytes, Mapping)):
        raise TypeError(f"many calls are a list of each one's arguments, not {items!r:.80}")
    return map(_arguments, items)


def _arguments(item: Any) -> dict[str, Any] | list[Any]:
    if isinstance(item, dict):
        return item
    if isinstance(item, (list, tuple)):
        return list(item)
    if isinstance(item, (str, bytes)) or not isinstance(item, Iterable):
        raise TypeError(
            f"an item has one call's arguments, as a dict or a sequence: [{item!r:.80}], say, for one argument"
        )
    return list(item)


def zip_arguments(iterables: tuple[Iterable[Any], ...]) -> Iterator[tuple[Any, ...]]:
    """The arguments of each call of a ``map``. Raises ``TypeError`` for text, which would be taken letter by letter."""
    for iterable in iterables:
        if isinstance(iterable, (str, bytes)):
            raise TypeError(
                f"map takes an iterable for each argument, and {iterable!r:.60} would be taken letter by letter: "
                "use itertools.repeat for an argument that is the same in each call"
            )
    return zip(*iterables)


def known_length(iterables: Iterable[Iterable[Any]]) -> int | None:
    """How many calls a ``map`` of them makes at most, as far as they tell."""
    return min((len(iterable) for iterable in iterables if isinstance(iterable, Sized)), default=None)


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(function: Callable[..., Any] | None = None, /, **options: Unpack[TaskOptions]) -> Any:
    """Make a function a task. It stays callable as before.

    ``name``: what callers say (the function's own name). ``process``: run it in a task process, for what computes or
    blocks in C, in one of that group where it is a name; otherwise in a greenlet. ``timeout``: its limit in seconds.
    ``max_running``: how many of its calls a server runs at once; others wait in order, or are ``Overloaded`` where
    ``max_waiting`` wait already. ``needs``: the resources that are to be loaded before its first call.
    Of durable ones, ``retries``: how often it is tried again after an error that is one of ``retry_on`` (any
    ``Exception``) and none of ``give_up_on``, after a pause that ``backoff`` says. ``every``: it is enqueued by itself,
    every so many seconds, or as a cron expression says, in that ``timezone`` (UTC); ticks that were missed come to one
    run, or to none without ``catch_up``. ``rate``: how many may begin in any stretch of time (``"100/m"``), and
    ``max_running`` how many run at once, on all servers of a queue. ``singleton``: of its calls, or of those with the
    same values of the arguments that it names, at most one waits or runs. ``ttl``: seconds within which it must have
    begun. ``priority``: from -10 to 10, higher ones go first.

    >>> @task(process=True, timeout=60)                       # doctest: +SKIP
    ... def report(year): ...
    """

    check_options(options)

    def decorate(function: Callable[..., Any]) -> Task[..., Any]:
        return Task(function, **options)

    return decorate if function is None else decorate(function)
