"""Many rows in few statements come to the same as one by one."""

import random
import sqlite3
from collections import Counter
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.queue import looking
from greentask.queue.bulk import end_tasks, insert_tasks, runs
from greentask.queue.ids import id_text
from greentask.queue.interface import Delivery, Ending, Limit, Message, Want
from greentask.queue.pausing import pause, resume
from greentask.queue.schema import open_file
from greentask.queue.store import Store
from support.queues import FakeClock, message, open_store, transact

ADD = frozenset({"add", "mul"})


@given(st.lists(st.integers(0, 60), max_size=60).map(sorted))
def test_runs_are_the_same_numbers(numbers: list[int]) -> None:
    found = runs(numbers)
    assert [id for first, last in found for id in range(first, last + 1)] == numbers
    for (_, last), (first, _) in pairwise(found):
        assert first != last + 1, "as few as can be"


@pytest.mark.parametrize("count", [0, 1, 2, 7, 8, 15, 16, 17, 63, 64, 65, 127, 300])
def test_rows_are_written_as_they_were_given(path: Path, count: int) -> None:
    chance = random.Random(count)
    db = open_file(str(path))
    rows = []
    for id in range(1, count + 1):
        options = (9.5, 3, f"key {id}", "one") if chance.random() < 0.2 else (None, None, None, None)
        options = options if chance.random() < 0.5 else (*options[:3], None)
        due = id / 3 if chance.random() < 0.1 else None
        rows.append((id, chance.randint(1, 3), chance.randint(-3, 3), b"body %d" % id, *options, due))
    others = [row for row in rows if row[4:] != (None,) * 5]
    plain = [
        value
        for id, lane, rank, body, *options in rows
        if options == [None] * 5
        for value in (id, lane, rank, 1.5, bytearray(body))
    ]
    insert_tasks(db, plain, others, 1.5)
    columns = "id, lane, rank, body, expires, retries, key, single, due"
    assert db.execute(f"SELECT {columns} FROM task ORDER BY id").fetchall() == rows
    assert db.execute("SELECT DISTINCT enqueued, state FROM task").fetchall() in ([(1.5, 0)], [])
    assert {type(body) for (body,) in db.execute("SELECT body FROM task")} <= {bytes}
    ids = [id for id in range(1, count + 1) if chance.random() < 0.98]
    ended = [
        (
            id,
            1 + (chance.random() < 0.02),
            b"result %d" % id if chance.random() < 0.98 else chance.choice((None, b"r" * 5000)),
        )
        for id in ids
    ]
    end_tasks(db, 1, 2.5, ended)
    kept = db.execute("SELECT id, attempts, body FROM task WHERE state = 1 AND ended = 2.5 ORDER BY id").fetchall()
    assert kept == ended
    rest = db.execute("SELECT count(*), count(ended) FROM task WHERE state = 0").fetchone()
    assert rest == (count - len(ids), 0)
    db.close()


