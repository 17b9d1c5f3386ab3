"""SQLite's log, and those who read for long or take turns at it."""

import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from greentask.queue.byhand import QueueFile
from greentask.queue.longlog import LongLog
from greentask.queue.schema import open_to_read
from greentask.queue.store import Store
from support.programs import environment
from support.queues import FakeClock, message, open_store, transact
from support.servers import wait_until


@pytest.fixture
def store(path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.setattr("greentask.queue.longlog._LONG", 200_000)
    return open_store(path, clock.as_clock())


@pytest.fixture
def readers(path: Path) -> Iterator[list[sqlite3.Connection]]:
    readers = [open_to_read(str(path)) for _ in range(3)]
    yield readers
    for reader in readers:
        reader.close()


def begin(reader: sqlite3.Connection) -> None:
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM task").fetchone()


def write(store: Store, size: int = 300_000) -> None:
    transact(store, lambda: store.enqueue([message(args='["' + "x" * size + '"]')]))


def length(path: Path) -> int:
    return os.path.getsize(f"{path}-wal")


def test_it_begins_anew_though_somebody_reads_at_any_time(
    store: Store, path: Path, readers: list[sqlite3.Connection]
) -> None:
    first, second, third = readers
    log = LongLog(store.db, str(path))
    assert not log.is_due(0.0)
    begin(first)
    write(store)
    assert log.is_due(0.0)
    begin(second)
    assert not log.begin_anew(0.0), "both need it"
    first.execute("ROLLBACK")
    begin(third)
    assert not log.is_due(0.5), "it is not tried all the time"
    assert log.is_due(1.0)
    assert not log.begin_anew(1.0), "the second one needs it yet"
    begin(first)  # which finds everything in the file
    for reader in (second, third):
        reader.execute("ROLLBACK")
    assert not log.is_due(2.9), "the pause has grown"
    assert log.begin_anew(3.0), "while the first one reads on"
    assert length(path) == 0
    assert store.db.execute("PRAGMA busy_timeout").fetchone()[0] >= 1000, "as it was"
    write(store)
    assert log.is_due(3.0)
    first.execute("ROLLBACK")
    assert log.begin_anew(3.0)


def test_who_reads_for_long_costs_the_others_little(
    store: Store, path: Path, readers: list[sqlite3.Connection], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greentask.queue.longlog._WAIT", 0.01)
    log, now, tried = LongLog(store.db, str(path)), 0.0, 0
    begin(readers[0])
    write(store)
    while now < 600:
        if log.is_due(now):
            assert not log.begin_anew(now)
            tried += 1
        now += 1.0
    assert tried < 20
    os.unlink(f"{path}-wal")
    assert not log.is_due(now)


def test_the_longer_it_is_the_longer_are_readers_waited_for(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greentask.queue.longlog._LONG", 20_000)
    monkeypatch.setattr("greentask.queue.longlog._WAIT", 0.05)
    monkeypatch.setattr("greentask.queue.longlog._MOST_WAIT", 5.0)
    reads = threading.Event()

    def read() -> None:
        reader = open_to_read(str(path))
        begin(reader)
        reads.set()
        time.sleep(0.3)  # for so long it reads
        reader.close()

    thread = threading.Thread(target=read)
    thread.start()
    assert reads.wait(10)
    write(store, 2_000_000)
    log = LongLog(store.db, str(path))
    assert log.is_due(0.0)
    assert log.begin_anew(0.0)
    thread.join()


def test_who_takes_an_export_slowly_does_not_keep_the_log(path: Path) -> None:
    with QueueFile(path, make=True) as file:
        file.transact(lambda store: store.enqueue([message(args='["' + "x" * 1000 + '"]')] * 2000))
        command = [sys.executable, "-m", "greentask", "queue", "export", "--queue", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment()) as export:
            assert export.stdout is not None
            head = export.stdout.read(1)  # a pipe takes 64 KB
            file.store.db.execute("PRAGMA busy_timeout = 50")
            file.enqueue(message("later"))

            def is_free() -> bool:
                return file.store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0

            wait_until(is_free, "it reads no more")
            lines = (head + export.stdout.read()).splitlines()
            assert export.wait(20) == 0
    assert len(lines) == 2002
    assert not [name for name in os.listdir(path.parent) if "export" in name]
