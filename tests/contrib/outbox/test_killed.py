"""The relay is killed at random moments: every committed row's task runs once, and none of a rolled-back one."""

import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from greentask.contrib.outbox import Outbox
from support.durable_tasks import marks, note
from support.programs import environment
from support.servers import RunningServer, wait_until

from .conftest import Place

pytestmark = [pytest.mark.once, pytest.mark.slow]


@contextmanager
def relay_process(place: Place, server: RunningServer) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "greentask", "outbox", place.where, "--server", server.address, "--batch", "20"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment())
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def write(place: Place, path: Path, chance: random.Random, stop: threading.Event, committed: set[str]) -> None:
    """Transactions, of which some are rolled back."""
    outbox, number = Outbox(), 0
    with closing(place.connect()) as db:
        while not stop.is_set():
            cursor = db.cursor()
            names = []
            for _ in range(chance.randint(1, 5)):
                number += 1
                names.append(f"{id(committed)}-{number}")
                cursor.execute(f"INSERT INTO orders VALUES ({number})")
                outbox.enqueue(cursor, note, str(path), names[-1])
            if chance.random() < 0.3:
                db.rollback()
            else:
                db.commit()
                committed.update(names)
            time.sleep(chance.random() * 0.08)


def kill_relays(place: Place, server: RunningServer, path: Path, kills: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance, stop = random.Random(seed), threading.Event()
    groups: list[set[str]] = [set(), set()]
    writers = [
        threading.Thread(target=write, args=(place, path, random.Random(seed + number), stop, group))
        for number, group in enumerate(groups)
    ]
    for writer in writers:
        writer.start()
    try:
        for _ in range(kills):
            with relay_process(place, server) as process:
                assert process.stdout is not None
                assert process.stdout.readline()  # it is about to begin
                time.sleep(chance.random() ** 2 * 0.3)  # the moment is what is tried
                process.send_signal(signal.SIGKILL)
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    with relay_process(place, server):
        wait_until(lambda: place.rows() == [], patience=60)
    committed = set().union(*groups)
    wait_until(lambda: len(marks(path)) >= len(committed), patience=60)
    ran = marks(path)
    assert len(committed) > 10
    assert set(ran) == committed, f"seed {seed}"
    assert len(ran) == len(committed), f"seed {seed}: some ran twice"


def test_a_killed_relay_loses_nothing_however_often(place: Place, server: RunningServer, tmp_path: Path) -> None:
    kill_relays(place, server, tmp_path / "marks", 12)
