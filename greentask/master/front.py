"""A front: the process that serves. Started by the master, which owns the listening sockets and tells it what to do.

It imports the user's code, and so comes and goes with that code: for a reload the master starts another one, and tells
this one to drain. When the master is gone, it drains as well. The standard library is patched before anything else is
imported: see how the master starts it.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.socket import socket as GreenSocket

from ..errors import ConfigurationError, GreentaskError
from ..pool.linux import die_with_parent, outlive_parent, raise_descriptors, set_title
from ..server.dumping import dump, remember_greenlets
from ..server.server import Server
from ..server.shares import Shares
from ..tasks.loading import load_apps
from ..tasks.middleware import Middleware, find_middleware
from ..tasks.registry import Tasks
from ..tasks.traces import trace_of
from .channel import Channel, ChannelError
from .config import ServeConfig
from .logs import configure_logging, reopen_logs

if TYPE_CHECKING:
    from ..queue.service import TaskQueue

__all__ = ["main"]

logger = logging.getLogger(__name__)

# Seconds that a thread waits at most for another one that computes. The queue's needs Python for a moment between two
# steps of its file, and would wait 5 ms each time.
_SWITCH_INTERVAL = 0.0002
_METRICS = "greentask.contrib.prometheus:Metrics"  # by its name, as a user's: contrib is above the server
_GC_THRESHOLD = (2_000, 10, 100)  # a young collection for each 2,000 new containers, a full one for 2 million


def main(fd: int) -> None:
    """Serve until the master says that it is over, or is gone: what the master's command line calls."""
    raise_descriptors()  # each connection takes one, and many systems begin with 1,024
    die_with_parent()  # what is imported may take for ever, and until then nobody listens to the master
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())
    # A terminal, and `systemctl kill`, tell everybody; it is the master's to say what that means. Handlers and not
    # SIG_IGN, which programs that a task starts would inherit.
    told = (signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU)
    for number in told:
        signal.signal(number, lambda *_: None)
    with socket.socket(fileno=fd) as control:
        front = _Front(control)
        front.run()


