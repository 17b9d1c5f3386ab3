"""``Server``: offers a registry's tasks on some addresses."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import gevent
from gevent import monkey
from gevent.event import Event
from gevent.lock import Semaphore
from gevent.socket import socket as GreenSocket

from .._version import __version__
from ..errors import ConfigurationError, UnknownTask
from ..hub.files import Renewed, TLSFiles, read_secrets
from ..hub.signals import stop_at_signals
from ..pool.memory import resident
from ..pool.processes import DEFAULT_GRACE, Processes
from ..runner import Runner
from ..runner.statistics import Statistics
from ..tasks.checks import check_seconds
from ..tasks.middleware import Hooks, Middleware, load_middleware
from ..tasks.processes import DEFAULT_START, DEFAULT_TEARDOWN
from ..tasks.registry import Tasks
from ..tasks.resources import Resource, close_resources
from ..tasks.task import DEFAULT_GROUP
from ..wire.address import Address
from ..wire.proof import Secrets
from .acceptor import Acceptor
from .connection import LineConnection
from .durable import Durable
from .failures import CallLog, FailureLog
from .groups import Group, ProcessGroups, in_all
from .guard import Guard
from .held import Room
from .limits import DEFAULT_DRAIN, DEFAULT_LISTEN, DEFAULT_MAX_HOLD, Limits
from .listening import SECRET_REMEDY
from .session import Session
from .shares import Shares
from .watchdog import Watchdog

__all__ = ["Server"]

logger = logging.getLogger(__name__)

_MOST_SHOWN = 50  # connections


class Server:
    """Serves tasks, those that wait in greenlets, those that compute in task processes.

    tasks
        The registry, or tasks.
    listen
        Addresses, comma separated or as a list; port 0 lets the kernel choose.
    processes
        How many task processes there are for ``process=True`` tasks; None: one for each processor. Where no task
        wants one, none is started.
    max_memory, max_tasks
        The bytes of memory and the number of tasks after which one of those processes is replaced.
    groups
        The further groups of task processes, for ``process="NAME"`` tasks: the number of processes of each, or a
        ``Group`` with limits of its own.
    grace
        Seconds between asking a task in a process to end and killing it.
    max_running
        How many calls of a task run at once, by its name, in place of what the task says itself.
    middleware
        What is around all calls and tasks, besides what ``tasks`` has: ``Middleware``, or its name,
        ``package.module:object``.
    start_timeout
        Seconds that a task process has for loading what its tasks need; then it is ended, its stack goes to stderr, and
        another one is tried. 0: any time.
    teardown
        Seconds that a task process has for its end in good order, and the server for tearing down its own resources.
    cancel_abandoned
        Cancel the calls of a connection that broke, instead of letting them end.
    max_hold
        Seconds that a task may hold up the loop, and all others, before that is logged with its stack; 0: never.
    hide_arguments
        Leave the arguments of running calls out of what ``greentask.status`` tells.
    log_calls
        Log each call, and not just those that fail.
    debug
        Send tracebacks to callers.
    secrets, secret_file
        Callers must prove that they know one of these secrets, or one of this file's (which is read anew when it has
        changed).
    tls
        The certificate and key of ``tls://`` addresses; with a ``ca``, callers must have a certificate of it. Files are
        read anew when they have changed.
    allow
        Networks (``10.0.0.0/8``) and addresses whose connections are taken; none: all are. Connections on a Unix socket
        are always taken.
    insecure
        Listen on addresses that other machines can reach, where callers don't prove who they are.
    sockets
        Sockets that listen there already, one for each address.
    queue
        What keeps durable tasks: a ``TaskQueue``.
    ask_status
        Who is asked what ``greentask.status`` answers, in place of this server: one who knows of others like it.
    shares
        How many connections these others have, with which it shares its sockets.

    >>> server = Server(Tasks([len]), "127.0.0.1:0")
    >>> server.start(); server.addresses[0].host
    '127.0.0.1'
    >>> server.stop()
    """

    def __init__(
        self,
        tasks: Tasks | Iterable[Any],
        listen: str | Iterable[str] = DEFAULT_LISTEN,
        *,
        processes: int | None = None,
        max_memory: int | None = None,
        max_tasks: int | None = None,
        groups: Mapping[str, Group | int] | None = None,
        limits: Limits | None = None,
        grace: float = DEFAULT_GRACE,
        max_running: Mapping[str, int] | None = None,
        middleware: Iterable[Middleware | str] = (),
        start_timeout: float = DEFAULT_START,
        teardown: float = DEFAULT_TEARDOWN,
        cancel_abandoned: bool = False,
        max_hold: float = DEFAULT_MAX_HOLD,
        hide_arguments: bool = False,
        log_calls: bool = False,
        debug: bool = False,
        secrets: Iterable[str | bytes] = (),
        secret_file: str | os.PathLike[str] | None = None,
        tls: TLSFiles | None = None,
        allow: Iterable[str] = (),
        insecure: bool = False,
        sockets: Iterable[GreenSocket] | None = None,
        queue: Durable | None = None,
        ask_status: Callable[[bool, bool], dict[str, Any]] | None = None,
        shares: Shares | None = None,
    ) -> None:
        times = {"grace": grace, "start_timeout": start_timeout, "teardown": teardown, "max_hold": max_hold}
        for name, seconds in times.items():
            check_seconds(name, seconds, zero=True)
        self.tasks = tasks if isinstance(tasks, Tasks) else Tasks(tasks)
        self.limits = limits or Limits()
        self.cancel_abandoned = cancel_abandoned
        self.in_flight = 0
        self.room = Room(self.limits)
        self.item_slots = Semaphore(self.limits.max_calls)  # of all batches, for the items that run
        default = Group(processes, max_memory, max_tasks)
        groups = {**(groups or {})}
        if default != Group() and DEFAULT_GROUP in groups:
            raise ConfigurationError(f"the group {DEFAULT_GROUP!r} is described twice: leave out processes and max_…")
        groups.setdefault(DEFAULT_GROUP, default)
        log = CallLog() if log_calls else FailureLog()
        middleware = [log, *self.tasks.middleware, *middleware]
        self.hooks = Hooks(map(load_middleware, middleware))
        self._teardown = teardown
        self.groups = ProcessGroups(
            self.tasks, groups, grace=grace, start=start_timeout, teardown=teardown, middleware=middleware, debug=debug
        )
        _check_max_running(self.tasks, max_running or {})
        self._statistics = Statistics()
        self.runner = Runner(
            self.tasks,
            self.groups,
            debug=debug,
            max_running=max_running,
            hooks=self.hooks,
            max_result=self.limits.max_unsent,
            statistics=self._statistics,
        )
        self.hides_arguments = hide_arguments
        self._watchdog = Watchdog(max_hold) if max_hold else None
        self._guard = _guard(secrets, secret_file, self.limits)
        self._acceptor = Acceptor(
            listen,
            self._serve,
            self.limits,
            insecure=insecure or self._guard is not None,
            remedy=SECRET_REMEDY,
            sockets=sockets,
            allow=allow,
            tls=tls,
            shares=shares,
        )
        self._sessions: set[Session] = set()
        self.queue = queue
        self._ask_status = ask_status
        #: What hooks count, by their names: dicts and lists of numbers, which a status of several fronts adds up.
        self.counted: dict[str, Callable[[], dict[str, Any]]] = {}
        self._started_at = time.monotonic()
        self._stopping = self._has_ended = False
        self._patience = 0.0
        self._stopped = Event()

    @property
    def addresses(self) -> list[Address]:
        """Where it listens, with the ports that the kernel chose."""
        return self._acceptor.addresses

    @property
    def processes(self) -> Processes | None:
        """The default group of task processes; None where no task wants one of it."""
        return self.groups.get(DEFAULT_GROUP)

    def start(self) -> None:
        """Listen, and start the task processes.

        Raises ``ConfigurationError`` for an address that can't be had, or where a middleware's ``server_started`` does;
        ``PoolBroken`` where the processes can't import the tasks.
        """
        if not monkey.is_module_patched("socket"):
            logger.warning(
                "the standard library is not monkey-patched: a task that waits holds up all others. "
                "Begin the program with: from gevent import monkey; monkey.patch_all()"
            )
        scheduled = sorted(task.name for task in self.tasks if task.schedule is not None)
        if scheduled and self.queue is None:
            logger.warning(
                "%s won't run by %s, for this server has no queue: start it with --queue FILE",
                ", ".join(scheduled),
                "themselves" if len(scheduled) > 1 else "itself",
            )
        self._acceptor.bind()
        try:
            self._load_resources()
            self.groups.start()
            if self.queue is not None:
                self.queue.start(self)
        except BaseException:
            self._acceptor.close()
            self.groups.close()
            self._close_resources()
            raise
        self._acceptor.start()
        if self._watchdog is not None:
            self._watchdog.start()
        try:
            self.hooks.begin(self)
        except ConfigurationError:
            self.stop(0.0)
            raise

    def serve_forever(self, drain: float = DEFAULT_DRAIN) -> None:
        """Start (unless that was done), and serve until SIGTERM or SIGINT has drained it, or ``stop`` was called.

        A second signal stops it at once. To be called in the main thread.
        """
        if not (self.addresses or self._stopping):
            self.start()
        with stop_at_signals(self.stop, drain):
            self.wait_stopped()

    def stop(self, drain: float = DEFAULT_DRAIN, *, patience: float = 0.0) -> None:
        """Accept nothing more, answer what is in flight for up to ``drain`` seconds, then end everything.

        Connections that have not asked for anything yet have ``patience`` seconds for their first call. What is
        unanswered after ``drain`` seconds is cancelled, also a task that has called this, and then waits for itself.
        """
        gevent.spawn(self._stop, drain, patience).get()  # or the end of such a task would be the end of this, too

    def _stop(self, drain: float, patience: float) -> None:
        until = time.monotonic() + drain
        if self.in_flight and drain and not self._stopping:
            calls = "1 call has" if self.in_flight == 1 else f"{self.in_flight} calls have"
            logger.info("draining: %s up to %g s for ending", calls, drain)
        self._stopping = True
        self._patience = patience
        self._acceptor.close()
        if self._guard is not None:
            self._guard.close()
        if self.queue is not None:
            self.queue.drain()
        for session in list(self._sessions):
            session.drain(patience)
        if not self._acceptor.join(drain):
            logger.warning("stopped with calls unanswered after %g s", drain)
        if self.queue is not None:
            self.queue.join(max(0.0, until - time.monotonic()))
        self.groups.close()
        if self.queue is not None:
            self.queue.close()
        if not self._has_ended:
            self._has_ended = True
            if self._watchdog is not None:
                self._watchdog.stop()
            self.hooks.tell(self.hooks.server_stopped, self)
            self._close_resources()
        self._stopped.set()

    def _needs(self) -> list[Resource[Any]]:
        """The resources of greenlet tasks, each once."""
        return list(dict.fromkeys(need for task in self.tasks if not task.process for need in task.needs))

    def _load_resources(self) -> None:
        for need in self._needs():
            try:
                need()
            except Exception as error:
                raise ConfigurationError(
                    f"the resource {need.name} can't be loaded: {type(error).__name__}: {error}"
                ) from error

    def _close_resources(self) -> None:
        closing = gevent.spawn(close_resources, self._needs())
        closing.join(self._teardown)
        if not closing.dead:
            logger.warning("tearing down the resources was given up after %g s", self._teardown)

    def wait_stopped(self) -> None:
        """Wait until ``stop`` has ended everything."""
        self._stopped.wait()

    def tell_status(self, detail: bool = False, by_task: bool = False) -> dict[str, Any]:
        """What ``greentask.status`` answers."""
        if self._ask_status is None:
            return self.status(detail=detail, by_task=by_task)
        return self._ask_status(detail, by_task)

    def status(self, *, detail: bool = False, by_task: bool = False) -> dict[str, Any]:
        """What this server is doing; in ``detail`` with its calls, processes and connections one by one.

        ``by_task``: with the calls of each task, and what hooks have counted.
        """
        status: dict[str, Any] = {
            "version": __version__,
            "python": sys.version.partition(" ")[0],
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self._started_at, 3),
            "memory": resident(os.getpid()),
            "listen": [str(address) for address in self.addresses],
            "connections": len(self._sessions),
            "in_flight": self.in_flight,
            "draining": self._stopping,
            "tasks": len(self.tasks),
            "limited": {
                turns.name: {"max_running": turns.most, "running": turns.running, "waiting": turns.waiting}
                for turns in self.runner.turns.values()
            },
            **self.counts(detail=detail or by_task),
        }
        if by_task:
            status["running_by_task"] = self._statistics.running_by_task()
        if detail:
            status.update(self._detail())
        if self.groups:
            status["groups"] = self.groups.status()
            status["processes"] = in_all(status["groups"].values())
        return status

    def counts(self, *, detail: bool = False) -> dict[str, Any]:
        """What of its status has been counted since its start; in ``detail`` for each task as well."""
        counts: dict[str, Any] = {
            "refused": {
                "unauthenticated": self._guard.refused if self._guard is not None else 0,
                "too_many_from_address": self._acceptor.refused,
                "line_timeout": self._acceptor.late,
                "max_held": self._acceptor.crowd.closed,
                "not_allowed": self._acceptor.not_allowed,
                "tls_handshake": self._acceptor.failed_handshakes,
                **self._acceptor.past,
            },
            "calls": self._statistics.totals(),
        }
        if self.queue is not None:
            counts["queue"] = self.queue.status()
        if detail:
            counts["tasks_called"] = self._statistics.tasks()
            counts["counted"] = {name: tell() for name, tell in self.counted.items()}
        if self._watchdog is not None:
            counts["loop"] = {"held": self._watchdog.held, "longest": round(self._watchdog.longest, 3)}
        return counts

    def _detail(self) -> dict[str, Any]:
        busiest = sorted(self._sessions, key=lambda session: session.weight, reverse=True)[:_MOST_SHOWN]
        return {
            "running": self._statistics.oldest(arguments=not self.hides_arguments),
            "task_processes": [
                {"group": name, **process} for name, pool in self.groups.items() for process in pool.describe()
            ],
            "busiest": [session.describe() for session in busiest],
        }

    def restart_group(self, name: str) -> None:
        """Replace every process of a group: a few at a time, each after its task and when its successor is ready.

        Doesn't wait for it. They are forked from the same template: code that it has imported stays as it is.
        Raises ``ConfigurationError`` where there is no such group.
        """
        self.groups.find(name).recycle()

    def _serve(self, connection: LineConnection) -> None:
        first = [] if self._guard is None else self._guard.admit(connection)
        if first is None:
            return
        session = Session(self, connection)
        self._sessions.add(session)
        try:
            if self._stopping:
                session.drain(self._patience)
            session.serve(first)
        finally:
            session.cancel_all()  # what is left where it was cut off, for the server stops: else it would run on
            self._sessions.discard(session)


def _check_max_running(tasks: Tasks, max_running: Mapping[str, int]) -> None:
    for name, most in max_running.items():
        if most < 1:
            raise ConfigurationError(f"max_running of {name!r} is at least 1, not {most}")
        try:
            tasks.get(name)
        except UnknownTask as error:
            raise ConfigurationError(f"max_running: {error}") from None


def _guard(secrets: Iterable[str | bytes], file: str | os.PathLike[str] | None, limits: Limits) -> Guard | None:
    if file is not None:
        if secrets:
            raise TypeError("secrets and secret_file don't go together: put all of them into the file")
        path = os.fspath(file)
        return Guard(Renewed([path], lambda: read_secrets(path)).get, limits)
    if secrets:
        fixed = Secrets(secrets)
        return Guard(lambda: fixed, limits)
    return None
