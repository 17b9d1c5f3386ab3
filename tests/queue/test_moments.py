"""A task that waits for its moment is found by its id, however it came there and however many wait."""

import os
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from greentask.queue.byhand import QueueFile
from greentask.queue.clock import Clock
from greentask.queue.expiring import expire
from greentask.queue.ids import id_text
from greentask.queue.interface import Delivery, Ending, Message, Step, Want
from greentask.queue.looking import find, retry, revoke
from greentask.queue.managing import Filter, show
from greentask.queue.recover import recover
from greentask.queue.schema import _STEPS, APPLICATION_ID, open_file
from greentask.queue.store import Store
from greentask.queue.transfer import export_tasks, import_tasks
from greentask.wire.json import loads
from support.queues import FakeClock, message, open_store, transact

DUE_IN = 50.0
WITHOUT_MOMENTS = 7  # the version before they were written down


def put(store: Store, *messages: Message) -> list[int]:
    return transact(store, lambda: store.enqueue(messages))


def take(store: Store) -> Delivery:
    (delivery,) = transact(store, lambda: (store.ripen() and []) or store.take([Want(frozenset({"add"}), 1)], 7))
    return delivery


def settle(store: Store, delivery: Delivery, how: str, delay: float) -> None:
    ending = Ending(how, b"{}", delay)  # type: ignore[arg-type]
    assert transact(store, lambda: store.settle([(delivery, ending)])) == [True]


def attempt(store: Store, how: str, delay: float) -> int:
    """Have the only one that may run be tried."""
    delivery = take(store)
    settle(store, delivery, how, delay)
    return int(delivery.handle[0])


# ---- The ways to wait for a moment: each leaves the last of its tasks there, for so long


def delayed(store: Store, clock: FakeClock) -> int:
    return put(store, message(delay=DUE_IN))[0]


def at_a_time(store: Store, clock: FakeClock) -> int:
    return put(store, message(at=clock.wall + DUE_IN))[0]


def with_options(store: Store, clock: FakeClock) -> int:
    return put(store, message(delay=DUE_IN, key="k", singleton="s", retries=3, priority=2))[0]


def tried_again(store: Store, clock: FakeClock) -> int:
    put(store, message())
    return attempt(store, "retry", DUE_IN)


def lost(store: Store, clock: FakeClock) -> int:
    put(store, message())
    return attempt(store, "lost", DUE_IN)


def given_back(store: Store, clock: FakeClock) -> int:
    put(store, message())
    return attempt(store, "released", DUE_IN)


def delayed_and_tried_again_and_again(store: Store, clock: FakeClock) -> int:
    put(store, message(delay=5.0))
    for how, delay in (("released", 7.0), ("retry", 3.0), ("retry", 0.0), ("lost", 9.0), ("retry", DUE_IN)):
        clock.pass_by(10.0)
        transact(store, store.ripen)
        id = attempt(store, how, delay)
    return id


def dead_and_tried_again(store: Store, clock: FakeClock) -> int:
    put(store, message(delay=5.0))
    clock.pass_by(6.0)
    transact(store, store.ripen)
    id = attempt(store, "failed", 0.0)
    assert transact(store, lambda: retry(store, id_text(id)))
    return attempt(store, "retry", DUE_IN)


def after_another(store: Store, clock: FakeClock) -> int:
    steps = [Step(message(), takes=False), Step(message(args="[null]", delay=DUE_IN))]
    _, last = transact(store, lambda: store.composer.compose(steps))
    delivery = take(store)
    settle(store, delivery, "done", 0.0)
    assert isinstance(last, str)
    (id,) = store.db.execute("SELECT max(id) FROM task").fetchone()
    assert id_text(id) == last
    return int(id)


