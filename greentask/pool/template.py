"""The template: a clean process that imports the task modules once and forks the task processes.

It never runs a task, has one thread, and reads one socket: the pool's requests. It is the only one that waits for
the processes, so a process id that it signals is never somebody else's. When the pool's end of the socket closes, it
kills every process that it made, and what those left behind, and ends.
"""

from __future__ import annotations

import contextlib
import faulthandler
import gc
import importlib
import importlib.util
import os
import select
import signal
import socket
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from types import FrameType, ModuleType
from typing import NoReturn

from .child import Handler, serve
from .linux import become_subreaper, children, die_with_parent, outlive_parent, set_title
from .setup import Setup, loading, receive_setup

__all__ = ["RECORD", "Record", "main"]

#: One record of the pool's control socket: kind, slot, process id, status or signal (or a length, with FAILED).
RECORD = struct.Struct("<Biii")


#: What is said to the server, and comes to every process of a unit or of a terminal's.
_IGNORED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)


class Record:
    """Kinds of records: the pool asks FORK and SIGNAL, the template tells the rest."""

    FORK = 1
    SIGNAL = 2  # status: the signal; to the process's whole group if the slot is 1
    READY = 3
    FAILED = 4  # followed by a traceback of ``status`` bytes
    STARTED = 5  # carries the pool's end of the process's socket
    EXITED = 6


def main(fd: int) -> None:
    """Run the template until the pool closes its end of the socket ``fd``: what the pool's command line calls."""
    os.setsid()  # out of the terminal's reach: Ctrl-C is for the program in front, which then ends us
    for ignored in _IGNORED:
        signal.signal(ignored, _ignore)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    with socket.socket(fileno=fd) as control:
        control.setblocking(True)
        control.set_inheritable(False)
        try:
            setup = receive_setup(control)
            # What is imported may wait for ever, and until it is done nobody looks at the socket.
            die_with_parent()
            if _has_ended(control):
                return
            with loading(), _telling_after(setup.start):
                handler = _load(setup)
            outlive_parent()  # there is more to do then than to die
        except BaseException:
            text = traceback.format_exc().encode("utf-8", "replace")
            with contextlib.suppress(OSError):  # the pool is gone
                control.sendall(RECORD.pack(Record.FAILED, 0, 0, len(text)) + text)
            return
        become_subreaper()
        set_title("template of task processes")
        gc.collect()
        gc.freeze()  # no collection touches these objects again, so their pages stay shared with the processes
        _Template(control, handler).run()


class _StayPlain:
    """A finder that lets ``gevent.monkey`` be imported without effect.

    What a template imports may begin with ``monkey.patch_all()``: a program's own main module, say. In a task process
    there is no hub, and sockets must block.
    """

    @classmethod
    def find_spec(cls, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name != "gevent.monkey":
            return None
        sys.meta_path.remove(cls)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run(module)
                for patch in [name for name in vars(module) if name.startswith("patch_")]:
                    setattr(module, patch, lambda *_, **__: None)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


@contextlib.contextmanager
def _telling_after(seconds: float) -> Iterator[None]:
    """Where what is inside takes longer, tell stderr where it is: the pool kills us then. 0: never."""
    if seconds:
        with contextlib.suppress(Exception):  # there is no stderr
            faulthandler.dump_traceback_later(seconds)
    yield
    faulthandler.cancel_dump_traceback_later()


def _load(setup: Setup) -> Handler:
    sys.meta_path.insert(0, _StayPlain)
    sys.path[:] = setup.path
    module, _, name = setup.factory.partition(":")
    factory: Callable[..., Handler] = getattr(importlib.import_module(module), name)
    return factory(*setup.args)


def _has_ended(control: socket.socket) -> bool:
    try:
        return not control.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _ignore(_signal: int, _frame: FrameType | None) -> None:
    # A handler and not SIG_IGN, which programs that a task starts would inherit.
    pass


class _Template:
    def __init__(self, control: socket.socket, handler: Handler) -> None:
        self.control = control
        self.handler = handler
        self.processes: dict[int, int] = {}  # process id -> slot
        self.wake_read, self.wake_write = os.pipe()
        for fd in (self.wake_read, self.wake_write):
            os.set_blocking(fd, False)

    def run(self) -> None:
        signal.signal(signal.SIGCHLD, _ignore)
        signal.set_wakeup_fd(self.wake_write, warn_on_full_buffer=False)
        control = self.control.fileno()
        waiting = select.poll()  # not select, which takes no descriptor above 1023: this one has its pool's number
        for fd in (control, self.wake_read):
            waiting.register(fd, select.POLLIN)
        try:
            self.control.sendall(RECORD.pack(Record.READY, 0, 0, 0))
            while True:
                readable = [fd for fd, _ in waiting.poll()]
                if self.wake_read in readable:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self.wake_read, 4096)
                    self.reap()
                if control in readable and not self.obey():
                    break
        except (BrokenPipeError, ConnectionResetError):
            pass  # the pool is gone
        finally:
            self.end()

    def obey(self) -> bool:
        """Carry out one request; False when the pool is gone."""
        data = self.control.recv(RECORD.size, socket.MSG_WAITALL)
        if len(data) < RECORD.size:
            return False
        kind, slot, pid, number = RECORD.unpack(data)
        if kind == Record.FORK:
            self.fork(slot)
        elif kind == Record.SIGNAL and pid in self.processes:
            for send in (os.killpg, os.kill) if slot else (os.kill,):  # a task may have left its group
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    send(pid, number)
        return True

    def fork(self, slot: int) -> None:
        parent = os.getpid()
        try:
            ours, theirs = socket.socketpair()
            pid = os.fork()
        except OSError:  # out of descriptors, processes or memory: the pool tries again later
            self.control.sendall(RECORD.pack(Record.EXITED, slot, 0, 1))
            return
        if pid == 0:
            self.become_process(theirs, ours, parent)
        with contextlib.suppress(OSError):
            os.setpgid(pid, pid)  # here as well as there: whoever comes first, before anybody signals the group
        self.processes[pid] = slot
        theirs.close()
        socket.send_fds(self.control, [RECORD.pack(Record.STARTED, slot, pid, 0)], [ours.fileno()])
        ours.close()

    def become_process(self, channel: socket.socket, other: socket.socket, parent: int) -> NoReturn:
        try:
            with contextlib.suppress(OSError):
                os.setpgid(0, 0)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            os.close(self.wake_read)
            os.close(self.wake_write)
            self.control.close()
            other.close()
            die_with_parent()
            set_title("task process")
            if os.getppid() == parent:
                serve(channel.detach(), self.handler)
        finally:
            os._exit(1)

    def reap(self) -> None:
        """Tell the pool of processes that ended; collect what they left behind."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            slot = self.processes.pop(pid, None)
            if slot is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)
                self.control.sendall(RECORD.pack(Record.EXITED, slot, pid, os.waitstatus_to_exitcode(status)))

    def end(self) -> None:
        for pid in self.processes:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
        # As a subreaper we inherit what the processes had forked, even into other groups: until none is left.
        while True:
            for pid in children():
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
            try:
                os.waitpid(-1, 0)
            except ChildProcessError:
                return
