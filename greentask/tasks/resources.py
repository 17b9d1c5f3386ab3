"""``@resource``: what is loaded once per process and used by many calls: a model, a table, a connection.

A resource belongs to the process that loaded it; one that is forked from that loads its own. But for those that say
``preload``: what a template has loaded is its processes' as well, who share its memory, and nobody tears it down.
"""

from __future__ import annotations

import atexit
import inspect
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Generic, TypeVar, cast, overload

from ..errors import ConfigurationError
from .importing import find_target, target_of

__all__ = ["Resource", "close_resources", "resource"]

logger = logging.getLogger(__name__)

T = TypeVar("T")

_loaded: list[Resource[Any]] = []  # in this process, in the order in which they were; no other thread touches it


class Resource(Generic[T]):
    """A function that loads something, and the thing, once it was loaded. Calling it gives the thing.

    >>> @resource
    ... def settings():
    ...     return {"color": "green"}
    >>> settings() is settings()
    True
    """

    def __init__(self, load: Callable[[], T | Iterator[T]], *, preload: bool = False) -> None:
        if isinstance(load, Resource) or not callable(load):
            raise ConfigurationError(f"a resource is made from a function that loads it, not from {load!r:.200}")
        self.name = str(getattr(load, "__qualname__", load))
        if inspect.iscoroutinefunction(load) or inspect.isasyncgenfunction(load):
            raise ConfigurationError(
                f"resource {self.name} is loaded by a coroutine: use a plain function or generator"
            )
        self.preload = preload
        self.__doc__ = load.__doc__
        self._load = load
        self._lock = threading.RLock()  # a greenlet's or thread's, that loads it while others wait
        self._is_loading = False
        self._rest: Iterator[T] | None = None  # the generator that tears it down
        self._value: T | None = None
        self._pid: int | None = None  # of the process that loaded it

    @property
    def target(self) -> str:
        """Where another process finds it: ``module:qualified.name``."""
        return target_of(self._load)

    def check_importable(self) -> None:
        """Raise ``ConfigurationError`` where another process would not find it by its name."""
        try:
            found = find_target(self.target)
        except (ImportError, AttributeError):
            found = None
        if found is not self:
            raise ConfigurationError(
                f"resource {self.name} ({self.target}) can't be had by a task process, which imports it by its name: "
                "decorate a function at the top of a module"
            )

    def __repr__(self) -> str:
        return f"<resource {self.name}{', loaded' if self.is_loaded else ''}>"

    @property
    def is_loaded(self) -> bool:
        """Whether this process has it: it has loaded it itself, or shares what was loaded before it was forked."""
        return self._pid == os.getpid() or (self.preload and self._pid is not None)

    def __call__(self) -> T:
        """The thing; loads it at first. What loading raises is raised, and the next call tries again."""
        if not self.is_loaded:
            with self._lock:
                if not self.is_loaded:
                    self._load_now()
        return self._value  # type: ignore[return-value]

    def _load_now(self) -> None:
        if self._is_loading:
            raise ConfigurationError(f"resource {self.name} needs itself: to load it, it must have been loaded before")
        self._is_loading = True
        try:
            found: Any = self._load()
            if inspect.isgenerator(found):
                self._rest = cast("Iterator[T]", found)
                try:
                    found = next(self._rest)
                except StopIteration:
                    raise ConfigurationError(f"resource {self.name} yields nothing") from None
            self._value = found
            self._pid = os.getpid()
        except BaseException:
            self._rest = None
            raise
        finally:
            self._is_loading = False
        _loaded.append(self)

    def close(self) -> None:
        """Tear it down, if this process loaded it; it can be loaded again. What that raises is logged."""
        mine, rest = self._pid == os.getpid(), self._rest
        self._pid = self._value = self._rest = None
        if self in _loaded:
            _loaded.remove(self)
        if not mine or rest is None:
            return
        try:
            next(rest, None)
        except BaseException:  # sys.exit() as well: others are to be torn down after this one
            logger.exception("tearing down the resource %s failed", self.name)


def close_resources(among: Iterable[Resource[Any]] | None = None) -> None:
    """Tear down what this process has loaded, the newest first: all of it, or what is ``among`` these."""
    chosen = None if among is None else {*among}
    for one in reversed(_loaded.copy()):
        if chosen is None or one in chosen:
            one.close()


atexit.register(close_resources)


@overload
def resource(load: Callable[[], Iterator[T]], /) -> Resource[T]: ...
@overload
def resource(load: Callable[[], T], /) -> Resource[T]: ...
@overload
def resource(*, preload: bool = False) -> Callable[[Callable[[], Any]], Resource[Any]]: ...


def resource(load: Callable[[], Any] | None = None, /, *, preload: bool = False) -> Any:
    """Make a function the loader of a resource, which each process loads once.

    A generator yields the thing, and tears it down after that, when its process ends in good order.
    ``preload``: where a task that runs in processes needs it, it is loaded before these are forked, so that they share
    its memory. Not for what can't be shared so: connections, threads, what uses CUDA.

    >>> @resource(preload=True)                               # doctest: +SKIP
    ... def table(): return load_300_megabytes()
    >>> @task(process="lookup", needs=[table])                # doctest: +SKIP
    ... def find(key): return table()[key]
    """

    def decorate(load: Callable[[], Any]) -> Resource[Any]:
        return Resource(load, preload=preload)

    return decorate if load is None else decorate(load)
