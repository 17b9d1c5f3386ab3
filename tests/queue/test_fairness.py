"""Who goes first on a server that is given more than it can run: nobody waits for ever, as the documents say it."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from greentask import Client
from greentask.queue.sharing import FAIR
from support.durable_tasks import marks
from support.servers import serving, wait_until

APPS = ("support.durable_tasks",)
PROCESSES = 2
PAUSE = 0.004  # seconds that a task takes


class Flood:
    """Urgent tasks, which come quicker than they are run."""

    def __init__(self, address: str, file: Path) -> None:
        self.enqueued = 0
        self._address, self._file = address, file
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        give_up = time.monotonic() + 60
        with Client(self._address, timeout=20) as client:
            urgent = client.using(priority=10)
            while not self._ends.is_set() and time.monotonic() < give_up:
                ran = len(marks(self._file))
                if self.enqueued - ran < 200 + ran // 5:  # so that those that wait grow more and more
                    urgent.enqueue_many("dawdle", [[str(self._file), "urgent", PAUSE]] * 50)
                    self.enqueued += 50
                time.sleep(0.005)

    @contextmanager
    def coming(self) -> Iterator["Flood"]:
        self._thread.start()
        try:
            yield self
        finally:
            self._ends.set()
            self._thread.join()


@pytest.mark.slow
def test_tasks_of_low_priority_get_on_while_more_urgent_ones_come_than_are_run(tmp_path: Path) -> None:
    file, seen = tmp_path / "marks", {}
    with (
        serving("--queue", str(tmp_path / "tasks.db"), apps=APPS, processes=PROCESSES) as server,
        Flood(server.address, file).coming() as flood,
        Client(server.address, timeout=30) as client,
    ):
        for number in range(5):
            wait_until(lambda: len(marks(file)) > 100 * (number + 1), "it goes on")  # noqa: B023
            before = len(marks(file))
            seen[f"low{number}"] = before, flood.enqueued + 50 - before
            client.using(priority=-10).enqueue("dawdle", str(file), f"low{number}", PAUSE)
        wait_until(lambda: seen.keys() <= set(marks(file)), "all have run", 40.0)
        ran = marks(file)
        assert flood.enqueued - len(ran) > 200, "more and more urgent ones wait all the time"
    went_first = {name: (waited, ran.index(name) - before) for name, (before, waited) in seen.items()}
    print(went_first)
    for waited, count in went_first.values():
        # Besides those that were handed out already: as many as can run, and a tenth of a second's more.
        assert count <= FAIR * (waited + 1) + PROCESSES + 0.1 / PAUSE * PROCESSES
        assert count < 2 * waited + 200, "which is the worst case: those that are more urgent have an order, too"
