"""A `TextServer` in this process, and clients whose waiting lets it run."""

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent.socket

from greentask import TextConnection, TextServer
from support import waiting
from support.servers import PATIENCE, LineClient

__all__ = ["connect", "echo", "listening", "wait_until"]

Handler = Callable[[TextConnection, str], object]


@contextmanager
def listening(on_message: Handler, address: str = "Text://127.0.0.1:0", **options: Any) -> Iterator[TextServer]:
    server = TextServer(address, on_message, **options)
    server.start()
    try:
        yield server
    finally:
        server.stop(1.0)


def connect(
    server: TextServer, patience: float = PATIENCE, *, source: str = "127.0.0.1", receive_buffer: int | None = None
) -> LineClient:
    """As the clients of the other tests, but its waiting lets the server run.

    `source` is the address that it has. A small `receive_buffer` (bytes) makes a slow reader.
    """
    address = server.addresses[0]
    sock = gevent.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    if receive_buffer is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    sock.bind((source, 0))
    sock.connect((address.host, address.port))
    return LineClient(sock, patience)


def wait_until(condition: Callable[[], object], what: str) -> None:
    waiting.wait_until(condition, PATIENCE, what)


def echo(connection: TextConnection, line: str) -> None:
    connection.send(line)
