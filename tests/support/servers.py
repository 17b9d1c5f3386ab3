"""A real `greentask serve` in a process of its own, and a client that is nothing but a socket and lines.

    with serving("--max-line", "1000") as server, server.connect() as peer:
        assert peer.ask({"id": 1, "function": "add", "args": [1, 2]}) == {"id": 1, "result": 3}

What it serves is `support.server_tasks`, unless told otherwise.
"""

import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.conditions import PATIENCE, wait_until
from support.preloaded import Forked, can_fork, start
from support.programs import environment

__all__ = ["LineClient", "RunningServer", "connect", "is_goodbye", "serving", "wait_until"]

_READY = re.compile(r"^greentask \S+ serves .* on (?P<addresses>\S.*) \(pid \d+", re.MULTILINE)


def free_port() -> int:
    """A port of the loopback on which nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        return int(sock.getsockname()[1])


def is_goodbye(message: dict[str, Any]) -> bool:
    """Whether it is the last line of a server that is going away."""
    return set(message) == {"error"} and message["error"]["type"] == "Draining"


# ---- The client


class LineClient:
    """Lines on a connected socket. Whatever it waits for comes within `patience` seconds, or the test fails.

    The socket may be gevent's.
    """

    def __init__(self, sock: Any, patience: float = PATIENCE) -> None:
        sock.settimeout(patience)
        self.socket = sock
        self._held = b""

    def __enter__(self) -> "LineClient":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, *messages: object) -> None:
        """Send each message as a line of JSON, all in one piece."""
        self.send_bytes(b"".join(json.dumps(message).encode() + b"\n" for message in messages))

    def send_bytes(self, data: bytes) -> None:
        """Send these bytes as they are."""
        self.socket.sendall(data)

    def line(self) -> bytes | None:
        """The next line, without its newline; None when the other side has closed."""
        while b"\n" not in self._held:
            data = self.socket.recv(65536)
            if not data:
                assert not self._held, f"closed in the middle of a line: {self._held[:200]!r}"
                return None
            self._held += data
        line, self._held = self._held.split(b"\n", 1)
        return line

    def hear(self) -> dict[str, Any]:
        """The next line's message."""
        line = self.line()
        assert line is not None, "closed, where a line was due"
        message = json.loads(line)
        assert isinstance(message, dict), line
        return message

    def hear_all(self, count: int) -> list[dict[str, Any]]:
        """The next so many messages."""
        return [self.hear() for _ in range(count)]

    def hear_rest(self) -> list[dict[str, Any]]:
        """All messages until the other side closes."""
        messages = []
        while (line := self.line()) is not None:
            messages.append(json.loads(line))
        return messages

    def ask(self, message: object) -> dict[str, Any]:
        """Send a message; the next one that comes."""
        self.send(message)
        return self.hear()

    def call(self, function: str, *args: object, **named: object) -> Any:
        """The result of one call without id. An error fails the test."""
        reply = self.ask({"function": function, "args": named or args})
        assert set(reply) == {"result"}, reply
        return reply["result"]

    def end_sending(self) -> None:
        """Shut down our side only."""
        self.socket.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Break the connection off: the other side gets an RST."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def close(self) -> None:
        self.socket.close()


