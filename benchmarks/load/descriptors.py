"""More connections than the server has descriptors for: accepting pauses and resumes, and nothing spins."""

import socket
import time

import psutil

from benchmarks.common import server

from .clients import PATIENCE, ask, call_line, connect, front_of
from .figures import Figure

__all__ = ["measure"]

APP = "benchmarks.load.tasks"


def measure(descriptors: int = 256, connections: int = 400, seconds: float = 3.0) -> list[Figure]:
    """``connections`` to a server that may have ``descriptors`` open; half are closed again after ``seconds``."""
    line = call_line("echo", {"to": "customer@example.com"})
    with server(APP, processes=1, descriptors=descriptors) as address:
        front = psutil.Process(front_of(address))
        first = connect(address)
        ask(first, line)
        socks = [connect(address) for _ in range(connections)]
        for sock in socks:
            sock.sendall(line)
        before = front.cpu_times()
        began = time.monotonic()
        while time.monotonic() < began + seconds:
            ask(first, line)
            time.sleep(0.01)
        after = front.cpu_times()
        busy = (after.user + after.system - before.user - before.system) / seconds * 100
        served, waiting = _answered(socks, 0.0)
        for sock in served:
            sock.close()
        began = time.monotonic()
        late, never = _answered(waiting, PATIENCE)
        resumed = time.monotonic() - began
        for sock in [first, *late, *never]:
            sock.close()
    return [
        Figure(f"served at once, with {descriptors} descriptors, of {connections} connections", len(served), ""),
        Figure("of the front's time while it can't accept", busy, "%", most=25.0),
        Figure("until those that waited are served, once there is room", resumed, "s", most=5.0),
        Figure("never served", len(never), "", most=0),
    ]


def _answered(socks: list[socket.socket], patience: float) -> tuple[list[socket.socket], list[socket.socket]]:
    """Those that have, or get, their answer; and the others."""
    answered: list[socket.socket] = []
    others: list[socket.socket] = []
    for sock in socks:
        sock.settimeout(patience)
        try:
            (answered if sock.recv(65536) else others).append(sock)
        except (BlockingIOError, TimeoutError, ConnectionError):
            others.append(sock)
    return answered, others
