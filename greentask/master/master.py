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
from dataclasses import replace
from typing import Any

import gevent
from gevent.event import Event
from gevent.lock import BoundedSemaphore
from gevent.socket import socket as GreenSocket

from .._version import __version__
from ..errors import GreentaskError
from ..pool.linux import set_title
from ..server.listening import SECRET_REMEDY, SocketFile, bound_address, listen_on, socket_files
from ..wire.address import parse_addresses
from .admin import AdminServer
from .channel import ChannelError
from .config import ServeConfig
from .fronts import Front, FrontFailed
from .logs import reopen_logs
from .merging import merge
from .signs import Notifier, remove_file, write_file
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
        Listening sockets that were passed on by systemd.
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
        inherited: list[GreenSocket],
        *,
        socket_mode: int | None = None,
        socket_owner: str | None = None,
        pid_file: str | None = None,
        ready_file: str | None = None,
        watch: Sequence[str] = (),
        say: Callable[[str], object],
    ) -> None:
        self._config = config
        self._sockets = inherited
        self.addresses = [str(bound_address(sock)) for sock in inherited]  # with the ports that the kernel chose
        self._socket_mode = socket_mode
        self._socket_owner = socket_owner
        self._socket_files: list[SocketFile] = []
        self._files = {"--pid-file": pid_file, "--ready-file": ready_file}
        self._watch = watch
        self._written: dict[str, str] = {}  # path -> what is in it
        self._say = say
        self._notifier = Notifier()
        self._admin = AdminServer(
            {
                "reload": self.reload,
                "stop": self._stop_soon,
                "status": self.status,
                "resize": self.resize,
                "reopen": self.reopen,
                "dump": self.dump,
                "restart": self.restart,
            }
        )
        self._fronts: dict[int, Front] = {}  # those that serve, by number
        self._others: set[Front] = set()  # those that start for a reload, and those that drain
        self._reloading = BoundedSemaphore()
        self._started_at = time.monotonic()
        self._reloads = self._deaths = 0
        self._young_deaths = 0  # in a row
        self._stopping = False
        self._ended = Event()
        self._told = ""  # what it serves, and where
        self._code = 0

    def run(self) -> int:
        """Serve until a signal says that it is over; the exit status.

        Raises ``GreentaskError`` where it can't start.
        """
        self._take_signals()
        set_title(f"master, {' '.join(self._config.apps)}")
        try:
            self._listen()
            self._write("--pid-file", f"{os.getpid()}\n")
            self._admin.start()
            if self._watch:
                watch_sources(self._watch, self._reload_if_possible)
            self._begin()
            self._ended.wait()
        finally:
            for front in self._all():
                front.kill()
            self._admin.close()
            self._close_sockets()
            for path, text in self._written.items():
                remove_file(path, text)
        return self._code

    def _listen(self) -> None:
        if self._config.listen:
            addresses = parse_addresses(self._config.listen)
            bound = listen_on(
                addresses,
                tls=self._config.tls,
                insecure=self._config.insecure or self._config.secret_file is not None,
                remedy=SECRET_REMEDY,
                socket_mode=self._socket_mode,
                socket_owner=self._socket_owner,
            )
            self._sockets += bound
            self._socket_files = socket_files(bound)
            self.addresses += [
                str(replace(bound_address(sock), scheme=address.scheme)) for address, sock in zip(addresses, bound)
            ]

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
        self._told = _count(ready[0]["tasks"], "task") + f" on {', '.join(self.addresses)}"
        fronts = f", {_count(self._config.fronts, 'front')}" if self._config.fronts > 1 else ""
        pool = f", {_count(processes, 'task process')}" if processes else ""
        self._write("--ready-file", "\n".join(self.addresses) + "\n")
        self._notifier.ready(f"serves {self._told}")
        self._say(f"greentask {__version__} serves {self._told} (pid {os.getpid()}{fronts}{pool})")

    # ---- What it is told to do

    def reload(self) -> dict[str, Any]:
        """Start fronts with the code as it is now; when all serve, let the old ones drain.

        Raises ``FrontFailed`` where the new code can't be imported: then the old fronts go on as they were.
        """
        with self._reloading:
            if self._stopping or not self._told:
                raise ChannelError("this server is stopping" if self._stopping else "this server starts just now")
            self._notifier.reloading()
            fresh = {number: self._start(number) for number in range(self._config.fronts)}
            self._others.update(fresh.values())
            try:
                for front in fresh.values():
                    front.wait_ready()
            except FrontFailed as error:
                for front in fresh.values():
                    front.kill()
                logger.error("the reload failed, and the old code goes on: %s\n%s", error, error.trace)
                raise FrontFailed(f"the old code goes on, for {error}", error.trace) from None
            finally:
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

    def stop(self, timeout: float) -> None:
        """Take no more connections, let the fronts answer what is in flight for up to ``timeout`` seconds, and end."""
        if not self._stopping:
            self._stopping = True
            self._notifier.stopping()
            self._close_sockets()
        for front in self._all():
            front.drain(timeout)
        if not self._all():
            self._ended.set()

    def resize(self, more: int) -> int:
        """Have more (or, below zero, fewer) task processes in all; how many that makes."""
        serving = [front for front in self._fronts.values() if front.is_ready]
        size = self._config.processes or sum(front.wait_ready()["processes"] for front in serving)
        if size == 0:
            raise ChannelError("no task here runs in processes: there are none to be more or fewer")
        self._config = self._config.with_processes(max(size + more, self._config.fronts))
        for number, front in self._fronts.items():
            front.resize(self._config.for_front(number).processes or 1)
        assert self._config.processes is not None
        logger.info("%s from now on", _count(self._config.processes, "task process"))
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
        for front in self._fronts.values():
            front.ask("restart", within=_STATUS_WITHIN, group=group)

    def reopen(self) -> None:
        """Let everybody go on in new log files."""
        reopen_logs()
        for front in self._all():
            if front.is_ready:
                front.tell("reopen")

    def status(self, detail: bool = False) -> dict[str, Any]:
        """What it and its fronts are doing, as ``greentask.status`` answers."""
        asked = [gevent.spawn(_status_of, front, detail) for front in self._all() if front.is_ready]
        gevent.joinall(asked)
        status = merge([one.value for one in asked if one.value is not None])
        status["master"] = {
            "pid": os.getpid(),
            "uptime": round(time.monotonic() - self._started_at, 3),
            "reloads": self._reloads,
            "deaths": self._deaths,
        }
        status["listen"] = self.addresses
        return status

    # ---- The fronts

    def _all(self) -> list[Front]:
        return [front for front in (*self._fronts.values(), *self._others) if front.status is None]

    def _start(self, number: int) -> Front:
        fds = [sock.fileno() for sock in self._sockets]
        config = self._config.on(self.addresses)
        return Front(number, config, fds, ask_status=self.status, ended=self._front_ended)

    def _front_ended(self, front: Front) -> None:
        self._others.discard(front)
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
        while not self._stopping and self._fronts[number].status is not None:
            front = self._fronts[number] = self._start(number)
            try:
                front.wait_ready()
            except FrontFailed as error:
                if self._stopping or self._fronts[number] is not front:
                    return
                logger.error("front %d can't start again, and is tried further: %s\n%s", number, error, error.trace)
                gevent.sleep(self._pause())

    # ---- Signals and files

    def _take_signals(self) -> None:
        first_at: list[float] = []

        def end(number: int) -> None:
            now = time.monotonic()
            if not first_at:
                first_at.append(now)
                if not self._told and number == signal.SIGINT:
                    self._code = 130  # as shells count it: 128 and the signal's number
                self.stop(self._config.drain_timeout)
            elif now - first_at[0] > _SAME_SIGNAL:
                logger.warning("a second signal: stopping now")
                self.stop(0.0)

        for number, function in (
            (signal.SIGTERM, lambda: end(signal.SIGTERM)),
            (signal.SIGINT, lambda: end(signal.SIGINT)),
            (signal.SIGHUP, self._reload_if_possible),
            (signal.SIGTTIN, lambda: self._resize_by_signal(1)),
            (signal.SIGTTOU, lambda: self._resize_by_signal(-1)),
            (signal.SIGUSR1, self.reopen),
        ):
            gevent.signal_handler(number, function)

    def _reload_if_possible(self) -> None:
        try:
            self.reload()
        except GreentaskError:
            pass  # it is logged

    def _resize_by_signal(self, more: int) -> None:
        try:
            self.resize(more)
        except GreentaskError as error:
            logger.warning("%s", error)

    def _stop_soon(self, timeout: float | None = None) -> dict[str, Any]:
        gevent.spawn(self.stop, self._config.drain_timeout if timeout is None else timeout)
        return {"pid": os.getpid()}

    def _write(self, flag: str, text: str) -> None:
        path = self._files[flag]
        if path is not None:
            write_file(path, text, flag)
            self._written[path] = text

    def _close_sockets(self) -> None:
        while self._socket_files:
            self._socket_files.pop().remove()
        for sock in self._sockets:
            sock.close()
        self._sockets = []


def _status_of(front: Front, detail: bool) -> dict[str, Any] | None:
    try:
        status: dict[str, Any] = front.ask("status", within=_STATUS_WITHIN, detail=detail)
    except ChannelError:  # it has too much to do, or is going
        return None
    return {"front": front.number, **status}


def _count(number: int, thing: str) -> str:
    if number == 1:
        return f"1 {thing}"
    return f"{number} {thing}{'es' if thing.endswith('s') else 's'}"