def connect(address: str, patience: float = PATIENCE, *, receive_buffer: int | None = None) -> LineClient:
    """Connect to `tcp://host:port` or `unix:///path`. A small `receive_buffer` (bytes) makes a slow reader."""
    scheme, _, rest = address.partition("://")
    host, _, port = rest.rpartition(":")
    where: Any = rest if scheme == "unix" else (host.strip("[]"), int(port))
    family = socket.AF_UNIX if scheme == "unix" else socket.AF_INET6 if ":" in where[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(patience)
        sock.connect(where)
    except BaseException:
        sock.close()
        raise
    return LineClient(sock, patience)


# ---- The server


class RunningServer:
    """A `greentask serve` that has said that it is ready."""

    def __init__(self, process: "subprocess.Popen[bytes] | Forked", output: Path) -> None:
        self.process = process
        self.addresses: list[str] = []
        self._output = output

    @property
    def pid(self) -> int:
        """The process id of its (first) front, which serves."""
        return self.fronts()[0].pid

    def fronts(self) -> list[psutil.Process]:
        """The processes that serve, in the order of their start."""
        return sorted(psutil.Process(self.process.pid).children(), key=psutil.Process.create_time)

    @property
    def address(self) -> str:
        """`tcp://127.0.0.1:PORT`, the first address that it listens on."""
        return self.addresses[0]

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])

    def output(self) -> str:
        """What it has written so far, to stdout and stderr."""
        return self._output.read_text("utf-8", "backslashreplace")

    def connect(self, patience: float = PATIENCE, *, receive_buffer: int | None = None) -> LineClient:
        """A connection to its first address."""
        return connect(self.address, patience, receive_buffer=receive_buffer)

    def call(self, function: str, *args: object, **named: object) -> Any:
        """The result of one call, on a connection of its own."""
        with self.connect() as peer:
            return peer.call(function, *args, **named)

    def status(self) -> dict[str, Any]:
        """What `greentask.status` says, less the connection and the call that ask."""
        status: dict[str, Any] = self.call("greentask.status")
        status["connections"] -= 1
        status["in_flight"] -= 1
        return status

    def signal(self, number: int) -> None:
        """Signal it, as an operator would: the master."""
        self.process.send_signal(number)

    def signal_all(self, number: int) -> None:
        """Signal the master and the fronts, as where a machine dies, or is stopped; after SIGKILL they are gone."""
        fronts = self.fronts()
        for process in (self.process, *fronts):
            with suppress(psutil.NoSuchProcess):
                process.send_signal(number)
        if number == signal.SIGKILL:
            psutil.wait_procs(fronts, PATIENCE)

    def wait(self, patience: float = PATIENCE) -> int:
        """Its exit code, when it has ended."""
        return self.process.wait(patience)

    def below(self) -> list[psutil.Process]:
        """The processes that its (first) front has started, and those that these have."""
        return psutil.Process(self.pid).children(recursive=True)

    def is_at_rest(self) -> bool:
        """Whether it does nothing for a while."""
        processes = [psutil.Process(self.process.pid), *self.fronts()]
        before = [process.cpu_times()[:2] for process in processes]
        time.sleep(0.1)
        return before == [process.cpu_times()[:2] for process in processes]

    def memory(self) -> int:
        """Its resident memory in bytes, without that of its task processes."""
        return int(psutil.Process(self.pid).memory_info().rss)


@contextmanager
def serving(
    *options: str,
    apps: Iterable[str] = ("support.server_tasks",),
    listen: Iterable[str] = ("127.0.0.1:0",),
    processes: int | None = 2,
    cwd: Path | None = None,
    new_session: bool = False,
    inside: Iterable[str] = (),
    forked: bool = True,
    **variables: str,
) -> Iterator[RunningServer]:
    """Start `python -m greentask serve APPS OPTIONS`, wait until it is ready; end it (if it hasn't ended) afterwards.

    `new_session` gives it a process group of its own, as a shell would: `os.killpg` is then what Ctrl-C does.
    `inside` is a command that runs what follows it: `unshare`, say.
    `forked` spares its master the start of a Python, where that is no part of the test.
    `variables` go into its environment.
    """
    arguments = ["serve", *apps, *options]
    if processes is not None:
        arguments += ["--processes", str(processes)]
    for address in listen:
        arguments += ["--listen", address]
    command = [*inside, sys.executable, "-m", "greentask", *arguments]
    with tempfile.TemporaryDirectory(prefix="greentask-test-") as folder:
        output = Path(folder, "output")
        env = environment(**variables)
        process: subprocess.Popen[bytes] | Forked
        with output.open("wb") as file, open(os.devnull, "rb") as nothing:
            if forked and command[0] == sys.executable and can_fork(arguments, variables):
                process = start(
                    arguments,
                    env,
                    stdin=nothing.fileno(),
                    stdout=file.fileno(),
                    stderr=file.fileno(),
                    cwd=cwd,
                    new_session=new_session,
                )
            else:
                process = subprocess.Popen(
                    command,
                    cwd=cwd,
                    stdin=nothing,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    env=env,
                    start_new_session=new_session,
                )
        server = RunningServer(process, output)
        try:
            wait_until(lambda: _READY.search(server.output()) or process.poll() is not None, "greentask serve is ready")
            ready = _READY.search(server.output())
            assert ready is not None, f"{command} ended with {process.returncode}:\n{server.output()}"
            server.addresses = ready["addresses"].split(", ")
            yield server
        finally:
            _end(process)


def module_server(*options: str, **served: Any) -> Any:
    """A fixture: one server for all tests of a module, as `serving` starts it, in which nothing may have failed."""

    @pytest.fixture(scope="module")
    def server() -> Iterator[RunningServer]:
        with serving(*options, **served) as server:
            yield server
            assert "Traceback" not in server.output()

    return server


def _end(process: "subprocess.Popen[bytes] | Forked") -> None:
    """End it in good order, but quickly: a second signal does not wait for calls."""
    for number, within in ((signal.SIGTERM, 0.6), (signal.SIGTERM, 3.0), (signal.SIGKILL, 3.0)):
        if process.poll() is None:
            with suppress(ProcessLookupError):
                os.kill(process.pid, number)
            with suppress(subprocess.TimeoutExpired):
                process.wait(within)  # two signals within half a second are one
    process.wait(PATIENCE)
    if isinstance(process, Forked):
        process.close()
