"""A front as the master sees it: the process, the channel to it, and how it ended."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gevent
from gevent.event import AsyncResult
from gevent.socket import socketpair
from gevent.subprocess import DEVNULL, Popen

from ..errors import GreentaskError
from .channel import Channel
from .config import ServeConfig

__all__ = ["Front", "FrontFailed"]

_ROOT = str(Path(__file__).parents[2])

# How a front begins. gevent asks some 25 times which plugins are installed, for which all distributions are read each
# time: a third of a front's start. Here they are read once.
PATCH = """
from importlib import metadata
look, found = metadata.entry_points, metadata.entry_points()
metadata.entry_points = lambda **asked: found.select(**asked)
from gevent import monkey
monkey.patch_all()
metadata.entry_points = look
"""

_REST_WITHIN = 0.5  # seconds in which what it said before its end has been read
_LATE = 3.0  # seconds past the time for draining and tearing down after which a front is killed


class FrontFailed(GreentaskError):
    """A front could not start; the message says why, ``trace`` has the traceback of what it imports."""

    def __init__(self, message: str, trace: str = "") -> None:
        super().__init__(message)
        self.trace = trace

    @property
    def with_trace(self) -> str:
        """The message, and what is below it."""
        return f"{self}\n{self.trace.rstrip()}" if self.trace else str(self)


class Front:
    """One front process. Belongs to the master's hub.

    ``ended`` is called once, when the process is gone.
    """

    def __init__(
        self,
        number: int,
        config: ServeConfig,
        fds: Iterable[int],
        shares: int | None,
        metrics: int | None,
        ask_status: Callable[..., dict[str, Any]],
        ended: Callable[[Front], object],
    ) -> None:
        self.number = number
        self.started_at = time.monotonic()
        self.ready: AsyncResult[dict[str, int]] = AsyncResult()  # how many tasks and processes (of `default`) it has
        self.is_draining = False
        self.status: int | None = None  # its exit status, once it has ended
        self._ended = ended
        self._late = config.teardown_timeout + _LATE
        self._was_late = False
        self._start_timeout = config.start_timeout
        self.counted: dict[str, Any] = {}  # what it has counted: when it was last asked for all of it, or at its end
        fds = list(fds)
        inherited = [*fds, *(fd for fd in (shares, metrics) if fd is not None)]
        try:
            ours, theirs = socketpair()
        except OSError as error:
            raise _cannot_start(error) from None
        with theirs:
            fd = theirs.fileno()
            program = (
                f"{PATCH}import sys; sys.path.append({_ROOT!r}); from greentask.master.front import main; main({fd})"
            )
            # -W, -X, -O … of this interpreter, as multiprocessing hands them on to its processes.
            flags: list[str] = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]
            try:
                self._process = Popen([sys.executable, *flags, "-c", program], pass_fds=[fd, *inherited], stdin=DEVNULL)
            except OSError as error:
                ours.close()
                raise _cannot_start(error) from None
        self.pid: int = self._process.pid
        handlers: dict[str, Callable[..., Any]] = {
            "ready": self._hear_ready,
            "failed": self._hear_failed,
            "counted": self._hear_counted,
            "status": ask_status,
        }
        self._channel = Channel(ours, handlers)
        begin = {"config": config.for_front(number).to_json(), "fds": fds, "number": number}
        self._channel.tell("begin", **begin, shares=shares, metrics=metrics)
        gevent.spawn(self._wait)

    def wait_ready(self) -> dict[str, int]:
        """Wait until it serves. Raises ``FrontFailed``; one that takes too long is killed."""
        limit = self._start_timeout
        try:
            ready = self.ready.get(timeout=max(0.0, self.started_at + limit - time.monotonic()) if limit else None)
        except gevent.Timeout:
            why = f"a front (process {self.pid}) did not serve within {limit:g} s (--start-timeout)"
            self.ready.set_exception(FrontFailed(why))
            self.kill()
            raise FrontFailed(why) from None
        assert ready is not None
        return ready

    @property
    def is_ready(self) -> bool:
        """Whether it serves, or has served."""
        return bool(self.ready.successful())

    @property
    def how_it_ended(self) -> str:
        """Its exit, in words."""
        if self.status is None:
            return "is running"
        if self._was_late:
            return "did not end in time, and was killed"
        if self.status >= 0:
            return f"exited with code {self.status}"
        try:
            name = f" ({signal.Signals(-self.status).name})"
        except ValueError:  # most of the real-time signals have none
            name = ""
        return f"was killed by signal {-self.status}{name}"

    def drain(self, timeout: float, patience: float = 0.0) -> None:
        """Let it answer what is in flight for up to ``timeout`` seconds, and end.

        Connections that have just come have ``patience`` seconds for their first call.
        """
        self.is_draining = True
        if not self.is_ready:
            self.kill()
            return
        self._channel.tell("drain", timeout=timeout, patience=patience)
        gevent.spawn_later(timeout + patience + self._late, self._kill_late)

    def resize(self, processes: int) -> None:
        """Have so many task processes in it."""
        self._channel.tell("resize", processes=processes)

    def tell(self, what: str) -> None:
        """Tell it something that it doesn't answer."""
        self._channel.tell(what)

    def ask(self, what: str, *, within: float, **args: Any) -> Any:
        """Ask it. Raises ``ChannelError``, also where no answer comes ``within`` so many seconds."""
        return self._channel.ask(what, within=within, **args)

    def kill(self) -> None:
        """End it at once; its task processes end with it."""
        if self.status is None:
            self._process.kill()  # which knows of an end that _wait has yet to hear of

    def _kill_late(self) -> None:
        if self.status is None:
            self._was_late = True
            self.kill()

    def _hear_ready(self, tasks: int, processes: int, default: int) -> None:
        if not self.ready.ready():
            self.ready.set({"tasks": tasks, "processes": processes, "default": default})

    def _hear_failed(self, why: str, trace: str) -> None:
        if not self.ready.ready():
            self.ready.set_exception(FrontFailed(why, trace))

    def _hear_counted(self, counts: dict[str, Any]) -> None:
        self.counted = counts

    def _wait(self) -> None:
        self.status = self._process.wait()
        self._channel.wait_closed(_REST_WITHIN)
        self._channel.close()
        if not self.ready.ready():
            self.ready.set_exception(FrontFailed(f"a front (process {self.pid}) {self.how_it_ended} while it started"))
        self._ended(self)


def _cannot_start(error: OSError) -> FrontFailed:
    what = f"{error.filename}: " if error.filename else ""
    return FrontFailed(f"no further front can be started: {what}{error.strerror}")
