"""Does a task process that computes delay the greenlet tasks of the same server?

Pings go to one server, idle and while a task process computes for 5 s, by turns.
"""

import time

from benchmarks.common import percentile, server, tell
from greentask import Client

ROUNDS = 3
COMPUTES_FOR = 5.0
PING_EVERY = 0.001


def ping_for(client: Client, seconds: float) -> list[float]:
    """The time of each answer, in milliseconds."""
    taken = []
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        began = time.perf_counter()
        client.call("ping")
        taken.append((time.perf_counter() - began) * 1000)
        time.sleep(PING_EVERY)
    return taken


def main() -> None:
    idle: list[float] = []
    busy: list[float] = []
    with server("benchmarks.tasks", processes=2) as address, Client(address) as client:
        ping_for(client, 0.5)
        for _ in range(ROUNDS):
            idle += ping_for(client, COMPUTES_FOR - 0.2)
            computing = client.submit("compute", COMPUTES_FOR)
            busy += ping_for(client, COMPUTES_FOR - 0.2)
            computing.result()
    figures = {
        name: {f"p{part * 100:g}_ms": round(percentile(taken, part), 3) for part in (0.5, 0.99)}
        for name, taken in (("idle", idle), ("computing", busy))
    }
    rows = [[name, *(f"{value:.2f} ms" for value in values.values())] for name, values in figures.items()]
    tell(
        "pings",
        f"pings of one client, {ROUNDS} times {COMPUTES_FOR:g} s each",
        ["server", "p50", "p99"],
        rows,
        {
            **figures,
            "limit_ms": max(3 * figures["idle"]["p99_ms"], 5.0),
        },
    )
