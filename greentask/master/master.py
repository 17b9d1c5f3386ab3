"""The master: owns the listening sockets, keeps the fronts alive, replaces them for new code. It runs no user code.

Everything happens in its one hub. What follows when a process dies:

- a front: its task processes end with it, its connections break; another one is started, after a pause that doubles
  while they die young. The sockets are the master's: who connects meanwhile waits in the kernel's queue.
- the master: the fronts answer what is in flight, and end.
"""

from __future__ import annotations

import logging
import os
import signal
import time
from collections.abc import Callable, Sequence
from typing import Any

import gevent
from gevent.event import AsyncResult, Event
from gevent.lock import BoundedSemaphore
from gevent.socket import socket as GreenSocket

from .._version import __version__
from ..errors import ConfigurationError, GreentaskError
from ..pool.linux import set_title
from ..pool.memory import resident
from ..wire.address import Address
from .admin import AdminServer, answers
from .channel import ChannelError
from .config import ServeConfig
from .fronts import Front, FrontFailed
from .logs import reopen_logs
from .merging import counts_of, merge, merge_counts
from .signs import Notifier, read_pid, remove_file, write_file
from .sockets import Sockets
from .watch import watch_sources

__all__ = ["Master"]

logger = logging.getLogger(__name__)

_FIRST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0  # seconds until a dead front's successor is started
_GROWN_UP_AFTER = 10.0  # seconds: one that lived longer did not die young
_PATIENCE = 3.0  # seconds that a connection which came to an old front just now has for its first call
_SAME_SIGNAL = 0.5  # seconds in which a repeated signal is the same one: from the terminal and from a parent as well
_STATUS_WITHIN = 1.0  # seconds
_DUMP_WITHIN = 5.0  # seconds