class _Front:
    def __init__(self, control: socket.socket) -> None:
        self._server: Server | None = None
        self._config: ServeConfig | None = None
        self._begun: AsyncResult[None] = AsyncResult()
        self._serves = Event()
        self._fds: list[int] = []
        self._shares: Shares | None = None
        self._metrics: int | None = None
        self._master = os.getppid()
        handlers: dict[str, Callable[..., Any]] = {
            "begin": self._hear_begin,
            "drain": self._drain,
            "resize": self._resize,
            "status": self._status,
            "dump": self._dump,
            "restart": self._restart,
            "reopen": reopen_logs,
            "ping": lambda: "pong",
        }
        control.set_inheritable(False)
        self._channel = Channel(GreenSocket(fileno=control.detach()), handlers, self._master_is_gone)

    def run(self) -> None:
        self._begun.get()
        config = self._config
        assert config is not None
        configure_logging(debug=config.debug, file=config.log_file, form=config.log_format)
        if config.queue is not None:
            sys.setswitchinterval(_SWITCH_INTERVAL)
        sockets = [GreenSocket(fileno=fd) for fd in self._fds]
        for sock in sockets:
            os.set_inheritable(sock.fileno(), False)
        try:
            tasks = load_apps(config.apps, in_processes=config.in_processes)
            self._server = server = self._make_server(tasks, config, sockets)
            server.start()
        except GreentaskError as error:
            self._fail(str(error))
        except Exception as error:
            self._fail(f"{' '.join(config.apps)} can't be imported", trace_of(error))
        outlive_parent()
        set_title(f"front, {' '.join(config.apps)}")
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        gevent.signal_handler(signal.SIGTERM, self._drain, config.drain_timeout)
        gevent.signal_handler(signal.SIGUSR1, reopen_logs)
        gc.collect()
        remember_greenlets()
        gc.freeze()  # what is imported stays: no collection needs to look at it again
        # One of everything takes 100 ms where there are 10,000 connections or a large value, and holds up all calls.
        gc.set_threshold(*_GC_THRESHOLD)
        processes = sum(group.size for group in server.groups.values())
        default = server.processes.size if server.processes is not None else 0
        self._channel.tell("ready", tasks=len(tasks), processes=processes, default=default)
        self._serves.set()
        server.wait_stopped()
        self._channel.tell("counted", counts=server.counts(detail=True))
        self._channel.flush(1.0)

    def _make_server(self, tasks: Tasks, config: ServeConfig, sockets: list[GreenSocket]) -> Server:
        return Server(
            tasks,
            config.listen,
            sockets=sockets,
            processes=config.processes,
            max_memory=config.max_memory,
            max_tasks=config.max_tasks,
            groups=config.groups,
            limits=config.limits,
            grace=config.grace,
            max_running=config.max_running,
            middleware=[*config.middleware, *self._own_middleware()],
            start_timeout=config.start_timeout,
            teardown=config.teardown_timeout,
            cancel_abandoned=config.cancel_abandoned,
            max_hold=config.max_hold,
            hide_arguments=config.hide_arguments,
            log_calls=config.log_calls,
            debug=config.debug,
            secret_file=config.secret_file,
            tls=config.tls,
            allow=config.allow,
            insecure=config.insecure,
            queue=_queue(config),
            ask_status=self._ask_status,
            shares=self._shares,
        )

    def _own_middleware(self) -> list[Middleware]:
        if self._metrics is None:
            return []
        sock = GreenSocket(fileno=self._metrics)
        os.set_inheritable(sock.fileno(), False)
        return [find_middleware(_METRICS)(sock)]

    def _fail(self, why: str, trace: str = "") -> None:
        """It can't serve; the master tells why."""
        self._channel.tell("failed", why=why, trace=trace)
        self._channel.flush(1.0)
        os._exit(1)  # what was imported may have started threads that never end

    def _ask_status(self, detail: bool, by_task: bool) -> dict[str, Any]:
        more = {"by_task": True} if by_task else {}  # of which a master of before knows nothing
        try:
            status: dict[str, Any] = self._channel.ask("status", within=2.0, detail=detail, **more)
        except ChannelError as error:
            logger.warning("what the other fronts do is not known: %s", error)
            status = {"master": {"pid": self._master}, "fronts": []}
        if not status["fronts"]:  # all had too much to do, and so had this one
            status = {**status, **self._status(detail, by_task), "fronts": []}
        return status

    # ---- What the master says

    def _hear_begin(
        self, config: dict[str, Any], fds: list[int], number: int, shares: int | None, metrics: int | None = None
    ) -> None:
        self._config, self._fds = ServeConfig.from_json(config), fds
        self._shares = None if shares is None else Shares(shares, number)
        self._metrics = metrics
        self._begun.set(None)

    def _drain(self, timeout: float, patience: float = 0.0) -> None:
        if self._server is not None:
            self._server.stop(timeout, patience=patience)

    def _resize(self, processes: int) -> None:
        self._serves.wait()  # it may still start, with as many as there were to be when that began
        if self._server is not None and self._server.processes is not None:
            self._server.processes.resize(processes)

    def _status(self, detail: bool = False, by_task: bool = False) -> dict[str, Any]:
        return self._serving().status(detail=detail, by_task=by_task)

    def _serving(self) -> Server:
        if self._server is None:
            raise ConfigurationError("it has not started yet")
        return self._server

    def _dump(self) -> str:
        return dump(self._serving())

    def _restart(self, group: str) -> None:
        self._serving().restart_group(group)

    def _master_is_gone(self) -> None:
        if self._server is None or self._config is None:
            os._exit(1)
        logger.warning("the master is gone: this front answers what is in flight, and ends")
        self._server.stop(self._config.drain_timeout)


def _queue(config: ServeConfig) -> TaskQueue | None:
    if config.queue is None:
        return None
    from ..queue.service import TaskQueue  # a tenth of a front's start, which most do without

    queue = TaskQueue(
        config.queue,
        greenlets=config.queue_greenlets,
        lease=config.queue_lease,
        result_ttl=config.result_ttl,
        key_ttl=config.key_ttl,
        dead_limit=config.dead_limit,
        max_batch=config.max_batch,
        max_lost_fronts=config.max_lost_fronts,
        max_lost_processes=config.max_lost_processes,
        max_members=config.max_members,
        max_taken=config.max_taken,
        memory=config.queue_memory,
        keep_attempts=config.keep_attempts,
    )
    queue.looks_out = False
    return queue
