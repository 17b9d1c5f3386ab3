"""A durable queue that forgets, and is read, while it is worked with."""

import statistics
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from greentask import Client
from greentask.queue.byhand import QueueFile
from greentask.queue.clock import Clock
from greentask.queue.interface import Ending, Want
from greentask.queue.schema import open_file
from greentask.queue.store import Store
from support.programs import environment
from support.queue_calls import enqueue
from support.queues import message
from support.servers import LineClient, serving, wait_until

pytestmark = [pytest.mark.load, pytest.mark.timeout(200)]

APPS = ("support.durable_tasks",)
OLD = 50_000


def make_old_tasks(path: Path) -> None:
    """Tasks that have ended long enough ago to be forgotten."""
    db = open_file(str(path))
    db.execute("PRAGMA synchronous = OFF")
    store = Store(db, Clock(), 0.001)
    store.begin()
    store.keep_time()
    store.commit()
    for _ in range(OLD // 10_000):
        store.begin()
        store.enqueue([message(args='["' + "x" * 700 + '"]')] * 10_000)
        taken = store.take([Want(frozenset({"add"}), 10_000)], 7)
        store.settle([(one, Ending("done", b'"' + b"y" * 700 + b'"')) for one in taken])
        store.commit()
    db.close()


def latencies(peer: LineClient, count: int) -> list[float]:
    """Of so many tasks that are enqueued one after another, in seconds."""
    took = []
    for number in range(count):
        began = time.monotonic()
        enqueue(peer, "add", number)
        took.append(time.monotonic() - began)
    return took


def test_forgetting_holds_nobody_up_and_gives_the_room_back(tmp_path: Path) -> None:
    path = tmp_path / "tasks.db"
    make_old_tasks(path)
    size = path.stat().st_size
    assert size > 40_000_000
    with serving("--queue", str(path), apps=APPS) as server, server.connect() as peer, QueueFile(path) as file:

        def left() -> int:
            return int(file.store.db.execute("SELECT count(*) FROM task WHERE enqueued < ?", (began,)).fetchone()[0])

        began = time.time()
        meanwhile: list[float] = []
        while left() > 0:
            meanwhile += latencies(peer, 100)
            assert time.time() < began + 100, left()
        forgotten = time.time()
        alone = latencies(peer, 500)
        wait_until(lambda: path.stat().st_size < size / 2, "the file is smaller", 90.0)
        after = latencies(peer, 100)
    for name, took in (("meanwhile", meanwhile), ("alone", alone), ("after", after)):
        took.sort()
        print(f"{name}: median {statistics.median(took) * 1e3:.2f} ms, longest {took[-1] * 1e3:.1f} ms ({len(took)})")
    print(f"{OLD:,} forgotten in {forgotten - began:.1f} s; {size:,} bytes before, {path.stat().st_size:,} now")
    assert len(meanwhile) >= 100
    assert statistics.median(meanwhile) < 5 * statistics.median(alone) + 0.01
    assert meanwhile[int(len(meanwhile) * 0.99) - 1] < 0.5


#: Looks at a queue for so long, in transactions of so many seconds.
READER = """
import sys, time
from greentask.queue.byhand import QueueFile
with QueueFile(sys.argv[1]) as file:
    until = time.monotonic() + float(sys.argv[2])
    while time.monotonic() < until:
        with file.moment() as store:
            store.db.execute("SELECT count(*) FROM meta").fetchone()
            time.sleep(float(sys.argv[3]))
"""


def test_the_log_does_not_grow_without_bound_while_others_look(tmp_path: Path) -> None:
    path, seconds = tmp_path / "tasks.db", 60.0
    log, longest = Path(f"{path}-wal"), [0]
    batch = [[number, "x" * 50_000] for number in range(20)]
    with serving("--queue", str(path), "--result-ttl", "1s", apps=APPS) as server, ExitStack() as stack:
        client = stack.enter_context(Client(server.address, timeout=60))
        for pause in ("0.05", "0.07", "0.11"):  # at any moment somebody looks
            command = [sys.executable, "-c", READER, str(path), str(seconds), pause]
            reader = subprocess.Popen(command, env=environment())
            stack.enter_context(reader)
            stack.callback(reader.kill)
        began = time.monotonic()
        while len(longest) < 3:
            assert time.monotonic() < began + seconds, f"it has had {longest} bytes at most"
            client.enqueue_many("collect", batch)
            size = log.stat().st_size
            if size < longest[-1] / 2 and longest[-1] > 33e6:
                longest.append(size)
            longest[-1] = max(longest[-1], size)
        took = time.monotonic() - began
    print(f"it has begun anew twice in {took:.0f} s, and had {[f'{size / 1e6:.0f} MB' for size in longest]} at most")
    assert max(longest) < 300e6
