"""Clients that cost little, so that what is measured is the server: bare sockets, lines made beforehand.

An address is written ``tcp://127.0.0.1:port``. Times are in milliseconds.
"""

import json
import multiprocessing
import os
import select
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Any

from greentask.pool.linux import raise_descriptors

__all__ = [
    "PATIENCE",
    "ask",
    "call_line",
    "connect",
    "elsewhere",
    "front_of",
    "holding",
    "one_at_a_time",
    "pipelined",
    "take_turns",
]

PATIENCE = 60.0  # seconds until a client that hears nothing gives up
_SPAWN = multiprocessing.get_context("spawn")


def connect(address: str, source: int = 0) -> socket.socket:
    """Connect; from another address of the loopback for each ``source``, for one has only so many ports."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    sock = socket.create_connection(
        (host, int(port)), PATIENCE, source_address=(f"127.0.0.{1 + source}", 0) if source else None
    )
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def call_line(function: str, args: Any = None, id: int | None = 1) -> bytes:
    """The line of a call."""
    message: dict[str, Any] = {"function": function}
    if id is not None:
        message["id"] = id
    if args is not None:
        message["args"] = args
    return json.dumps(message).encode() + b"\n"


def ask(sock: socket.socket, line: bytes) -> Any:
    """The result that a line gets."""
    sock.sendall(line)
    data = b""
    while not data.endswith(b"\n"):
        received = sock.recv(65536)
        assert received, "the server has closed the connection"
        data += received
    return json.loads(data)["result"]


def front_of(address: str) -> int:
    """The process id of the front that answers there."""
    with connect(address) as sock:
        pid: int = ask(sock, call_line("greentask.status"))["pid"]
        return pid


def pipelined(address: str, lines: list[bytes], window: int = 256) -> float:
    """Answers per second, of one connection that has ``window`` lines in flight."""
    size = window // 4
    chunks = [b"".join(lines[start : start + size]) for start in range(0, len(lines), size)]
    with connect(address) as sock:
        sent = answered = 0
        began = time.perf_counter()
        while answered < len(lines):
            while chunks and sent - answered <= window - size:
                sock.sendall(chunks.pop(0))
                sent += size
            data = sock.recv(262144)
            assert data, "the server has closed the connection"
            answered += data.count(b"\n")
        return answered / (time.perf_counter() - began)


def one_at_a_time(address: str, lines: list[bytes]) -> list[float]:
    """The time of each answer."""
    taken = []
    with connect(address) as sock:
        for line in lines:
            began = time.perf_counter()
            sock.sendall(line)
            data = sock.recv(65536)
            taken.append((time.perf_counter() - began) * 1000)
            assert data.endswith(b"\n"), data
    return taken


def take_turns(address: str, connections: int, seconds: float, line: bytes, pause: float = 0.0) -> list[float]:
    """Clients that each send their next line when they have the answer to the one before, ``pause`` seconds later.

    The time of each answer; every answer must be a result.
    """
    poll = select.epoll()
    socks: dict[int, socket.socket] = {}
    began_at: dict[int, float] = {}
    taken: list[float] = []
    waiting: list[tuple[float, int]] = []  # (when it goes on, descriptor), in this order
    now = time.perf_counter
    try:
        for number in range(connections):
            sock = connect(address, 1 + number % 50)
            socks[sock.fileno()] = sock
            poll.register(sock.fileno(), select.EPOLLIN)
        until = now() + seconds
        for number, fd in enumerate(socks):
            waiting.append((now() + pause * number / connections, fd))
        while began_at or waiting:
            while waiting and waiting[0][0] <= now():
                fd = waiting.pop(0)[1]
                began_at[fd] = now()
                socks[fd].send(line)
            ready = poll.poll(max(0.0, waiting[0][0] - now()) if waiting else PATIENCE)
            assert ready or waiting, f"no answer in {PATIENCE:g} s"
            for fd, _ in ready:
                data = socks[fd].recv(65536)
                ended = now()
                assert data.endswith(b"}\n"), data
                assert b'"result":' in data, data
                taken.append((ended - began_at.pop(fd)) * 1000)
                if ended >= until:
                    continue
                if pause:
                    waiting.append((ended + pause, fd))
                else:
                    began_at[fd] = ended
                    socks[fd].send(line)
            if now() >= until:
                waiting.clear()
    finally:
        poll.close()
        for sock in socks.values():
            sock.close()
    return taken


@contextmanager
def elsewhere(processes: int = 1) -> Iterator[ProcessPoolExecutor]:
    """Processes for what must not get into the way of what is measured: as if it ran on a machine of its own."""
    with ProcessPoolExecutor(processes, mp_context=_SPAWN, initializer=_step_back) as executor:
        yield executor


def _step_back() -> None:
    os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))


@contextmanager
def holding(address: str, connections: int) -> Iterator[None]:
    """So many connections that do nothing, after one call each. A process of their own holds them."""
    ours, theirs = _SPAWN.Pipe()
    process = _SPAWN.Process(target=_hold, args=(theirs, address, connections))
    process.start()
    theirs.close()
    try:
        assert ours.poll(10 * PATIENCE)
        assert ours.recv() == connections
        yield
    finally:
        ours.close()
        process.join(PATIENCE)


def _hold(pipe: Connection, address: str, connections: int) -> None:
    raise_descriptors()
    line = call_line("greentask.ping")
    socks = []
    for number in range(connections):
        sock = connect(address, 1 + number % 50)
        ask(sock, line)
        socks.append(sock)
    pipe.send(len(socks))
    try:
        pipe.recv()
    except EOFError:
        pass
