"""Enqueueing one at a time, beside bare commits of SQLite to the same disk."""

import sqlite3
import statistics
import time

from benchmarks.load.figures import Figure

from .running import MAIL, folder, queued

__all__ = ["measure"]


def measure(rounds: int = 10, each: int = 100) -> list[Figure]:
    """``each`` of both, by turns; the medians of all, and of the rounds' ratios."""
    times: dict[str, list[float]] = {"bare": [], "enqueue": []}
    ratios = []
    call = {"function": "mail", "args": MAIL, "enqueue": {"delay": 3600}}
    with folder() as path, queued(path / "tasks.db") as peer:
        bare = sqlite3.connect(path / "bare.db", isolation_level=None)
        bare.execute("PRAGMA journal_mode = WAL")
        bare.execute("PRAGMA synchronous = FULL")
        bare.execute("CREATE TABLE task (id INTEGER PRIMARY KEY, body)")
        for number in range(rounds + 1):  # the first one is for getting warm
            taken: dict[str, list[float]] = {"bare": [], "enqueue": []}
            for _ in range(each):
                began = time.perf_counter()
                bare.execute("INSERT INTO task (body) VALUES (?)", (str(call),))
                between = time.perf_counter()
                peer.ask(call)
                taken["bare"].append((between - began) * 1000)
                taken["enqueue"].append((time.perf_counter() - between) * 1000)
            if number:
                ratios.append(statistics.median(taken["enqueue"]) / statistics.median(taken["bare"]))
                for name, values in taken.items():
                    times[name] += values
        bare.close()
    return [
        Figure("bare commit, p50", statistics.median(times["bare"]), "ms"),
        Figure("enqueue, one at a time, p50", statistics.median(times["enqueue"]), "ms"),
        Figure("enqueue / bare commit", statistics.median(ratios), "times", most=3.0),
    ]
