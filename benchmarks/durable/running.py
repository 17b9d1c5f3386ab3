"""A server with a queue, and one client of it that keeps so many lines on their way."""

import json
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.common import server

__all__ = ["APP", "MAIL", "Peer", "folder", "queued"]

APP = "benchmarks.durable.tasks"
MAIL = {"from": "shop@example.com", "to": "customer@example.com", "contents": "Your parcel is on its way."}
WINDOW = 1000  # lines on their way


class Peer:
    """A connection."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self._socket = socket.create_connection((host, int(port)))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._lines = self._socket.makefile("rb")

    def __enter__(self) -> "Peer":
        return self

    def __exit__(self, *_: object) -> None:
        self._lines.close()
        self._socket.close()

    def ask(self, message: dict[str, Any]) -> Any:
        """The result of one call."""
        self._socket.sendall(json.dumps(message).encode() + b"\n")
        reply = json.loads(self._lines.readline())
        if "result" not in reply:
            raise RuntimeError(reply)
        return reply["result"]

    def enqueue(self, function: str, count: int) -> None:
        """Enqueue so many, with ``WINDOW`` of them on their way; until all are acknowledged."""
        line = b'{"function":"%b","args":%b,"enqueue":true,"id":%%d}\n' % (function.encode(), json.dumps(MAIL).encode())
        sent = answered = 0
        while answered < count:
            more = min(WINDOW - (sent - answered), count - sent)
            if more > 0:
                self._socket.sendall(b"".join(line % number for number in range(sent, sent + more)))
                sent += more
            if b'"result"' not in self._lines.readline():
                raise RuntimeError("refused")
            answered += 1

    def done(self) -> int:
        """How many tasks have run since the server's start."""
        return int(self.ask({"function": "greentask.status"})["queue"]["done"])

    def wait_for(self, count: int) -> float:
        """When so many have run, on ``time.perf_counter()``."""
        return self.watch_for(count)[0]

    def watch_for(self, count: int) -> tuple[float, int]:
        """When so many have run, and how many they were then: there may be more."""
        while (done := self.done()) < count:
            time.sleep(0.005)
        return time.perf_counter(), done


@contextmanager
def folder() -> Iterator[Path]:
    """A folder on a disk: where temporary files are in memory, here."""
    with tempfile.TemporaryDirectory(prefix=".queue-", dir=Path(__file__).parents[1]) as path:
        yield Path(path)


@contextmanager
def queued(file: Path) -> Iterator[Peer]:
    """A server with two task processes and this queue, and a connection to it."""
    with server(APP, processes=2, options=("--queue", str(file))) as address, Peer(address) as peer:
        yield peer
