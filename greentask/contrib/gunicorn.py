"""Task processes beside gunicorn's workers, with no second command: hooks for ``gunicorn.conf.py``.

::

    from greentask.contrib.gunicorn import TaskServer

    tasks = TaskServer("shop.tasks", processes=8)
    on_starting, on_reload, on_exit = tasks.on_starting, tasks.on_reload, tasks.on_exit

The hooks run in gunicorn's master, which need not be a gevent program and reaps every child of its process: here is
a subprocess and nothing else, no hub.
"""

from __future__ import annotations

import atexit
import functools
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

from ..errors import ConfigurationError
from ..pool.linux import die_with_parent

__all__ = ["TaskServer"]

_STEP = 0.02  # seconds between two looks at whether it serves


@dataclass
class _Running:
    process: subprocess.Popen[bytes]
    command: tuple[str, ...]
    folder: str
    owner: int  # the gunicorn master's process id: a forked worker has a copy of this, which is not its own


# Not in the TaskServer: gunicorn runs its configuration file anew at a reload, and asks the new object's hooks.
_running: _Running | None = None


@functools.cache
def _folder() -> str:
    # A name that nobody can guess. The folder is not there before the task server is to start.
    return os.path.join(tempfile.gettempdir(), f"greentask-{secrets.token_hex(8)}")


def _address() -> str:
    return f"unix://{_folder()}/tasks"


def _die_with(parent: int) -> None:
    die_with_parent()
    if os.getppid() != parent:  # it was gone before that
        os._exit(1)


@contextmanager
def _signals_later() -> Iterator[None]:
    """Handle a Ctrl-C, or a stop, at the end of it: one that came inside Popen would leave a process nobody knows of.

    By handlers, for a blocked signal would go to another thread, and come here from there.
    """
    came: list[tuple[int, FrameType | None]] = []
    handlers: dict[int, Callable[[int, FrameType | None], Any]] = {}
    try:
        if threading.current_thread() is threading.main_thread():  # where alone they are handled
            for number in (signal.SIGINT, signal.SIGTERM):
                handler = signal.getsignal(number)
                if callable(handler):
                    handlers[number] = handler
                    signal.signal(number, lambda *told: came.append(told))
        yield
    finally:
        for each, handler in handlers.items():
            signal.signal(each, handler)
        for told in came:
            handlers[told[0]](*told)


class TaskServer:
    """One ``greentask serve`` for all workers of a gunicorn, on a private Unix socket.

    Workers find it by ``GREENTASK_URL``, which is set here: tasks are called with no further configuration.

    apps
        Modules with tasks, as ``greentask serve`` takes them.
    processes
        Task processes in all; ``None``: one for each processor.
    options
        Further arguments of ``greentask serve``, such as ``["--max-tasks", "1000"]``.
    timeout
        Seconds for starting, and for a reload.
    drain_timeout
        Seconds that calls in flight have for ending when gunicorn stops or reloads.
    """

    def __init__(
        self,
        *apps: str,
        processes: int | None = None,
        options: tuple[str, ...] | list[str] = (),
        timeout: float = 60.0,
        drain_timeout: float = 30.0,
    ) -> None:
        if not apps:
            raise ConfigurationError('TaskServer() has no tasks: name their module, as in TaskServer("shop.tasks")')
        self._timeout = timeout
        self._drain_timeout = drain_timeout
        size = () if processes is None else ("--processes", str(processes))
        self._command = (*apps, *size, "--drain-timeout", str(drain_timeout), *options)
        # Now, for with --preload gunicorn imports the application, and what that makes of it, before on_starting.
        os.environ["GREENTASK_URL"] = _address()

    def on_starting(self, server: Any) -> None:
        """Start it and wait until it serves. Raises ``ConfigurationError`` where it can't; gunicorn ends then."""
        global _running
        user: dict[str, Any] = {}
        folder = _folder()
        os.mkdir(folder, 0o700)
        if os.geteuid() == 0 and server.cfg.uid != 0:  # tasks run as whom the workers run as, and never as root
            os.chown(folder, server.cfg.uid, server.cfg.gid)
            user = {"user": server.cfg.uid, "group": server.cfg.gid, "extra_groups": []}
        address, ready = _address(), Path(folder, "ready")
        given = ["--listen", address, "--socket-mode", "600", "--ready-file", str(ready)]
        die_with_us = functools.partial(_die_with, os.getpid())
        process: subprocess.Popen[bytes] | None = None
        try:
            with _signals_later():
                process = subprocess.Popen(
                    [sys.executable, "-m", "greentask", "serve", *self._command, *given],
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,  # Ctrl-C is gunicorn's: its workers' last requests still call tasks
                    preexec_fn=die_with_us,  # its fronts then answer what is in flight, and end
                    **user,
                )
            self._wait_ready(process, ready)
        except BaseException:  # Ctrl-C as well
            if process is not None:
                process.kill()
                process.wait()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        _running = _Running(process, self._command, folder, os.getpid())
        # gunicorn calls no on_exit where it can't bind its address, or a new worker can't import the application.
        atexit.register(self.on_exit, server)
        os.environ["GREENTASK_URL"] = address
        server.log.info("Task server at %s (pid: %s)", address, process.pid)

    def _wait_ready(self, process: subprocess.Popen[bytes], ready: Path) -> None:
        until = time.monotonic() + self._timeout
        while not ready.exists():
            ended = process.poll() is not None
            if ended or time.monotonic() > until:
                how = "could not start" if ended else f"did not serve within {self._timeout:g} s (timeout=)"
                raise ConfigurationError(f"the task server {how}: see the lines above")
            time.sleep(_STEP)

    def on_reload(self, server: Any) -> None:
        """Let it load its code anew, before the new workers start. Where it can't, the old code goes on."""
        if _running is None or _running.owner != os.getpid():
            return
        if _running.process.poll() is not None:
            server.log.error("The task server is gone; starting it again")
            self._forget()
            self.on_starting(server)
            return
        if self._command != _running.command:
            server.log.warning("The task server's options have changed: they take effect when gunicorn is started anew")
        try:
            # Its status may have been reaped by gunicorn: what went wrong is in the lines that it writes.
            command = [sys.executable, "-m", "greentask", "reload", "--pid", str(_running.process.pid)]
            subprocess.run(command, stdin=subprocess.DEVNULL, timeout=self._timeout)
        except subprocess.TimeoutExpired:
            server.log.error("The task server did not reload within %g s (timeout=)", self._timeout)

    def on_exit(self, server: Any) -> None:
        """Stop it, after gunicorn's workers have ended; calls in flight that nobody waits for may still end."""
        if _running is None or _running.owner != os.getpid():
            return
        _running.process.terminate()
        try:
            _running.process.wait(self._drain_timeout + 5)
        except subprocess.TimeoutExpired:
            server.log.error("The task server did not end in time, and is killed")
            _running.process.kill()
            _running.process.wait()
        self._forget()

    def _forget(self) -> None:
        global _running
        assert _running is not None
        shutil.rmtree(_running.folder, ignore_errors=True)
        _running = None
        _folder.cache_clear()  # fronts of one that was killed may have calls in flight in that one, and clean up
