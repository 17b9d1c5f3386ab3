"""Ten thousand connections that do nothing: what they cost, and what the busy ones feel of them."""

import statistics

import psutil

from benchmarks.common import percentile, server

from .clients import call_line, front_of, holding, take_turns
from .figures import Figure

__all__ = ["measure"]

APP = "benchmarks.load.tasks"


def measure(idle: int = 10_000, busy: int = 200, rounds: int = 5, seconds: float = 3.0) -> list[Figure]:
    """``busy`` clients call one server with ``idle`` connections beside them and one without, by turns."""
    line = call_line("echo", {"to": "customer@example.com"})
    options = ("--max-connections", str(idle + busy + 100))
    times: dict[str, list[list[float]]] = {"alone": [], "beside": []}
    with server(APP, processes=1, options=options) as quiet, server(APP, processes=1, options=options) as full:
        for address in (quiet, full):
            take_turns(address, busy, 1.0, line)
        front = psutil.Process(front_of(full))
        before = front.memory_info().rss
        with holding(full, idle):
            memory = (front.memory_info().rss - before) / idle
            for _ in range(rounds):
                times["alone"].append(take_turns(quiet, busy, seconds, line))
                times["beside"].append(take_turns(full, busy, seconds, line))
    p99 = {name: [percentile(taken, 0.99) for taken in rounds] for name, rounds in times.items()}
    ratio = statistics.median(beside / alone for beside, alone in zip(p99["beside"], p99["alone"]))
    return [
        Figure(f"memory of the front, of {idle:,} idle connections each", memory / 1024, "KB", most=12.0),
        Figure(f"p99 of {busy} busy clients", statistics.median(p99["alone"]), "ms"),
        Figure("p99 beside the idle ones", statistics.median(p99["beside"]), "ms"),
        Figure("p99 beside the idle ones / without", ratio, "times", most=2.0),
    ]
