"""A `TextServer` in this process, and clients whose waiting lets it run."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import gevent
import gevent.socket

from greentask import TextConnection, TextServer
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


def connect(server: TextServer, patience: float = PATIENCE, *, source: str = "") -> LineClient:
    """As the clients of the other tests, but its waiting lets the server run. `source`: the address that it has."""
    address = server.addresses[0]
    where = (address.host, address.port)
    return LineClient(gevent.socket.create_connection(where, source_address=(source, 0)), patience)


def wait_until(condition: Callable[[], object], what: str) -> None:
    give_up = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < give_up, f"{what} did not come true"
        gevent.sleep(0.005)


def echo(connection: TextConnection, line: str) -> None:
    connection.send(line)
