"""`python -m greentask …` at a fifth of its start's work: forked from a Python that has imported the command line.

A start reads and runs hundreds of modules, for a tenth of a second and more of a processor, and the tests start
hundreds of programs. What is forked goes on as it would otherwise, in a process of its own: with its arguments, its
environment, its folder, its input and output, and its exit code. In CI every program is started as its users start it.

The Python that forks has this module as its program. It forks a supervisor for each, which tells by a socket which
process it is, and how it has ended.
"""

import contextlib
import gc
import importlib
import json
import os
import resource
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from greentask import _early
from greentask.cli import main
from greentask.pool.linux import set_title
from support.parts import in_ci

__all__ = ["Forked", "can_fork", "end", "start"]

_COMMANDS = ("call", "dump", "enqueue", "queue", "reload", "restart", "serve", "status", "stop", "tasks")
_MOST = 1 << 20  # bytes of arguments and environment


class Forked:
    """A process of which only what `subprocess.Popen` has too is used."""

    def __init__(self, args: Sequence[str], told: socket.socket) -> None:
        self.args = list(args)
        self._told = told
        self._lines = told.makefile("rb")
        self.pid = int(self._lines.readline())
        self.returncode: int | None = None

    def __enter__(self) -> "Forked":
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
        self.close()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            poll = select.poll()  # no descriptor is too high for it
            poll.register(self._told, select.POLLIN)
            if not poll.poll(None if timeout is None else timeout * 1000):
                assert timeout is not None
                raise subprocess.TimeoutExpired(self.args, timeout)
            self.returncode = int(self._lines.readline())
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def close(self) -> None:
        self._lines.close()
        self._told.close()


# ---- Where the tests are

_forker: "tuple[subprocess.Popen[bytes], socket.socket, str] | None" = None


def can_fork(arguments: Sequence[str], variables: Mapping[str, str]) -> bool:
    """Whether such a program begins as well in a Python that has been there before it."""
    if in_ci() or arguments[0] not in _COMMANDS or "COVERAGE_PROCESS_START" in os.environ:
        return False
    return not any(name.startswith("PYTHON") for name in variables)  # which Python reads as it starts


def start(
    arguments: Sequence[str],
    env: Mapping[str, str],
    *,
    stdin: int,
    stdout: int,
    stderr: int,
    cwd: Path | None = None,
    new_session: bool = False,
) -> Forked:
    """Start `greentask ARGUMENTS` with these descriptors, which it has its own copies of."""
    control = _forking(env)
    told, theirs = socket.socketpair()
    with theirs:
        what = {
            "arguments": list(arguments),
            "env": dict(env),
            "cwd": str(cwd or os.getcwd()),
            "session": new_session,
            "descriptors": resource.getrlimit(resource.RLIMIT_NOFILE),
        }
        control.setblocking(True)
        socket.send_fds(control, [json.dumps(what).encode()], [theirs.fileno(), stdin, stdout, stderr])
    return Forked(arguments, told)


def end() -> None:
    """End the Python that forks."""
    global _forker
    if _forker is not None:
        process, control, _ = _forker
        _forker = None
        control.close()
        process.wait(10)


def _forking(env: Mapping[str, str]) -> socket.socket:
    global _forker
    path = env.get("PYTHONPATH", "")
    if _forker is None or _forker[0].poll() is not None or _forker[2] != path:
        end()
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _MOST)
        with theirs:
            fd = theirs.fileno()
            command = [sys.executable, "-m", "support.preloaded", str(fd)]
            none = subprocess.DEVNULL
            process = subprocess.Popen(command, env=env, pass_fds=[fd], stdin=none, stdout=none)
        _forker = (process, ours, path)
    return _forker[1]


# ---- The Python that forks


def _fork_all(control: socket.socket) -> dict[str, Any]:
    """What is to be run. This returns in each process that is forked, and never in the one that forks."""
    while True:
        data, fds, _, _ = socket.recv_fds(control, _MOST, 4)
        if not data:
            os._exit(0)
        if os.fork() == 0:
            control.close()
            with socket.socket(fileno=fds[0]) as told:
                pid = os.fork()
                if pid != 0:
                    _supervise(pid, fds[1:], told)
                for number, fd in enumerate(fds[1:]):
                    os.dup2(fd, number)
            for fd in fds[1:]:
                os.close(fd)
            what: dict[str, Any] = json.loads(data)
            return what
        for fd in fds:
            os.close(fd)
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _supervise(pid: int, fds: Sequence[int], told: socket.socket) -> None:
    for fd in fds:
        os.close(fd)
    with contextlib.suppress(OSError):  # who has started it is gone
        told.sendall(b"%d\n" % pid)
    status = os.waitpid(pid, 0)[1]
    with contextlib.suppress(OSError):
        told.sendall(b"%d\n" % os.waitstatus_to_exitcode(status))
    os._exit(0)


def _begin(what: Mapping[str, Any]) -> None:
    """Be as a Python that has just started."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if what["session"]:
        os.setsid()
    resource.setrlimit(resource.RLIMIT_NOFILE, tuple(what["descriptors"]))
    os.chdir(what["cwd"])
    os.environ.clear()
    os.environ.update(what["env"])
    sys.argv = [sys.modules["greentask"].__path__[0] + "/__main__.py", *what["arguments"]]
    sys.path[0] = what["cwd"]
    if what["arguments"][0] == "serve":
        _early.take_signals()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a Ctrl-C is for the tests, which end this
    for _name in (*_COMMANDS, "queue.seeing", "queue.changing", "queue.moving", "queue.filters"):
        importlib.import_module(f"greentask.cli.{_name}")
    importlib.import_module("greentask.client")
    importlib.import_module("greentask.queue.byhand")
    set_title("forks for the tests")  # now: a process can only name itself where its environment is as it began
    gc.freeze()
    _begin(_fork_all(socket.socket(fileno=int(sys.argv[1]))))
    main()