def of_an_older_server(store: Store, clock: FakeClock) -> int:
    """It has had the file open since before the version was that of now."""
    (last,) = store.db.execute("SELECT coalesce(max(id), 1) FROM task").fetchone()
    row = (last + 1, store.lane("add"), clock.wall, b'{"args":[1,2]}')
    store.db.execute("INSERT INTO task (id, lane, rank, state, enqueued, body) VALUES (?, ?, 0, 0, ?, ?)", row)
    store.db.execute("INSERT INTO later VALUES (0, ?, ?, 0, 0)", (store.time.now() + DUE_IN, last + 1))
    return int(last) + 1


WAYS = [
    delayed,
    at_a_time,
    with_options,
    tried_again,
    lost,
    given_back,
    delayed_and_tried_again_and_again,
    dead_and_tried_again,
    after_another,
    of_an_older_server,
]


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Store:
    return open_store(path, clock.as_clock())


def left(store: Store) -> list[int]:
    return [id for (id,) in store.db.execute("SELECT id FROM later ORDER BY id")]


@pytest.mark.parametrize("way", WAYS)
def test_it_is_shown_and_exported_and_revoked(
    store: Store, clock: FakeClock, way: Callable[[Store, FakeClock], int]
) -> None:
    others = put(store, *[message(delay=1e6)] * 3)
    id = way(store, clock)
    told = show(store, id_text(id))
    assert told is not None
    assert told["state"] == "scheduled"
    assert told["due_in"] == pytest.approx(DUE_IN, abs=1e-3)
    line = next(task for line in export_tasks(store, Filter()) if (task := loads(line)).get("task") == id_text(id))
    assert line["due"] - clock.wall == pytest.approx(DUE_IN, abs=1e-3)
    assert left(store) == [*others, id]
    assert transact(store, lambda: revoke(store, id_text(id)))
    assert left(store) == others


@pytest.mark.parametrize("way", WAYS)
def test_it_is_ready_in_its_time_and_nothing_is_kept_of_it(
    store: Store, clock: FakeClock, way: Callable[[Store, FakeClock], int]
) -> None:
    id = way(store, clock)
    clock.pass_by(DUE_IN - 0.01)
    assert transact(store, store.ripen) == 0
    clock.pass_by(0.02)
    assert transact(store, store.ripen) == 1
    delivery = take(store)
    assert delivery.handle[0] == id
    settle(store, delivery, "done", 0.0)
    clock.pass_by(200.0)
    transact(store, store.cleaner.step)
    assert find(store, id_text(id)) is None
    assert not left(store)
    assert store.db.execute("SELECT * FROM moment WHERE id = ?", (id,)).fetchall() == []


@pytest.mark.parametrize("way", [delayed, at_a_time, given_back])
def test_it_expires_before_its_moment(store: Store, clock: FakeClock, way: Callable[[Store, FakeClock], int]) -> None:
    id = way(store, clock)
    store.db.execute("UPDATE task SET expires = ? WHERE id = ?", (store.time.now() + 5.0, id))
    store.db.execute("INSERT INTO expiry SELECT expires, id FROM task WHERE id = ?", (id,))
    clock.pass_by(6.0)
    transact(store, lambda: expire(store))
    found = find(store, id_text(id))
    assert found is not None
    assert found.state == "expired"
    assert not left(store)


def test_what_is_imported_is_found_as_well(tmp_path: Path) -> None:
    with QueueFile(tmp_path / "one.db", make=True) as one, QueueFile(tmp_path / "other.db", make=True) as other:
        ids = [one.enqueue(message(delay=1000.0)), one.enqueue(message(at=one.store.clock.wall() + 1000.0))]
        with one.moment() as store:
            lines = list(export_tasks(store, Filter()))
        assert import_tasks(other, lines).new == 2
        for id in ids:
            assert other.look("show", task=id)["due_in"] == pytest.approx(1000.0, abs=30.0)
        assert other.change("revoke", ids) == ids
        assert not left(other.store)


# ---- The first of them, where nobody else writes


