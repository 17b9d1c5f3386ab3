"""What a connection leaves when it is closed: nothing that only the garbage collector could find."""

import gc
import socket
import struct
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.socket import create_connection

from greentask import Limits, Server, task
from greentask.hub.outlet import Outlet
from greentask.runner.greenlets import GreenletCall
from greentask.server.answer import Answer
from greentask.server.connection import LineConnection
from greentask.server.session import Session
from support.waiting import wait_until

KINDS = (Answer, GreenletCall, LineConnection, Outlet, Session)
CALL = b'{"id":1,"function":"double","args":[2]}\n'
STREAM = b'{"id":1,"function":"count","args":[3],"stream":9}\n'


@task
def double(number: int) -> int:
    return 2 * number


@task
def count(most: int) -> Iterator[int]:
    yield from range(most)


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server([double, count], "127.0.0.1:0", limits=Limits(max_line=1000))
    server.start()
    yield server
    server.stop()


@pytest.mark.parametrize(
    ("data", "reset"),
    [
        (b"", False),
        (CALL, False),
        (CALL, True),
        (CALL * 50, True),
        (STREAM, False),
        (STREAM, True),
        (b'{"function":"double","args":[2]}\n' * 3, False),
        (b'{"func', False),
        (b"garbage\n", False),
        (b'{"function":"nobody"}\n', False),
        (b"x" * 3000, False),
    ],
)
def test_a_closed_connection_is_gone_at_once(server: Server, data: bytes, reset: bool) -> None:
    gc.collect()
    gc.disable()
    try:
        before = alive()
        sock = create_connection((server.addresses[0].host, server.addresses[0].port))
        sock.sendall(data)
        if data.endswith(b"\n"):
            sock.recv(65536)
        if reset:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        else:
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(65536):
                pass
        sock.close()
        wait_until(lambda: alive() == before)
    finally:
        gc.enable()


def alive() -> list[Any]:
    gevent.sleep(0)
    return sorted(type(each).__name__ for each in gc.get_objects() if isinstance(each, KINDS))