def test_whatever_order_many_end_in(path: Path, clock: FakeClock) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance, store = random.Random(seed), open_store(path, clock.as_clock())
    waiting: set[int] = set()
    running: list[Delivery] = []
    expected: dict[str, str] = {}
    for _ in range(30):
        messages = [
            Message(
                chance.choice(("add", "mul")), b'{"args":[%d]}' % number, key=chance.choice((None, None, f"{number}"))
            )
            for number in range(chance.choice((0, 1, 2, 40, 90)))
        ]
        waiting |= set(transact(store, partial(store.enqueue, messages)))
        running += transact(store, lambda: store.take([Want(ADD, chance.randint(0, 100))], 77))
        chance.shuffle(running)
        part, running = running[: len(running) // 2], running[len(running) // 2 :]
        settled = [(one, Ending(chance.choice(("done", "done", "done", "failed")), one.payload)) for one in part]
        assert transact(store, partial(store.settle, settled)) == [True] * len(part)
        expected.update({one.id: ending.how for one, ending in settled})
        for one, ending in settled:
            if ending.how == "done":
                found = looking.find(store, one.id)
                assert found is not None
                assert found.result == one.payload
    assert {id_text(id) for id in waiting} >= expected.keys()
    for id, how in expected.items():
        found = looking.find(store, id)
        assert found is not None
        assert found.state == how
    ended = {id_text(id) for (id,) in store.db.execute("SELECT id FROM forget")}
    assert ended == {id for id, how in expected.items() if how == "done"}
    assert store.db.execute("SELECT count(*) FROM running").fetchone() == (len(running),)


def test_of_many_that_end_those_count_that_were_not_taken_back(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock())
    transact(store, lambda: store.enqueue([Message("add", b'{"args":[]}')] * 100))
    taken = transact(store, lambda: store.take([Want(ADD, 100)], 77))
    gone = {taken[7].handle[0], taken[50].handle[0]}
    transact(store, lambda: _delete(store.db, gone))
    settled = [(one, Ending("done", b"1")) for one in taken]
    counts = transact(store, lambda: store.settle([*settled, settled[3]]))
    assert counts == [one.handle[0] not in gone for one in taken] + [False], "nor does one twice"
    assert store.db.execute("SELECT count(*) FROM task WHERE state = 1").fetchone() == (98,)


def _delete(db: sqlite3.Connection, ids: set[int]) -> None:
    db.executemany("DELETE FROM running WHERE id = ?", [(id,) for id in ids])


def test_payloads_are_handed_out_as_they_were_enqueued(path: Path, clock: FakeClock) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance, store = random.Random(seed), open_store(path, clock.as_clock())
    for _ in range(60):
        sizes = [chance.choice((0, 1, 30, 4096, *[4097] * chance.choice((0, 1)))) for _ in range(chance.randint(1, 20))]
        payloads = [b'{"args":["' + chance.randbytes(size) + b'"]}' for size in sizes]
        odd = chance.random() < 0.3
        messages = [Message("add", one, ttl=10.0, retries=3 if odd else None) for one in payloads]
        ids = transact(store, partial(store.enqueue, messages))
        taken: list[Delivery] = []
        while len(taken) < len(ids):
            room = chance.choice((1, 5000, 10**6))
            some = transact(store, partial(store.take, [Want(ADD, chance.randint(1, 20))], 77, room))
            assert some
            assert sum(len(one.payload) for one in some[:-1]) < room
            taken += some
        assert [one.payload for one in taken] == payloads
        assert [one.handle for one in taken] == [(id, 77) for id in ids]
        assert {(one.retries, one.attempt, one.task) for one in taken} == {(3 if odd else None, 1, "add")}
    assert store.db.execute("SELECT count(*) FROM ready").fetchone() == (0,)
    large = [Message("add", b'{"args":["' + b"x" * size + b'"]}') for size in (10, 10, 5000, 10, 10**6)]
    transact(store, partial(store.enqueue, large))
    taken = transact(store, partial(store.take, [Want(ADD, 9)], 77))
    assert [one.payload for one in taken] == [one.payload for one in large]


def _turn(store: Store, messages: list[Message], wants: list[Want], at_once: bool) -> list[Delivery]:
    store.enqueue(messages, before_take=at_once)
    store.ripen()
    return store.take(wants, 77)


def _counts(store: Store) -> dict[str, int]:
    tables = ("task", "ready", "running", "later")
    return {table: store.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0] for table in tables}


def test_what_is_handed_out_at_once_is_what_would_have_been(tmp_path: Path, clock: FakeClock) -> None:
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    at_once, in_line = (open_store(tmp_path / f"{name}.db", clock.as_clock()) for name in ("one", "other"))
    seen: set[bytes] = set()
    for store in (at_once, in_line):
        store.allowances.limits = {"few": Limit(max_running=3)}
    for turn in range(200):
        messages = [
            Message(
                chance.choice(("add", "add", "mul")) if chance.random() < 0.99 else "few",
                b'{"args":[%d,%d]}' % (turn, number),
                chance.choice((0, 0, 0, 5)),
                delay=30.0 if chance.random() < 0.01 else 0.0,
                key=f"{turn // 2} {number}" if chance.random() < 0.02 else None,
                retries=chance.choice((None, 2)),
            )
            for number in range(chance.randint(1, 30))
        ]
        ranks = {one.payload: -one.priority for one in messages}
        wants = [Want(ADD, chance.choice((2, 40, 1000))), Want(frozenset({"few"}), 2)]
        if chance.random() < 0.1:
            change = chance.choice((pause, resume, resume))
            for store in (at_once, in_line):
                transact(store, partial(change, store.db, None))
        taken = transact(at_once, partial(_turn, at_once, messages, wants, True))
        others = transact(in_line, partial(_turn, in_line, messages, wants, False))
        assert Counter(one.task for one in taken)["few"] == Counter(one.task for one in others)["few"]
        assert len(taken) == len(others)
        assert _counts(at_once) == _counts(in_line)
        payloads = [one.payload for one in taken]
        assert len(set(payloads)) == len(payloads)
        assert not seen.intersection(payloads)
        seen.update(payloads)
        if ranks.keys() >= set(payloads):
            assert [ranks[one] for one in payloads] == sorted(ranks[one] for one in payloads)
        for store, some in ((at_once, taken), (in_line, others)):
            settled = [(one, Ending("done", one.payload)) for one in some]
            assert transact(store, partial(store.settle, settled)) == [True] * len(some)
        clock.pass_by(chance.choice((0.0, 0.0, 40.0)))
    assert len(seen) > 1000


def test_what_is_not_handed_out_at_once_is_not_lost(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock())
    transact(store, lambda: store.enqueue([message(), message()], before_take=True))
    assert _counts(store) == {"task": 2, "ready": 2, "running": 0, "later": 0}
    store.begin()
    store.enqueue([message()], before_take=True)
    store.rollback()
    assert transact(store, lambda: store.take([Want(ADD, 0)], 77)) == []
    assert _counts(store) == {"task": 2, "ready": 2, "running": 0, "later": 0}
