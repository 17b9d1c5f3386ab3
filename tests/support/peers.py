"""Servers that do what no server should: each a function that talks to one connection, in a thread of the test's own.

def twice(connection: LineClient) -> None:
    call = connection.hear()
    connection.send({"id": call["id"], "result": 1}, {"id": call["id"], "result": 2})

with peer(twice) as server:
    assert Client(server.address).call("f") == 1
"""

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

from support.servers import LineClient

__all__ = ["Peer", "deaf", "echoing", "next_call", "peer", "silent"]


class Peer:
    """Where it listens, and which connections it has accepted."""

    def __init__(self, behave: Callable[[LineClient], None], port: int, host: str) -> None:
        self._behave = behave
        self._socket = socket.create_server((host, port))
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        self.address = f"{host}:{self.port}"
        self.connections: list[LineClient] = []
        self._closing = False
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def _accept(self) -> None:
        while True:
            sock, _ = self._socket.accept()
            if self._closing:
                sock.close()
                return
            connection = LineClient(sock)
            self.connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _serve(self, connection: LineClient) -> None:
        # What a failed assertion raises here fails the test: pytest tells of it as an unhandled thread's exception.
        with connection, suppress(OSError):
            self._behave(connection)

    def close(self) -> None:
        """Refuse connections, and end those that there are."""
        self._closing = True
        socket.create_connection((self.host, self.port), 5).close()  # wakes the thread that accepts
        self._threads[0].join(5)
        self._socket.close()
        for connection in self.connections:
            with suppress(OSError):
                connection.socket.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(5)
            assert not thread.is_alive(), "the peer did not end"


@contextmanager
def peer(behave: Callable[[LineClient], None], port: int = 0, host: str = "127.0.0.1") -> Iterator[Peer]:
    """Listen, and let `behave` talk to each connection, which is closed when it returns."""
    running = Peer(behave, port, host)
    try:
        yield running
    finally:
        running.close()


def silent(connection: LineClient) -> None:
    """Read everything, and never answer."""
    while connection.line() is not None:
        pass


def echoing(connection: LineClient) -> None:
    """Answer each call with its first argument, and each cancellation with true."""
    while (line := connection.line()) is not None:
        call = json.loads(line)
        args = call.get("args") or [None]
        connection.send({"id": call["id"], "result": args[0] if isinstance(args, list) else True})


def next_call(connection: LineClient) -> bytes | None:
    """The next line that is no ping, which is answered; None when the other side has closed."""
    while (line := connection.line()) is not None and b"greentask.ping" in line:
        connection.send({"id": json.loads(line)["id"], "result": "pong"})
    return line


@contextmanager
def deaf(host: str = "127.0.0.1", port: int = 0) -> Iterator[str]:
    """An address where the kernel drops who wants to connect, as a firewall does: its queue is full."""
    with ExitStack() as sockets:
        listener = sockets.enter_context(socket.create_server((host, port), backlog=0))
        where = listener.getsockname()[:2]
        for _ in range(16):
            sock = sockets.enter_context(socket.socket())
            sock.settimeout(0.2)
            try:
                sock.connect(where)
            except TimeoutError:
                yield f"{where[0]}:{where[1]}"
                return
        raise AssertionError("the queue does not fill up")
