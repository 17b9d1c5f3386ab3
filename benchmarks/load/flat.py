"""What a call costs, from one connection to ten thousand, and from one queued call to a hundred thousand.

The cost is the front's processor time.
"""

import os
import select
import socket
import statistics
import tempfile
from pathlib import Path

import psutil

from benchmarks.common import server
from greentask.pool.linux import raise_descriptors

from .clients import PATIENCE, call_line, connect, front_of
from .figures import Figure

__all__ = ["measure"]

APP = "benchmarks.load.tasks"


def measure(
    connections: tuple[int, ...] = (1, 100, 1_000, 10_000),
    queued: tuple[int, ...] = (100, 1_000, 10_000, 100_000),
    rounds: int = 3,
    calls: int = 20_000,
) -> list[Figure]:
    """``calls`` calls for each number of connections, and for each length of the queue, by turns."""
    raise_descriptors()
    by_connections: dict[int, list[float]] = {count: [] for count in connections}
    by_queue: dict[int, list[float]] = {count: [] for count in queued}
    most = str(2 * max(queued))
    options = ("--max-connections", "20000", "--max-calls", most, "--max-in-flight", most)
    with server(APP, processes=1, options=options) as address:
        front = psutil.Process(front_of(address))
        for number in range(rounds + 1):  # the first one is for getting warm
            for count in connections:
                cost = _over_connections(address, front, count, max(calls, count))
                by_connections[count] += [cost] * bool(number)
            for count in queued:
                cost = _through_queue(address, front, count, max(1, calls // count))
                by_queue[count] += [cost] * bool(number)
    figures = []
    for what, costs in (("connections", by_connections), ("queued calls", by_queue)):
        medians = {count: statistics.median(measured) for count, measured in costs.items()}
        figures += [Figure(f"a call, {count:,} {what}", cost, "µs") for count, cost in medians.items()]
        first, *others = medians.values()
        figures.append(Figure(f"the dearest / with {min(costs):,} {what}", max(others) / first, "times", most=1.5))
    return figures


def _spent(front: psutil.Process) -> float:
    times = front.cpu_times()
    return float(times.user + times.system)


def _over_connections(address: str, front: psutil.Process, connections: int, calls: int) -> float:
    """Processor time of a call (µs), where so many connections have one call each in flight."""
    line = call_line("echo", {"to": "customer@example.com"})
    poll = select.epoll()
    socks: dict[int, socket.socket] = {}
    try:
        for number in range(connections):
            sock = connect(address, 1 + number % 50)
            socks[sock.fileno()] = sock
            poll.register(sock.fileno(), select.EPOLLIN)
        spent = _spent(front)
        left, answered = calls, 0
        for sock in list(socks.values())[:calls]:
            sock.send(line)
            left -= 1
        while answered < calls:
            ready = poll.poll(PATIENCE)
            assert ready, f"no answer in {PATIENCE:g} s"
            for fd, _ in ready:
                data = socks[fd].recv(65536)
                assert data.endswith(b"\n"), data
                answered += 1
                if left > 0:
                    left -= 1
                    socks[fd].send(line)
        return (_spent(front) - spent) / calls * 1e6
    finally:
        poll.close()
        for sock in socks.values():
            sock.close()


def _through_queue(address: str, front: psutil.Process, length: int, times: int) -> float:
    """Processor time of a call (µs) that waits in a queue of that length for its process, with all its way."""
    with tempfile.TemporaryDirectory() as folder, connect(address) as sock:
        spent = _spent(front)
        for number in range(times):
            gate = Path(folder, str(number))
            sock.sendall(call_line("wait_for_in_process", [os.fspath(gate)]))
            lines = [call_line("echo_in_process", {"to": "customer@example.com"}, id) for id in range(2, 2 + length)]
            for start in range(0, length, 500):
                sock.sendall(b"".join(lines[start : start + 500]))
            # An answer of the server itself comes at once: by then, it has read and queued all that was before.
            sock.sendall(call_line("greentask.ping", id=0))
            _hear(sock, 1)
            gate.touch()
            _hear(sock, length + 1)
        return (_spent(front) - spent) / (length * times) * 1e6


def _hear(sock: socket.socket, lines: int) -> None:
    while lines > 0:
        data = sock.recv(262144)
        assert data, "the server has closed the connection"
        lines -= data.count(b"\n")
