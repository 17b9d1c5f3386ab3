"""What the benchmarks share: a server to measure, percentiles, and how results are told."""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

import greentask

ROOT = Path(__file__).parents[1]
RESULTS = Path(__file__).with_name("results")


def percentile(values: list[float], part: float) -> float:
    """The value below which ``part`` (0 to 1) of the values lie."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


@contextmanager
def server(*apps: str, processes: int, options: tuple[str, ...] = (), descriptors: int | None = None) -> Iterator[str]:
    """A real `greentask serve` on a free port; its address. ``descriptors`` is the most that it may have open."""
    command = [sys.executable, "-m", "greentask", "serve", *apps, "-l", "127.0.0.1:0", "-p", str(processes), *options]
    if descriptors is not None:
        command = ["prlimit", f"--nofile={descriptors}:{descriptors}", *command]
    started = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        yield next(word for word in line.split() if word.startswith("tcp://"))
    finally:
        started.send_signal(signal.SIGTERM)
        started.wait(30)
        started.stdout.close()


def tell(name: str, title: str, columns: list[str], rows: list[list[str]], figures: dict[str, Any]) -> None:
    """Print the table, and keep the figures: in place of those in the file that have the same names."""
    table = Table(*columns, title=title, title_justify="left")
    for row in rows:
        table.add_row(*row)
    Console().print(table)
    machine = {
        "python": platform.python_version(),
        "greentask": greentask.__version__,
        "processors": len(os.sched_getaffinity(0)),
    }
    RESULTS.mkdir(exist_ok=True)
    file = RESULTS / f"{name}.json"
    kept = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps({**kept, "machine": machine, **figures}, indent=2, ensure_ascii=False) + "\n")