@pytest.mark.parametrize("seed", range(5))
def test_the_first_moment_is_known_without_a_look(store: Store, clock: FakeClock, seed: int) -> None:
    """It may be too early, until it has come, but never too late."""
    chance = random.Random(seed)
    looks: list[str] = []
    store.db.set_trace_callback(lambda statement: looks.append(statement) if "min(due)" in statement else None)
    for _ in range(300):
        store.be_alone(chance.random() < 0.98)
        step = chance.random()
        ids = left(store)
        if step < 0.4:
            put(store, *[message(delay=chance.uniform(0, 100.0)) for _ in range(chance.randint(1, 3))])
        elif step < 0.5:
            put(store, message(at=clock.wall + chance.uniform(1.0, 100.0)))
        elif step < 0.6:
            put(store, message())
        elif step < 0.7 and store.has_ready([Want(frozenset({"add"}), 1)]):
            attempt(store, chance.choice(("retry", "lost", "done")), chance.uniform(0.0, 50.0))
        elif step < 0.75 and ids:
            assert transact(store, lambda: revoke(store, id_text(chance.choice(ids))))  # noqa: B023
        elif step < 0.8:
            store.begin()
            store.enqueue([message(delay=1.0)])
            store.rollback()
        else:
            clock.pass_by(chance.choice((0.5, 5.0, 20.0)))
        moments = store.db.execute("SELECT clock, due FROM later").fetchall()
        waits = [due - (clock.wall if by_clock else store.time.now()) for by_clock, due in moments]
        known = store.next_moment()
        if waits:
            assert known is not None
            assert known <= max(0.0, min(waits))
        if known is not None and (not waits or known < max(0.0, min(waits))):
            clock.pass_by(known)
            assert store.next_moment() != 0.0
        if chance.random() < 0.3:
            ripe = [due for by_clock, due in moments if due <= (clock.wall if by_clock else store.time.now())]
            assert transact(store, store.ripen) == len(ripe)
    store.db.set_trace_callback(None)
    assert 10 < len(looks) < 300


# ---- Files of the version before


def old_file(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, isolation_level=None)
    for step in _STEPS[:WITHOUT_MOMENTS]:
        db.executescript(step)
    db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    db.execute(f"PRAGMA user_version = {WITHOUT_MOMENTS}")
    return db


def test_what_waits_in_a_file_of_the_version_before_is_found(path: Path, clock: FakeClock) -> None:
    now = clock.wall
    with closing(old_file(path)) as old:
        old.execute("INSERT INTO lane VALUES (1, 'add')")
        insert = "INSERT INTO task (id, lane, rank, state, enqueued, body) VALUES (?, 1, 0, 0, 1.0, ?)"
        old.executemany(insert, [(id, b'{"args":[1,2]}') for id in (21, 22, 23, 24)])
        old.executemany(
            "INSERT INTO later VALUES (?, ?, ?, ?, 0)",
            [(0, now + 50.0, 21, 0), (1, now + 60.0, 22, 0), (0, now + 40.0, 23, 2), (0, now + 5.0, 24, 0)],
        )
        older = sqlite3.connect(path, isolation_level=None)  # it goes on as it was
    store = open_store(path, clock.as_clock())
    with closing(older):
        older.execute(insert, (25, b'{"args":[1,2]}'))
        older.execute("INSERT INTO later VALUES (0, ?, 25, 0, 0)", (now + 70.0,))
        assert older.execute("DELETE FROM later WHERE id = 24").rowcount == 1
        older.execute("INSERT INTO ready VALUES (1, 0, 24, 0, 0)")
    for id, due_in in ((21, 50.0), (22, 60.0), (23, 40.0), (25, 70.0)):
        told = show(store, id_text(id))
        assert told is not None
        assert told["due_in"] == pytest.approx(due_in, abs=1e-3)
    assert transact(store, lambda: [revoke(store, id_text(id)) for id in (21, 22, 23)]) == [True] * 3
    assert left(store) == [25]
    assert attempt(store, "retry", 80.0) == 24
    assert transact(store, lambda: [revoke(store, id_text(id)) for id in (24, 25)]) == [True] * 2
    assert not left(store)


