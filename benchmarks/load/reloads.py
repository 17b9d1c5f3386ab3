"""Code that is loaded anew, again and again, while clients call without pause: no call fails, and none runs twice."""

import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

from benchmarks.common import ROOT, percentile, server
from greentask import Client

from .figures import Figure

__all__ = ["measure"]

APP = "benchmarks.load.tasks"


def measure(reloads: int = 50, clients: int = 200, quiet: float = 3.0) -> list[Figure]:
    """``reloads`` by `greentask reload`, after ``quiet`` seconds without, while so many clients call in threads.

    Each call, to greenlets and to task processes by turns, leaves a byte in a file of its own.
    """
    with tempfile.TemporaryDirectory() as folder, server(APP, processes=2) as address:
        calls = _Calls(address, Path(folder), clients)
        time.sleep(quiet)
        before = calls.take_times()
        taken = []
        for _ in range(reloads):
            began = time.monotonic()
            subprocess.run(
                [sys.executable, "-m", "greentask", "reload", "-s", address], cwd=ROOT, check=True, capture_output=True
            )
            taken.append(time.monotonic() - began)
        during = calls.take_times()
        calls.stop()
        marks = [path.stat().st_size for path in Path(folder).iterdir()]
    return [
        Figure(f"calls during {reloads} reloads", len(during), ""),
        Figure("of them failed", len(calls.failed), "", most=0),
        Figure("of them ran twice", sum(size > 1 for size in marks), "", most=0),
        Figure("of them never ran", calls.count - len(marks), "", most=0),
        Figure("a reload, with the command's own start", median(taken), "s"),
        Figure("p99 of calls before", percentile(before, 0.99) * 1000, "ms"),
        Figure("p99 of calls during the reloads", percentile(during, 0.99) * 1000, "ms"),
    ]


class _Calls:
    """Clients that call, each in a thread, until they are stopped."""

    def __init__(self, address: str, folder: Path, clients: int) -> None:
        self.failed: list[Exception] = []
        self.count = 0
        self._address = address
        self._folder = folder
        self._times: list[float] = []
        self._over = threading.Event()
        self._lock = threading.Lock()
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(clients)]
        for thread in self._threads:
            thread.start()

    def take_times(self) -> list[float]:
        """How long the calls took since the last time."""
        with self._lock:
            times, self._times = self._times, []
        return times

    def stop(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, client_number: int) -> None:
        number = 0
        with Client(self._address) as client:
            while not self._over.is_set():
                path = os.path.join(self._folder, f"{client_number}-{number}")
                began = time.monotonic()
                try:
                    client.call("mark" if number % 2 else "mark_in_process", path)
                except Exception as error:
                    self.failed.append(error)
                number += 1
                with self._lock:
                    self._times.append(time.monotonic() - began)
                    self.count += 1
