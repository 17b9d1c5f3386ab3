"""Connections that mean no good, while honest clients call.

Slow ones, lines that are cut off, garbage, lines that never end, callers who don't read: which comes when is drawn from
a seed, which is told.
"""

import random
import socket
import time
from collections.abc import Callable

import gevent
import psutil
from gevent.pool import Pool
from gevent.socket import socket as GreenSocket

from benchmarks.common import percentile, server
from greentask.pool.linux import raise_descriptors

from .clients import PATIENCE, ask, call_line, connect, elsewhere, front_of, take_turns
from .figures import Figure

__all__ = ["attack", "measure"]

APP = "benchmarks.load.tasks"
MAX_LINE = 64 * 1024
_CALL = call_line("echo", {"to": "customer@example.com"})


def measure(
    hostile: int = 100_000, honest: int = 50, seed: int | None = None, slice: float = 2.0, at_once: int = 3_000
) -> list[Figure]:
    """``hostile`` connections, up to ``at_once`` of them at a time, while ``honest`` clients call without pause."""
    seed = random.SystemRandom().getrandbits(32) if seed is None else seed
    options = ("--max-line", str(MAX_LINE), "--max-connections", "12000")
    with server(APP, processes=1, options=options) as address, elsewhere() as executor:
        front = psutil.Process(front_of(address))
        take_turns(address, honest, 1.0, _CALL)
        fresh = front.memory_info().rss
        # Its level is what it keeps once so many connections have been open: a first wave is for that.
        executor.submit(attack, address, min(hostile, 2 * at_once), seed + 1, at_once).result(10 * PATIENCE)
        memory, descriptors = _settle(address, front), front.num_fds()
        quiet: list[float] = []
        for _ in range(4):
            quiet += take_turns(address, honest, slice, _CALL)
        began = time.monotonic()
        attacking = executor.submit(attack, address, hostile, seed, at_once)
        busy: list[float] = []
        most = 0
        while not attacking.done():
            assert time.monotonic() < began + 10 * PATIENCE, "the attackers come to no end"
            busy += take_turns(address, honest, slice, _CALL)
            most = max(most, front.memory_info().rss)
        counts = attacking.result()
        seconds = time.monotonic() - began
        grown = _settle(address, front) - memory
        lost = max(0, front.num_fds() - descriptors)
    mix = ", ".join(f"{count:,} {name}" for name, count in sorted(counts.items()))
    ratio = percentile(busy, 0.99) / percentile(quiet, 0.99)
    return [
        Figure(f"hostile connections, seed {seed}: {mix}; in", seconds, "s"),
        Figure(f"p99 of {honest} honest clients, quiet", percentile(quiet, 0.99), "ms"),
        Figure(f"p99 of {honest} honest clients meanwhile", percentile(busy, 0.99), "ms"),
        Figure("p99 of the honest, meanwhile / quiet", ratio, "times", most=3.0),
        Figure("memory of the front, fresh", fresh / 2**20, "MB"),
        Figure("memory of the front, after a first wave", memory / 2**20, "MB"),
        Figure("memory of the front meanwhile, at most", most / 2**20, "MB"),
        Figure("memory of the front, grown by", grown / 2**20, "MB", most=max(8.0, 0.1 * memory / 2**20)),
        Figure("descriptors that are lost", lost, "", most=0),
    ]


def _settle(address: str, front: psutil.Process) -> int:
    """Wait until the server has no connections but ours, and its memory stays what it is: how much that is, bytes."""
    until = time.monotonic() + PATIENCE
    with connect(address) as sock:
        while ask(sock, call_line("greentask.status"))["connections"] > 1:
            assert time.monotonic() < until, "connections are left open"
            time.sleep(0.05)
    least, since = int(front.memory_info().rss), time.monotonic()
    while time.monotonic() < since + 3.0:
        now = int(front.memory_info().rss)
        if now < least:
            least, since = now, time.monotonic()
        time.sleep(0.1)
    return least


# ---- The attackers


def attack(address: str, count: int, seed: int, at_once: int) -> dict[str, int]:
    """Make so many connections, at most ``at_once`` at a time; how many of each kind."""
    raise_descriptors()
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    random_ = random.Random(seed)
    names, weights = zip(*((name, weight) for name, (_, weight) in _KINDS.items()))
    counts = dict.fromkeys(names, 0)
    pool = Pool(at_once)
    for number in range(count):
        name = random_.choices(names, weights)[0]
        counts[name] += 1
        pool.spawn(_attack, _KINDS[name][0], (host, int(port)), number, random.Random(random_.getrandbits(32)))
    pool.join()
    return counts


def _attack(
    kind: Callable[[GreenSocket, random.Random], None], where: tuple[str, int], number: int, random_: random.Random
) -> None:
    sock = GreenSocket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.settimeout(PATIENCE)
        sock.bind((f"127.0.0.{60 + number % 100}", 0))
        sock.connect(where)
        kind(sock, random_)
        if random_.random() < 0.3:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")  # closing it is a reset
    except ConnectionError:
        pass  # it was cut off, as it deserves
    finally:
        sock.close()


def _slow(sock: GreenSocket, random_: random.Random) -> None:
    """A call, a few bytes now and then."""
    step = random_.randint(3, 12)
    for start in range(0, len(_CALL), step):
        sock.sendall(_CALL[start : start + step])
        gevent.sleep(random_.uniform(0.1, 0.5))
    sock.recv(65536)


def _cut(sock: GreenSocket, random_: random.Random) -> None:
    """Gone in the middle of a line, perhaps after some whole ones."""
    sock.sendall(_CALL * random_.randint(0, 3) + _CALL[: random_.randint(1, len(_CALL) - 1)])


def _garbage(sock: GreenSocket, random_: random.Random) -> None:
    """What is no JSON, or not a call."""
    known = [b"GET / HTTP/1.1", b"\x16\x03\x01\x02\0", b"[" * 5000, b'{"function":7}', b'{"a":1e999}', b"\xff\xfe{}"]
    lines = [random_.randbytes(random_.randint(1, 300)).replace(b"\n", b"") for _ in range(random_.randint(1, 5))]
    sock.sendall(b"\n".join([*lines, random_.choice(known)]) + b"\n")
    sock.recv(65536)


def _oversize(sock: GreenSocket, random_: random.Random) -> None:
    """A line that is longer than the server takes."""
    sock.sendall(b'{"function":"' + b"x" * random_.randint(MAX_LINE, 2 * MAX_LINE))
    while sock.recv(65536):
        pass


def _open(sock: GreenSocket, random_: random.Random) -> None:
    """A line that never ends."""
    sock.sendall(b'{"function":"' + b"x" * random_.randint(0, 4000))
    gevent.sleep(random_.uniform(1.0, 5.0))


def _deaf(sock: GreenSocket, random_: random.Random) -> None:
    """Calls, whose answers nobody reads."""
    sock.sendall(_CALL * random_.randint(1, 200))
    gevent.sleep(random_.uniform(0.0, 0.2))


_KINDS: dict[str, tuple[Callable[[GreenSocket, random.Random], None], int]] = {
    "slow": (_slow, 15),
    "cut off": (_cut, 20),
    "garbage": (_garbage, 20),
    "oversize": (_oversize, 5),
    "open": (_open, 38),
    "deaf": (_deaf, 2),
}