class Master:
    """Runs ``greentask serve``; ``run`` is the whole of it.

    config
        What the fronts are told.
    inherited
        Listening sockets that were passed on by systemd, with their addresses.
    socket_mode, socket_owner
        Permissions of a unix socket's file, and whose it is.
    pid_file, ready_file
        Where the process id is written, and (once it serves) the addresses.
    watch
        Folders whose source files, when they change, bring about a reload.
    say
        Tells the user that it serves, or why it can't.
    """

    def __init__(
        self,
        config: ServeConfig,
        inherited: list[tuple[GreenSocket, Address]],
        *,
        socket_mode: int | None = None,
        socket_owner: str | None = None,
        pid_file: str | None = None,
        ready_file: str | None = None,
        watch: Sequence[str] = (),
        say: Callable[[str], object],
    ) -> None:
        self._config = config
        self._sockets = Sockets(inherited, config.fronts, mode=socket_mode, owner=socket_owner)
        self._files = {"--pid-file": pid_file, "--ready-file": ready_file}
        self._watch = watch
        self._written: dict[str, str] = {}  # path -> what is in it
        self._say = say
        self._notifier = Notifier()
        self._admin = AdminServer(
            {
                "reload": self._reload_for_caller,
                "stop": self._stop_soon,
                "status": self.status,
                "resize": self.resize,
                "reopen": self.reopen,
                "dump": self.dump,
                "restart": self.restart,
                "queue": self.queue,
            }
        )
        self._fronts: dict[int, Front] = {}  # those that serve, by number
        self._others: set[Front] = set()  # those that start for a reload, and those that drain
        self._reloading = BoundedSemaphore()
        self._next_reload: AsyncResult[dict[str, Any]] | None = None  # the one that has not begun yet, if any
        self._past: dict[str, Any] = {}  # what the fronts have counted that are gone
        self._started_at = time.monotonic()
        self._reloads = self._deaths = 0
        self._young_deaths = 0  # in a row
        self._stopping, self._stopping_since = False, 0.0
        self._ended = Event()
        self._serves = Event()
        self._told = ""  # what it serves, and where
        self._code = 0

    def run(self) -> int:
        """Serve until a signal says that it is over; the exit status.

        Raises ``GreentaskError`` where it can't start.
        """
        self._take_signals()
        set_title(f"master, {' '.join(self._config.apps)}")
        try:
            self._refuse_taken_pid_file()
            self._sockets.listen(self._config)
            self._write("--pid-file", f"{os.getpid()}\n")
            self._admin.start()
            if self._watch:
                watch_sources(self._watch, lambda: _log_errors(self._reload_if_possible))
            if self._config.queue is not None:
                from .unblocking import unblock  # and what it knows of queues

                gevent.spawn(unblock, os.path.abspath(self._config.queue), self._config.queue_lease, self._all)
            self._begin()
            self._ended.wait()
        finally:
            for front in self._all():
                front.kill()
            self._admin.close()
            self._sockets.close()
            for path, text in self._written.items():
                remove_file(path, text)
        return self._code

    def _begin(self) -> None:
        for number in range(self._config.fronts):
            self._fronts[number] = self._start(number)
        try:
            ready = [front.wait_ready() for front in self._fronts.values()]
        except FrontFailed:
            if self._stopping:
                return
            raise
        processes = sum(one["processes"] for one in ready)
        self._told = _count(ready[0]["tasks"], "task") + f" on {', '.join(self._sockets.addresses)}"
        fronts = f", {_count(self._config.fronts, 'front')}" if self._config.fronts > 1 else ""
        pool = f", {_count(processes, 'task process')}" if processes else ""
        metrics = f", metrics on {self._sockets.metrics_url}" if self._sockets.metrics_url is not None else ""
        self._write("--ready-file", "\n".join(self._sockets.addresses) + "\n")
        self._notifier.ready(f"serves {self._told}")
        self._serves.set()
        self._say(f"greentask {__version__} serves {self._told} (pid {os.getpid()}{fronts}{pool}{metrics})")

    # ---- What it is told to do

    def reload(self) -> dict[str, Any]:
        """Start fronts with the code as it is now; when all serve, let the old ones drain.

        One reload at a time; whoever wants one meanwhile shares the next one, which loads the code for all of them.
        Raises ``FrontFailed`` where the new code can't be imported: then the old fronts go on as they were.
        """
        if self._next_reload is None:
            self._next_reload = AsyncResult()
            gevent.spawn(self._reload_next)
        done = self._next_reload.get()
        assert done is not None
        return done

    def _reload_next(self) -> None:
        with self._reloading:
            self._serves.wait()
            wanted, self._next_reload = self._next_reload, None
            assert wanted is not None
            try:
                wanted.set(self._load_anew())
            except Exception as error:
                wanted.set_exception(error)

    def _load_anew(self) -> dict[str, Any]:
        self._refuse_while_stopping()
        self._notifier.reloading()
        fresh: dict[int, Front] = {}
        try:
            for number in range(self._config.fronts):
                fresh[number] = self._start(number)
                self._others.add(fresh[number])
            for front in fresh.values():
                front.wait_ready()
            self._refuse_while_stopping()
        except GreentaskError:
            for front in fresh.values():
                front.kill()
            self._refuse_while_stopping()
            raise
        finally:
            if not self._stopping:
                self._notifier.ready(f"serves {self._told}")
        old, self._fronts = self._fronts, fresh
        self._others.difference_update(fresh.values())
        for number, front in fresh.items():
            if front.status is not None:  # it died between its own readiness and the others'
                self._replace_soon(number)
        for front in old.values():
            if front.status is None:
                self._others.add(front)
                front.drain(self._config.drain_timeout, _PATIENCE)
        self._reloads += 1
        logger.info("reloaded: %s with the new code, the old ones drain", _count(len(fresh), "front"))
        return {"fronts": len(fresh), "reloads": self._reloads}

    def _refuse_while_stopping(self) -> None:
        if self._stopping:
            raise ChannelError("this server is stopping")

    def stop(self, timeout: float) -> None:
        """Take no more connections, let the fronts answer what is in flight for up to ``timeout`` seconds, and end."""
        if not self._stopping:
            self._stopping, self._stopping_since = True, time.monotonic()
            self._serves.set()  # it never will: who waits for it is told so
            self._notifier.stopping()
            self._sockets.close()
        for front in self._all():
            front.drain(timeout)
        if not self._all():
            self._ended.set()

    def resize(self, more: int) -> int:
        """Have more (or, below zero, fewer) task processes in all; how many that makes."""
        self._serves.wait()
        self._refuse_while_stopping()
        size = sum(front.wait_ready()["default"] for front in self._fronts.values() if front.is_ready)
        if size == 0:
            raise ChannelError("no task here runs in processes of the group default, which could be more or fewer")
        self._config = self._config.with_processes(max((self._config.processes or size) + more, self._config.fronts))
        for front in self._all():
            if not front.is_draining:
                front.resize(self._config.for_front(front.number).processes or 1)
        assert self._config.processes is not None
        logger.info("%s of the group default from now on", _count(self._config.processes, "task process"))
        return self._config.processes

    def dump(self) -> str:
        """What all fronts and task processes are doing: their stacks."""
        told = []
        for front in self._all():
            try:
                text = front.ask("dump", within=_DUMP_WITHIN)
            except ChannelError as error:
                text = f"  {error}: it is stopped, starting, or its loop is held\n"
            told.append(f"==== front {front.number}, process {front.pid}\n\n{text}")
        return "\n".join(told)

    def restart(self, group: str) -> None:
        """Replace the task processes of a group. Raises ``ChannelError`` where there is none of that name."""
        serving = [front for front in self._fronts.values() if front.is_ready and front.status is None]
        if not serving:
            raise ChannelError("no front serves just now; the next one has new processes")
        for front in serving:
            front.ask("restart", within=_STATUS_WITHIN, group=group)

    def reopen(self) -> None:
        """Let everybody go on in new log files."""
        reopen_logs()
        for front in self._all():
            if front.is_ready:
                front.tell("reopen")

    def status(self, detail: bool = False, by_task: bool = False) -> dict[str, Any]:
        """What it and its fronts are doing, as ``greentask.status`` answers."""
        asked = {front: gevent.spawn(_status_of, front, detail, by_task) for front in self._all() if front.is_ready}
        gevent.joinall(list(asked.values()))
        answers, silent = [], []
        for front, one in asked.items():
            if front.status is not None:
                continue  # what it has counted is with the past since a moment ago
            if one.value is None:
                silent.append(front)
            else:
                answers.append(one.value)
        # Of those that are silent, what they last told: or what is counted would be less for a while, and then more.
        status = merge(answers, merge_counts([self._past, *(front.counted for front in silent)]))
        status["silent"] = [front.pid for front in silent]
        status["master"] = {
            "pid": os.getpid(),
            "memory": resident(os.getpid()),
            "uptime": round(time.monotonic() - self._started_at, 3),
            "reloads": self._reloads,
            "deaths": self._deaths,
        }
        status["listen"] = self._sockets.addresses
        return status

    def queue(self) -> dict[str, Any]:
        """Where the durable tasks are, for those who may have the file themselves; ``uptime`` tells who this is."""
        uptime = time.monotonic() - self._started_at
        return {"file": self._config.queue, "uptime": uptime, "listen": self._sockets.addresses}

    # ---- The fronts

    def _all(self) -> list[Front]:
        return [front for front in (*self._fronts.values(), *self._others) if front.status is None]

    def _start(self, number: int) -> Front:
        config, sockets = self._config.on(self._sockets.addresses), self._sockets
        front = Front(
            number,
            config,
            sockets.fds,
            sockets.shares,
            sockets.metrics_fd,
            ask_status=self.status,
            ended=self._front_ended,
        )
        if self._stopping:  # since a moment ago, and it was not there to be told
            front.kill()
        return front

    def _front_ended(self, front: Front) -> None:
        self._others.discard(front)
        if front.counted:
            self._past = merge_counts([self._past, front.counted])
        if front.is_draining and front.status and front.is_ready:
            logger.warning("front %d (process %d), which drained, %s", front.number, front.pid, front.how_it_ended)
        if self._stopping:
            if not self._all():
                self._ended.set()
        elif self._fronts.get(front.number) is front and front.ready.successful():
            self._deaths += 1
            logger.warning("front %d (process %d) %s", front.number, front.pid, front.how_it_ended)
            if time.monotonic() - front.started_at > _GROWN_UP_AFTER:
                self._young_deaths = 0
            self._replace_soon(front.number)

    def _replace_soon(self, number: int) -> None:
        gevent.spawn_later(self._pause(), self._replace, number)

    def _pause(self) -> float:
        """Seconds until the next try, twice as many as before it."""
        pause: float = min(_FIRST_PAUSE * 2**self._young_deaths, _LONGEST_PAUSE)
        self._young_deaths = min(self._young_deaths + 1, 10)
        return pause

    def _replace(self, number: int) -> None:
        """Start a front in the place of one that died, until one serves."""
        failed: Front | None = None  # one that is killed for its --start-timeout may take its time for that, too
        while not self._stopping and (self._fronts[number] is failed or self._fronts[number].status is not None):
            before = self._fronts[number]
            front = None
            try:
                front = self._start(number)
                if self._fronts[number] is not before:  # a reload has brought another one meanwhile
                    front.kill()
                    return
                self._fronts[number] = front
                front.wait_ready()
            except FrontFailed as error:
                if self._stopping or self._fronts[number] is not (front or before):
                    return
                logger.error("front %d can't start again, and is tried further: %s", number, error.with_trace)
                failed = self._fronts[number]
                gevent.sleep(self._pause())

    # ---- Signals and files

    def _take_signals(self) -> None:
        def end(number: int) -> None:
            if not self._stopping:
                if not self._told and number == signal.SIGINT:
                    self._code = 130  # as shells count it: 128 and the signal's number
                self.stop(self._config.drain_timeout)
            elif time.monotonic() - self._stopping_since > _SAME_SIGNAL:
                logger.warning("a signal while it stops: stopping now")
                self.stop(0.0)

        for number, function in (
            (signal.SIGTERM, lambda: end(signal.SIGTERM)),
            (signal.SIGINT, lambda: end(signal.SIGINT)),
            (signal.SIGHUP, self._reload_if_possible),
            (signal.SIGTTIN, lambda: self.resize(1)),
            (signal.SIGTTOU, lambda: self.resize(-1)),
            (signal.SIGUSR1, self.reopen),
        ):
            gevent.signal_handler(number, _log_errors, function)

    def _reload_if_possible(self) -> None:
        if self._next_reload is not None:
            return  # that one will load the code as it is then
        try:
            self.reload()
        except FrontFailed as error:
            logger.error("the reload failed, and the old code goes on: %s", error.with_trace)

    def _reload_for_caller(self) -> dict[str, Any]:
        """The caller is shown the traceback; here it would be in systemd's journal for the second time."""
        try:
            return self.reload()
        except FrontFailed as error:
            last = error.trace.rstrip().rpartition("\n")[2]
            logger.error("the reload failed, and the old code goes on: %s%s", error, last and f": {last}")
            raise FrontFailed(f"the old code goes on, for {error}", error.trace) from None

    def _stop_soon(self, timeout: float | None = None) -> dict[str, Any]:
        gevent.spawn(self.stop, self._config.drain_timeout if timeout is None else timeout)
        return {"pid": os.getpid()}

    def _refuse_taken_pid_file(self) -> None:
        path = self._files["--pid-file"]
        pid = read_pid(path) if path is not None else None
        if pid not in (None, os.getpid()) and answers(pid):
            raise ConfigurationError(
                f"--pid-file: {path} has the id of a server that runs (process {pid}): stop it, or name another file"
            )

    def _write(self, flag: str, text: str) -> None:
        path = self._files[flag]
        if path is not None:
            write_file(path, text, flag)
            self._written[path] = text


def _log_errors(function: Callable[[], object]) -> None:
    """Call it; log what it raises, which would end the program where gevent calls it for a signal."""
    try:
        function()
    except GreentaskError as error:
        logger.warning("%s", error)
    except Exception:
        logger.exception("what was asked for by a signal failed")


def _status_of(front: Front, detail: bool, by_task: bool) -> dict[str, Any] | None:
    try:
        status: dict[str, Any] = front.ask("status", within=_STATUS_WITHIN, detail=detail, by_task=by_task)
    except ChannelError:  # it has too much to do, or is going
        return None
    front.counted = counts_of(status) or front.counted  # now: what it tells at its end is not to be put back
    return {"front": front.number, **status}


def _count(number: int, thing: str) -> str:
    if number == 1:
        return f"1 {thing}"
    return f"{number} {thing}{'es' if thing.endswith('s') else 's'}"
