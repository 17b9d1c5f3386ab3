"""The pool's end of its template's control socket: asks for processes and signals, hears of starts and exits."""

from __future__ import annotations

import array
import contextlib
import os
import signal
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

import gevent
from gevent import monkey

from ..hub.outlet import Outlet
from .setup import Setup, setup_message, start_template
from .template import RECORD, Record

__all__ = ["TemplateEvents", "TemplateLink"]

_READ = 1  # the event loop's name for "readable"
_waitpid: Callable[[int, int], tuple[int, int]] = monkey.get_original("os", "waitpid")
_Socket: type[socket.socket] = monkey.get_original("socket", "socket")
_REAPED_EVERY = 0.005  # seconds between looks at a template that is ending
_FD_SIZE = array.array("i").itemsize


class TemplateEvents(Protocol):
    """What a template tells its pool, in the hub."""

    def template_ready(self) -> None:
        """It has imported everything and can fork."""

    def template_failed(self, trace: str) -> None:
        """The code that it should import raised; the traceback's text."""

    def template_gone(self) -> None:
        """It ended, and every process with it."""

    def process_started(self, slot: int, pid: int, fd: int) -> None:
        """A process was forked; ``fd`` is our end of its socket."""

    def process_exited(self, slot: int, pid: int, status: int) -> None:
        """A process ended, or could not be forked (``pid`` 0): its exit code, or a signal's number below zero."""


class TemplateLink:
    """Starts one template and talks to it. Belongs to the hub whose ``loop`` it gets."""

    def __init__(self, loop: Any, setup: Setup, events: TemplateEvents) -> None:
        self._loop = loop
        self._events = events
        self._closed = False
        self._has_ended = False
        self._reaper: Any = None
        self._reported = 0  # bytes of a traceback still to come
        self._report = b""
        ours, theirs = socket.socketpair()
        self._socket = _Socket(fileno=ours.detach())
        self._socket.setblocking(False)
        theirs.setblocking(True)
        try:
            self.pid = start_template(theirs)
        finally:
            theirs.close()
        self._watcher = loop.io(self._socket.fileno(), _READ)
        self._watcher.start(self._readable)
        # Not just a send: the setup, or requests for hundreds of processes at once, are more than a socket holds. What
        # can't be written is no matter: the end of the file tells.
        self._outlet = Outlet(loop, self._socket.fileno(), lambda _: None)
        self._outlet.write(*setup_message(setup))

    def fork(self, slot: int) -> None:
        """Ask for a process."""
        self._send(Record.FORK, slot, 0, 0)

    def signal(self, pid: int, number: int, *, group: bool = False) -> None:
        """Ask for a signal to one of its processes, or to that process's whole group.

        The template alone waits for them, so it can't hit a stranger that got the same number.
        """
        self._send(Record.SIGNAL, int(group), pid, number)

    def end(self, timeout: float) -> None:
        """Tell the template to end all its processes and itself, and wait for that; after ``timeout``, kill it."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        deadline = time.monotonic() + timeout
        while not self._reaped():
            if time.monotonic() >= deadline:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(self.pid, signal.SIGKILL)
                deadline += 1
            gevent.sleep(_REAPED_EVERY)
        self.close()

    def close(self) -> None:
        """Let go of the socket; the template ends when it notices."""
        if not self._closed:
            self._closed = True
            self._watcher.stop()
            self._watcher.close()
            self._outlet.close()
            self._socket.close()
            self._stop_reaper()

    def abandon(self) -> None:
        """In a forked child: drop our copy of the socket, so that the template sees its pool's end."""
        self._closed = True
        self._watcher.stop()
        self._outlet.abandon()
        self._socket.close()

    def _reaped(self) -> bool:
        try:
            return _waitpid(self.pid, os.WNOHANG)[0] != 0
        except ChildProcessError:  # libev's or the user's handler was first
            return True

    def _send(self, kind: int, slot: int, pid: int, number: int) -> None:
        self._outlet.write(RECORD.pack(kind, slot, pid, number))

    def _ended(self) -> None:
        # Its socket ends a moment before the process itself, which would stay a zombie if we didn't wait for it.
        if self._reaper is None:
            self._reaper = self._loop.timer(_REAPED_EVERY, _REAPED_EVERY)
            self._reaper.start(self._reap)

    def _reap(self) -> None:
        if self._reaped():
            self._events.template_gone()
            self._stop_reaper()  # last: where a Ctrl-C comes in between, it is told once more

    def _stop_reaper(self) -> None:
        if self._reaper is not None:
            self._reaper.stop()
            self._reaper.close()
            self._reaper = None

    def mend(self) -> None:
        """Do what a Ctrl-C may have taken the place of. Of no effect where it hasn't."""
        if not self._closed:
            self._outlet.mend()
            if not self._has_ended and not self._watcher.active:  # gevent has stopped it
                self._watcher.start(self._readable)

    def _readable(self) -> None:
        try:
            self._read()
        except BaseException:  # a Ctrl-C, with which what it said is lost: who lives, and who has died
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)
            raise

    def _read(self) -> None:
        while not self._closed:
            try:
                # Never more than one record at a time: the descriptor that comes along is that record's.
                size = min(self._reported, 65536) or RECORD.size
                data, ancillary, _, _ = self._socket.recvmsg(size, socket.CMSG_LEN(_FD_SIZE), socket.MSG_CMSG_CLOEXEC)
            except BlockingIOError:
                return
            except OSError:
                data, ancillary = b"", []
            if not data:
                self._has_ended = True
                self._watcher.stop()
                self._ended()
                return
            if self._reported:
                self._report += data
                self._reported -= len(data)
                if not self._reported:
                    self._events.template_failed(self._report.decode("utf-8", "replace"))
            else:
                self._take(data, ancillary)

    def _take(self, data: bytes, ancillary: list[tuple[int, int, bytes]]) -> None:
        kind, slot, pid, number = RECORD.unpack(data)
        if kind == Record.READY:
            self._events.template_ready()
        elif kind == Record.FAILED:
            self._reported = number
        elif kind == Record.EXITED:
            self._events.process_exited(slot, pid, number)
        elif kind == Record.STARTED:
            fds = array.array("i")
            for _, _, packed in ancillary:
                fds.frombytes(packed[: len(packed) - len(packed) % _FD_SIZE])
            if fds:
                self._events.process_started(slot, pid, fds[0])
            else:  # out of descriptors here
                self.signal(pid, signal.SIGKILL, group=True)
