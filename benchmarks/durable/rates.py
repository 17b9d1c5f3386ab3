"""Tasks that are enqueued by one client, run by two processes or in greenlets, and acknowledged with their results."""

import statistics
import time

from benchmarks.load.figures import Figure

from .running import folder, queued

__all__ = ["measure"]


def measure(rounds: int = 3, many: int = 20_000) -> list[Figure]:
    """``many`` in each round, each round with a new queue; medians."""
    figures = []
    for name, function in (("process", "mail"), ("greenlet", "mail_in_greenlet")):
        enqueued, done = [], []
        for _ in range(rounds):
            with folder() as path, queued(path / "tasks.db") as peer:
                peer.enqueue(function, 1000)
                peer.wait_for(1000)
                began = time.perf_counter()
                peer.enqueue(function, many)
                enqueued.append(many / (time.perf_counter() - began))
                done.append(many / (peer.wait_for(1000 + many) - began))
        figures.append(Figure(f"enqueued, {name}", statistics.median(enqueued), "tasks/s"))
        figures.append(Figure(f"enqueued, run, acknowledged, {name}", statistics.median(done), "tasks/s"))
    return figures
