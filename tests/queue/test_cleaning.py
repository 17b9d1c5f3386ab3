"""What is forgotten: in small steps, and so that the file doesn't grow without end."""

import logging
import os
import time
from pathlib import Path

import pytest

from greentask.queue import looking
from greentask.queue.ids import id_text
from greentask.queue.interface import Ending, Want
from greentask.queue.managing import stats
from greentask.queue.sqlite import SQLiteQueue
from greentask.queue.store import Store
from support.queues import FakeClock, message, open_store, transact
from support.waiting import wait_until

ADD = frozenset({"add"})
WITHIN = 10.0


def run(store: Store, count: int, how: str = "done", size: int = 20) -> None:
    """Enqueue so many, and have them end."""
    transact(store, lambda: store.enqueue([message(args='["' + "x" * size + '"]') for _ in range(count)]))
    taken = transact(store, lambda: store.take([Want(ADD, count)], 77))
    transact(store, lambda: store.settle([(one, Ending(how, b"{}")) for one in taken]))  # type: ignore[arg-type]


def test_of_too_many_dead_letters_the_oldest_go(path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    store = open_store(path, clock.as_clock(), dead_limit=100)
    run(store, 450, "failed")
    ids = [letter["task"] for letter in looking.dead(store, 200)]
    with caplog.at_level(logging.WARNING):
        store.cleaner.look()
        while store.cleaner.has_work():
            assert transact(store, store.cleaner.step) <= 200
    assert len(looking.dead(store, 1000)) == 100
    assert looking.find(store, ids[0]) is None
    assert store.db.execute("SELECT count(*) FROM failure").fetchone() == (100,)
    assert f"keeps 100 dead letters: the oldest 200 are forgotten, up to {ids[199]}" in caplog.text
    store.cleaner.look()
    assert not store.cleaner.has_work()


def test_what_is_purged_is_not_counted_until_it_would_have_been_forgotten(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock(), result_ttl=50)
    run(store, 10)
    run(store, 3, "failed")
    clock.pass_by(1)
    run(store, 5)

    def ended() -> tuple[int, int]:
        counted = stats(store)
        return counted["ended"], counted["failed"]

    assert ended() == (15, 3)
    ids = [id_text(id) for (id,) in store.db.execute("SELECT id FROM task ORDER BY id")]
    for id in ids[:4] + ids[10:12]:
        assert transact(store, lambda id=id: looking.purge(store, id))  # type: ignore[misc]
    assert ended() == (11, 1)
    clock.pass_by(49.5)
    transact(store, store.cleaner.step)
    assert ended() == (5, 1), "and those of the first that were left are forgotten"
    transact(store, lambda: looking.purge(store, ids[-1]))
    assert ended() == (4, 1)
    clock.pass_by(50)
    transact(store, store.cleaner.step)
    assert ended() == (0, 1)
    assert store.db.execute("SELECT value FROM meta WHERE name = 'purged'").fetchone() == (0,)


def test_the_file_is_as_large_as_what_is_in_it_at_most(path: Path, clock: FakeClock) -> None:
    store, sizes = open_store(path, clock.as_clock()), []
    for _ in range(12):
        run(store, 1000, size=500)
        clock.pass_by(50)
        while store.cleaner.has_work():
            transact(store, store.cleaner.step)
        store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        sizes.append(os.path.getsize(path))
    assert sizes[-1] <= sizes[4] * 1.1, sizes


def test_a_queue_with_nothing_to_do_forgets_by_itself(path: Path) -> None:
    store = open_store(path, FakeClock(time.time(), 0).as_clock(), result_ttl=0.001)
    run(store, 3000)
    store.db.close()
    queue = SQLiteQueue(path)
    queue.open()
    try:
        assert queue._open is not None
        wait_until(
            lambda: (
                queue._writer.look(lambda store: store.db.execute("SELECT count(*) FROM task").fetchone()).result(
                    WITHIN
                )
                == (0,)
            ),
            WITHIN,
        )
        assert queue.counters()["commits"] >= 15, "in small steps"
    finally:
        queue.close()