def test_what_is_saved_of_a_damaged_file_of_the_version_before_is_found(path: Path, tmp_path: Path) -> None:
    due = time.time() + 5000.0
    with closing(old_file(path)) as old:
        old.execute("INSERT INTO lane VALUES (1, 'add')")
        insert = "INSERT INTO task (id, lane, rank, state, enqueued, body) VALUES (?, 1, 0, 0, 1.0, ?)"
        old.executemany(insert, [(id, b'{"args":[1,2]}') for id in (21, 22)])
        old.executemany("INSERT INTO later VALUES (?, ?, ?, 0, 0)", [(0, due, 21), (1, due, 22), (1, due, 23)])
    assert recover(str(path), str(tmp_path / "saved.db")).tasks == 2
    with QueueFile(tmp_path / "saved.db") as file:
        ids = [id_text(21), id_text(22)]
        assert [file.look("show", task=id)["due_in"] for id in ids] == pytest.approx([5000.0] * 2, abs=60.0)
        assert file.change("revoke", ids) == ids
        assert not left(file.store)


# ---- What it costs


def test_no_statement_looks_through_all_that_wait(store: Store, clock: FakeClock) -> None:
    steps: list[int] = []
    statements: set[str] = set()

    def count_steps() -> int:
        steps[-1] += 1
        return 0

    def watch(statement: str) -> None:
        if "later" in statement:
            statements.add(statement)

    store.db.set_trace_callback(watch)
    for waiting in (50, 20_000):
        clock.pass_by(2.0)
        put(store, *(message("other", delay=1e6) for _ in range(waiting)))
        steps.append(0)
        store.db.set_progress_handler(count_steps, 10)
        at_once, *scheduled, _ = put(store, message(), *[message(delay=DUE_IN)] * 3, message(delay=DUE_IN, ttl=5.0))
        assert attempt(store, "retry", DUE_IN) == at_once
        for id in (at_once, *scheduled):
            told = show(store, id_text(id))
            assert told is not None
            assert "due_in" in told
        for id in (at_once, scheduled[0]):
            assert transact(store, lambda: revoke(store, id_text(id)))  # noqa: B023
        clock.pass_by(6.0)
        assert not transact(store, lambda: expire(store))
        clock.pass_by(DUE_IN)
        assert transact(store, store.ripen) == 2
        attempt(store, "done", 0.0)
        attempt(store, "done", 0.0)
        store.db.set_progress_handler(None, 10)
        assert len(left(store)) == store.db.execute("SELECT count(*) FROM task WHERE lane = 1").fetchone()[0]
        if waiting == 50:
            list(export_tasks(store, Filter()))  # it looks at all tasks, but at each by itself
    store.db.set_trace_callback(None)
    assert steps[1] < steps[0] * 1.2
    looked = [one for one in statements if not one.startswith(("SELECT id FROM later", "INSERT", "--"))]
    assert len(looked) > 5
    for statement in looked:
        plan = [row[3] for row in store.db.execute(f"EXPLAIN QUERY PLAN {statement}")]
        assert not [row for row in plan if row.startswith("SCAN later")], statement


@pytest.mark.parametrize("options", [{}, {"delay": 1e6}, {"at": 4e9}], ids=["at once", "delay", "at"])
def test_a_commit_is_of_two_pages(path: Path, options: dict[str, float]) -> None:
    """The task's own, at the end of its table, and that of where it stands."""
    with closing(open_file(str(path))) as db:
        store = Store(db, Clock(), 100.0)
        db.execute("PRAGMA synchronous = OFF")
        put(store, message(**options))
        pages = []
        for _ in range(100):
            before = os.stat(f"{path}-wal").st_size
            put(store, message(**options))
            pages.append((os.stat(f"{path}-wal").st_size - before) // (4096 + 24))
        assert sorted(pages)[len(pages) * 9 // 10] == 2, pages
