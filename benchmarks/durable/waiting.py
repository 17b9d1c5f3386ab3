"""What a task costs where a million wait, beside a thousand."""

import json
import shutil
import statistics
from pathlib import Path

from benchmarks.load.figures import Figure
from greentask.queue.clock import Clock
from greentask.queue.interface import Message
from greentask.queue.schema import open_file
from greentask.queue.store import Store

from .running import MAIL, folder, queued

__all__ = ["measure"]

WARM = 2_000  # tasks that run before it is measured
PART = 20_000


def measure(rounds: int = 3, many: int = 10_000, few: int = 1_000, most: int = 1_000_000) -> list[Figure]:
    """``many`` run with ``few`` and with ``most`` behind them, by turns; medians of the rounds' ratios."""
    times: dict[int, list[float]] = {few: [], most: []}
    with folder() as path:
        for waiting in times:
            _fill(path / f"{waiting}.db", WARM + many + waiting)
        for _ in range(rounds):
            for waiting, taken in times.items():
                shutil.copy(path / f"{waiting}.db", path / "tasks.db")
                with queued(path / "tasks.db") as peer:
                    began, before = peer.watch_for(WARM)
                    ended, after = peer.watch_for(WARM + many)
                    taken.append((ended - began) / (after - before) * 1e6)
                for file in path.glob("tasks.db*"):
                    file.unlink()
    ratio = statistics.median(large / small for small, large in zip(times[few], times[most]))
    return [
        Figure(f"a task, with {few:,} waiting", statistics.median(times[few]), "µs"),
        Figure(f"a task, with {most:,} waiting", statistics.median(times[most]), "µs"),
        Figure(f"{most:,} / {few:,} waiting", ratio, "times", most=1.5),
    ]


def _fill(file: Path, count: int) -> None:
    """Make a queue in which so many wait."""
    store = Store(open_file(str(file)), Clock(), 3600.0)
    store.db.execute("PRAGMA synchronous = OFF")
    message = Message("mail", json.dumps({"args": MAIL}).encode())
    for first in range(0, count, PART):
        store.begin()
        store.enqueue([message] * min(PART, count - first))
        store.commit()
    store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    store.db.close()
