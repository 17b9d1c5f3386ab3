"""``Celery``: the application object, a registry of tasks that can be served."""

from __future__ import annotations

import importlib
import importlib.util
import logging
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ...errors import UnknownTask
from ...tasks.registry import Tasks
from ...tasks.remote import Caller, default_caller
from ...tasks.task import Task
from .conf import Conf
from .django import Connections, installed_apps, is_django
from .durable import Durable, has_queue
from .exceptions import NotCarriedOver
from .missing import is_setting, refuse_app_member
from .result import AsyncResult
from .signature import Signature
from .task import CeleryTask
from .transport import Eager, Live, Transport

__all__ = ["Celery", "current_app", "shared_task"]

logger = logging.getLogger(__name__)

_ADDRESSES = ("tcp", "tls", "unix", "text")
_shared: dict[str, CeleryTask] = {}
_current: Celery | None = None


class Celery(Tasks):
    """A Celery application whose tasks greentask serves: ``greentask serve MODULE``, with the module that has it.

    main
        The name that tasks of the program itself (``__main__``) have in front.
    broker
        The address of a greentask server (``tcp://``, ``tls://``, ``unix://``). That of a real broker is not used:
        calls go to ``GREENTASK_URL`` then, as with ``greentask.configure``.
    backend
        Not used: results are kept in the server's queue, where it has one, or come to the program that asked.
    include
        Modules with tasks, imported when the application is served.
    client
        The client that carries the calls, in place of ``broker``.
    unknown
        Settings, as ``app.conf`` has them.
    process
        Where tasks run that don't say: True for a task process, as Celery's do; False for a greenlet.
    """

    def __init__(
        self,
        main: str | None = None,
        *,
        broker: str | None = None,
        backend: str | None = None,
        include: Iterable[str] = (),
        config_source: Any = None,
        namespace: str | None = None,
        set_as_current: bool = True,
        client: Caller | None = None,
        process: bool | str = True,
        **unknown: Any,
    ) -> None:
        global _current
        super().__init__()
        self.main = main
        self.process = process
        self.conf = Conf()
        self._include = tuple(include)
        self._discover: list[tuple[Iterable[str] | Callable[[], Iterable[str]], str]] = []
        self._client = client
        self._has_told = False
        self._live = Live(self._caller)
        self._asked: tuple[Caller, Durable | None] | None = None
        for option, value in unknown.items():
            if not (option in self.conf or is_setting(option)):
                raise NotCarriedOver(f"{option}= of Celery() is not carried over: leave it out")
            self.conf[option] = value
        if broker is not None:
            self.conf.broker_url = broker
        if config_source is not None:
            self.config_from_object(config_source, namespace=namespace)
        if set_as_current:
            _current = self

    def __repr__(self) -> str:
        return f"<Celery {self.main or '(nameless)'}>"

    def __getattr__(self, name: str) -> Any:
        return refuse_app_member(name)

    # ---- Tasks

    def task(self, function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
        """Make a function a task, with Celery's ``name``, ``bind``, ``time_limit``, ``track_started``, ``typing``, and
        those of ``greentask.task`` but ``timeout``.

        Raises ``NotCarriedOver`` naming any other option, with the remedy.
        """

        def decorate(function: Callable[..., Any]) -> CeleryTask:
            task = CeleryTask(function, self, options)
            self.add(task)
            return task

        return decorate if function is None else decorate(function)

    def autodiscover_tasks(
        self,
        packages: Iterable[str] | Callable[[], Iterable[str]] | None = None,
        related_name: str = "tasks",
        force: bool = False,
    ) -> None:
        """Import the module ``tasks`` of each of these packages when the application is served.

        Without packages they are those of a Django project's apps.
        """
        if packages is None:
            if not is_django():
                raise NotCarriedOver(
                    "autodiscover_tasks() without packages is not carried over from Celery, but for Django projects "
                    "(DJANGO_SETTINGS_MODULE): name the packages, or serve the modules that have tasks, "
                    "`greentask serve MODULE…`"
                )
            packages = installed_apps
            self.middleware.append(Connections())
        self._discover.append((packages, related_name))
        if force:
            self._import_all()

    def __iter__(self) -> Iterator[Task[..., Any]]:
        self._import_all()
        return iter([*super().__iter__(), *(task for name, task in _shared.items() if name not in self)])

    @property
    def tasks(self) -> dict[str, CeleryTask]:
        """Its tasks that have been imported, and the shared ones, by name."""
        return {task.name: task for task in [*_shared.values(), *super().__iter__()] if isinstance(task, CeleryTask)}

    def find_task(self, name: str) -> CeleryTask:
        """The task of that name. Raises ``UnknownTask`` where no module that has been imported has one."""
        task = self.tasks.get(name)
        if task is None:
            raise UnknownTask(f"no task is named {name!r} here: import the module that has it")
        return task

    def _import_all(self) -> None:
        names = [*self._include, *self.conf.include, *self.conf.imports]
        for packages, related in self._discover:
            for package in packages() if callable(packages) else packages:
                importlib.import_module(package)
                if importlib.util.find_spec(f"{package}.{related}") is not None:
                    names.append(f"{package}.{related}")
        for name in names:
            importlib.import_module(name)

    # ---- Calling

    def send_task(
        self, name: str, args: Iterable[Any] | None = None, kwargs: dict[str, Any] | None = None, **options: Any
    ) -> AsyncResult:
        """Start the task of that name, which need not be known here."""
        return self.signature(name, args, kwargs, **options).apply_async()

    def signature(
        self,
        name: str,
        args: Iterable[Any] | None = None,
        kwargs: dict[str, Any] | None = None,
        *,
        immutable: bool = False,
        **options: Any,
    ) -> Signature:
        """A call of the task of that name."""
        return Signature(name, args, kwargs, options, immutable=immutable, app=self)

    def AsyncResult(self, id: str) -> AsyncResult:
        """The result of that id: of any task in the server's queue, or, where it has none, that this process sent."""
        return AsyncResult(id, app=self)

    def transport(self, *, eager: bool = False) -> Transport | Durable:
        """What gets its tasks to where they run: into the server's queue, where it has one."""
        if eager or self.conf.task_always_eager:
            return Eager(self.find_task, self._live)
        return self._durable() or self._live

    def _durable(self) -> Durable | None:
        """What enqueues them, where the server has a queue: it is asked once."""
        from ...client import Client  # here: a task process needs no gevent for declaring its tasks

        caller = self._caller()
        if self._asked is None or self._asked[0] is not caller:
            keeps = isinstance(caller, Client) and has_queue(caller)
            self._asked = caller, Durable(caller) if isinstance(caller, Client) and keeps else None
        return self._asked[1]

    def _caller(self) -> Caller:
        if self._client is not None:
            return self._client
        broker = str(self.conf.broker_url or "")
        scheme, separator, _ = broker.partition("://")
        if separator and scheme.lower() in _ADDRESSES:
            from ...client import Client  # here: a task process needs no gevent for declaring its tasks

            self._client = Client(broker)
            return self._client
        if broker and not self._has_told:
            self._has_told = True
            logger.info("%r: a broker (%s) is not used, calls go to a greentask server", self, scheme)
        return default_caller()

    # ---- Configuration

    def config_from_object(
        self, obj: Any, silent: bool = False, force: bool = False, namespace: str | None = None
    ) -> None:
        """Take the settings of a module, an object, or its name."""
        self.conf.load(obj, namespace)

    def set_current(self) -> None:
        """Have shared tasks be called by this application."""
        global _current
        _current = self


def current_app() -> Celery:
    """The application that was made last; one of its own where there is none."""
    return Celery() if _current is None else _current


def shared_task(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Make a function a task of every application; otherwise as ``Celery.task``."""

    def decorate(function: Callable[..., Any]) -> CeleryTask:
        task = CeleryTask(function, None, options)
        _shared[task.name] = task
        return task

    return decorate if function is None else decorate(function)
