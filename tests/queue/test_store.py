"""What is done with the file, step by step, with clocks that stand still."""

import json
import random
import sqlite3
from pathlib import Path

import pytest

from greentask.queue import attempts, looking
from greentask.queue.ids import id_text
from greentask.queue.interface import Delivery, Ending, Want
from greentask.queue.managing import stats
from greentask.queue.store import Store
from support.queues import FakeClock, message, open_store, transact

ADD = frozenset({"add"})
HOLDER = 77


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Store:
    return open_store(path, clock.as_clock())


def put(store: Store, *messages: object) -> list[str]:
    return [id_text(id) for id in transact(store, lambda: store.enqueue(messages))]  # type: ignore[arg-type]


def take(store: Store, slots: int = 100, tasks: frozenset[str] = ADD, holder: int = HOLDER) -> list[Delivery]:
    def work() -> list[Delivery]:
        store.ripen()
        return store.take([Want(tasks, slots)], holder)

    return transact(store, work)


def settle(store: Store, delivery: Delivery, how: str = "done", body: bytes = b"3", delay: float = 0.0) -> bool:
    (counted,) = transact(store, lambda: store.settle([(delivery, Ending(how, body, delay))]))  # type: ignore[arg-type]
    return counted


def state(store: Store, id: str) -> str | None:
    found = looking.find(store, id)
    return None if found is None else found.state


# ---- Taking


def test_first_in_is_first_out(store: Store) -> None:
    ids = put(store, *(message() for _ in range(5)))
    assert [one.id for one in take(store, 2)] == ids[:2]
    ids += put(store, message())
    assert [one.id for one in take(store)] == ids[2:]
    assert take(store) == []


def test_a_higher_priority_goes_first(store: Store) -> None:
    low, normal, high = put(store, message(priority=-1), message(), message(priority=10))
    assert [one.id for one in take(store)] == [high, normal, low]


def test_only_tasks_that_are_wanted_are_taken(store: Store) -> None:
    _, wanted = put(store, message("other"), message())
    assert [one.id for one in take(store)] == [wanted]
    assert len(take(store, tasks=frozenset({"add", "other", "unheard_of"}))) == 1


def test_several_wants_are_filled_each_for_itself(store: Store) -> None:
    put(store, *(message(task) for task in ("a", "b", "c") for _ in range(10)))
    wants = [Want(frozenset({"a", "b"}), 5), Want(frozenset({"c"}), 2)]
    taken = [one.task for one in transact(store, lambda: store.take(wants, HOLDER))]
    assert (taken.count("a"), taken.count("b"), taken.count("c")) == (3, 2, 2)


def test_slots_that_one_name_leaves_are_for_others(store: Store) -> None:
    put(store, message("a"), *(message("b") for _ in range(10)))
    assert len(take(store, 8, frozenset({"a", "b"}))) == 8


def test_large_payloads_are_taken_a_few_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greentask.queue.handing.MOST_BYTES", 32_000)
    put(store, *(message(args="[" + "1" * 10_000 + "]") for _ in range(6)))
    assert len(take(store)) == 4
    assert len(take(store)) == 2


def test_all_of_a_thousand_are_taken_once_in_whatever_order(store: Store) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    names = ("a", "b", "c")
    put(store, *(message(chance.choice(names), priority=chance.randint(-2, 2)) for _ in range(1000)))
    taken: list[str] = []
    while found := take(store, chance.randint(1, 60), frozenset(chance.sample(names, 2))):
        taken += [one.id for one in found]
    taken += [one.id for one in take(store, 1000, frozenset(names))]
    assert len(taken) == len(set(taken)) == 1000


# ---- Time


def test_a_delay_is_as_long_as_it_says_whoever_sets_the_clock(store: Store, clock: FakeClock) -> None:
    put(store, message(delay=3600.0))
    for hours in (5, -10, 3):
        clock.set_by(hours * 3600.0)
        clock.pass_by(1190)
        assert take(store) == []
    assert store.next_moment() == pytest.approx(30)
    clock.pass_by(31)
    assert len(take(store)) == 1


def test_a_time_of_day_is_that_of_the_wall_clock(store: Store, clock: FakeClock) -> None:
    put(store, message(at=clock.wall + 3600), message(at=clock.wall - 1))
    assert len(take(store)) == 1, "what is in the past is now"
    clock.pass_by(100)
    assert take(store) == []
    clock.set_by(3501)
    assert len(take(store)) == 1
    clock.set_by(-7200)
    clock.set_by(7200)
    assert take(store) == []


def test_a_delay_goes_on_after_the_machine_was_off(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock())
    put(store, message(delay=3600.0))
    store.db.close()
    clock.wall, clock.steady = clock.wall + 1800, 5.0
    store = open_store(path, clock.as_clock(boot="the next one"))
    assert take(store) == []
    clock.pass_by(1801)
    assert len(take(store)) == 1


def test_queue_time_does_not_go_back_where_the_machine_lost_its_clock(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock())
    clock.pass_by(1000)
    transact(store, store.note_time)  # as a server does now and then
    before = store.time.now()
    store.db.close()
    clock.wall, clock.steady = 0.0, 5.0
    assert open_store(path, clock.as_clock(boot="the next one")).time.now() >= before


def test_what_is_too_old_does_not_begin(store: Store, clock: FakeClock) -> None:
    (id, other) = put(store, message(ttl=10.0), message(ttl=100.0))
    clock.pass_by(11)
    assert [one.id for one in take(store)] == [other]
    assert state(store, id) == "expired"


def test_what_has_begun_in_time_is_tried_again_however_late(store: Store, clock: FakeClock) -> None:
    (id,) = put(store, message(ttl=10.0))
    settle(store, take(store)[0], "retry", delay=20.0)
    clock.pass_by(21)
    assert [one.id for one in take(store)] == [id]


def test_many_that_are_too_old_hold_nobody_up(store: Store, clock: FakeClock) -> None:
    put(store, *(message(ttl=10.0) for _ in range(3500)), message())
    clock.pass_by(11)
    rounds = 1
    while not (taken := take(store, 1)):
        assert store.has_ready([Want(ADD, 1)])
        rounds += 1
    assert (len(taken), rounds) == (1, 4)


# ---- Keys


def test_a_key_that_is_known_has_its_task(store: Store, clock: FakeClock) -> None:
    first, second, other = put(store, message(key="order 5"), message(key="order 5"), message(key="order 6"))
    assert first == second != other
    assert put(store, message(key="order 5")) == [first]
    assert len(take(store)) == 2
    for_good = take(store, holder=HOLDER)
    assert for_good == []


def test_a_key_is_free_again_when_its_task_is_forgotten(store: Store, clock: FakeClock) -> None:
    (first,) = put(store, message(key="order 5"))
    settle(store, take(store)[0])
    assert put(store, message(key="order 5")) == [first]
    clock.pass_by(101)
    transact(store, store.cleaner.step)
    assert put(store, message(key="order 5")) != [first]


# ---- Settling


def test_what_failed_is_tried_again_after_its_delay(store: Store, clock: FakeClock) -> None:
    (id,) = put(store, message())
    (delivery,) = take(store)
    assert settle(store, delivery, "retry", b'{"type":"OSError"}', 5.0)
    assert (state(store, id), take(store)) == ("scheduled", [])
    clock.pass_by(6)
    (again,) = take(store)
    assert (again.id, again.attempt, again.failures, again.losses) == (id, 2, 1, 0)
    assert settle(store, again, "lost", b'{"type":"WorkerLost"}')
    (again,) = take(store)
    assert (again.attempt, again.failures, again.losses) == (3, 1, 1)
    assert settle(store, again, "released")
    assert take(store)[0].attempt == 3


def test_what_was_taken_back_is_not_ones_own_to_settle(store: Store) -> None:
    put(store, message(), message())
    mine, taken_back = take(store)
    store.db.execute("UPDATE running SET holder = 78 WHERE id = ?", (taken_back.handle[0],))
    settled = [(taken_back, Ending("done", b"1")), (mine, Ending("done", b"2"))]
    assert transact(store, lambda: store.settle(settled)) == [False, True]
    assert (state(store, mine.id), state(store, taken_back.id)) == ("done", "running")


def test_a_dead_letter_has_everything_of_its_attempts(store: Store, clock: FakeClock) -> None:
    (id,) = put(store, message())
    settle(store, take(store)[0], "retry", b'{"n":1}')
    clock.pass_by(1)
    settle(store, take(store)[0], "failed", b'{"n":2}')
    (letter,) = looking.dead(store, 10)
    assert (letter["task"], letter["name"], letter["payload"]) == (id, "add", b'{"args":[1, 2]}')
    assert [(attempt, error) for attempt, _, error in letter["errors"]] == [(1, b'{"n":1}'), (2, b'{"n":2}')]
    assert looking.dead(store, 10, after=id) == []
    found = looking.find(store, id)
    assert found is not None
    assert (found.state, found.attempts, found.error) == ("failed", 2, b'{"n":2}')


def test_one_that_is_tried_again_for_ever_does_not_fill_the_disk(store: Store) -> None:
    put(store, message())
    error = b'{"type":"Retry","message":"not yet","traceback":"%b"}' % (b"t" * 20_000)
    for _ in range(300):
        (delivery,) = take(store)
        transact(store, lambda delivery=delivery: store.settle([(delivery, Ending("retry", error))]))  # type: ignore[misc]
    (count, size) = store.db.execute("SELECT count(*), sum(length(error)) FROM failure").fetchone()
    assert (count, size < 101 * len(error)) == (300, True)
    (delivery,) = take(store)
    transact(store, lambda: store.settle([(delivery, Ending("failed", error))]))
    errors = [json.loads(error) for _, _, error in looking.dead(store, 1)[0]["errors"]]
    assert [len(one) for one in errors] == [2] * 201 + [3] * 100
    assert {one["message"] for one in errors} == {"not yet"}


@pytest.mark.parametrize("keep", [3, 100])
def test_of_very_many_attempts_the_newest_are_kept_and_which_were_lost(
    path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, keep: int
) -> None:
    monkeypatch.setattr(attempts, "MOST_ATTEMPTS", 20)
    store = open_store(path, clock.as_clock(), keep_attempts=keep)
    (id,) = put(store, message())
    lost, asks = b'{"type":"WorkerLost","message":"killed"}', b'{"type":"Retry","message":"not yet"}'
    for attempt in range(1, 151):
        (delivery,) = take(store)
        processes = sum(attempt > one for one in (5, 60, 61))
        assert (delivery.attempt, delivery.lost_processes) == (attempt, processes)
        how, error = ("lost", lost) if attempt in (5, 60, 61) else ("retry", asks)
        settle(store, delivery, how, error, 0.0 if attempt < 150 else 5.0)
        if attempt == 30:
            settle(store, take(store)[0], "released", b"")
    found = looking.find(store, id)
    assert found is not None
    assert (found.state, found.attempts) == ("scheduled", 150)
    (kept,) = store.db.execute("SELECT count(*) FROM failure").fetchone()
    assert kept == {3: 20 + 3, 100: 100 + 1}[keep], "the lost ones of the oldest, too"


def test_how_many_attempts_are_kept_as_a_whole_can_be_said(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock(), keep_attempts=3)
    put(store, message())
    error = b'{"type":"Retry","message":"not yet","traceback":"T"}'
    for how in ("retry", "retry", "retry", "retry", "failed"):
        settle(store, take(store)[0], how, error)
    errors = [json.loads(error) for _, _, error in looking.dead(store, 1)[0]["errors"]]
    assert ["traceback" in one for one in errors] == [False, False, True, True, True]


def test_a_dead_letter_can_be_tried_again_or_purged(store: Store, clock: FakeClock) -> None:
    one, other = put(store, message(key="a"), message(key="b"))
    for delivery in take(store):
        settle(store, delivery, "failed", b"{}")
    clock.pass_by(1_000_000)
    transact(store, store.cleaner.step)
    assert state(store, one) == "failed", "dead letters stay"
    assert transact(store, lambda: looking.retry(store, one))
    assert not transact(store, lambda: looking.retry(store, one))
    assert [delivery.attempt for delivery in take(store)] == [1]
    assert transact(store, lambda: looking.purge(store, other))
    assert not transact(store, lambda: looking.purge(store, other))
    assert state(store, other) is None
    assert put(store, message(key="b")) != [other]


def test_what_ended_is_forgotten_in_its_time(store: Store, clock: FakeClock) -> None:
    ids = put(store, *(message() for _ in range(2500)))
    taken = take(store, 2400)
    assert all(transact(store, lambda: store.settle([(delivery, Ending("done", b"3")) for delivery in taken])))
    assert not store.cleaner.has_work()
    clock.pass_by(101)
    forgotten = []
    while store.cleaner.has_work():
        forgotten.append(transact(store, store.cleaner.step))
    assert forgotten == [200] * 12
    assert [state(store, id) for id in (ids[0], ids[-1])] == [None, "waiting"]
    assert store.db.execute("SELECT count(*) FROM task").fetchone() == (100,)


@pytest.mark.parametrize("how", ["purge", "forget"])
def test_no_id_is_given_twice_whatever_the_clock_says(path: Path, store: Store, clock: FakeClock, how: str) -> None:
    ids = put(store, message(), message(), message())
    for delivery in take(store):
        settle(store, delivery)
    clock.set_by(-3600)
    if how == "purge":
        assert transact(store, lambda: looking.purge(store, ids[-1]))
        assert transact(store, lambda: looking.purge(store, ids[-2]))
    else:
        clock.pass_by(101)
        transact(store, store.cleaner.step)
    assert state(store, ids[-1]) is None
    (new,) = put(open_store(path, clock.as_clock()), message(delay=500))  # of another server
    assert new > ids[-1]
    clock.pass_by(101)
    transact(store, store.cleaner.step)
    assert state(store, new) == "scheduled", "it is not taken for the one that was there before"
    clock.pass_by(500)
    transact(store, store.ripen)
    assert [delivery.id for delivery in take(store)] == [new]


# ---- Revoking


def test_what_has_not_begun_can_be_revoked(store: Store, clock: FakeClock) -> None:
    waiting, later, running = put(store, message(), message(delay=5.0), message("b"))
    take(store, tasks=frozenset({"b"}))
    assert [transact(store, lambda id=id: looking.revoke(store, id)) for id in (waiting, later, running)] == [
        True,
        True,
        False,
    ]
    clock.pass_by(10)
    assert take(store) == []
    assert [state(store, id) for id in (waiting, later, running)] == ["revoked", "revoked", "running"]
    assert not transact(store, lambda: looking.revoke(store, "nonsense"))


# ---- Cuts


def test_a_rollback_leaves_nothing_behind(store: Store) -> None:
    store.begin()
    store.enqueue([message("new", key="a")])
    store.rollback()
    put(store, message("newer", key="a"))
    taken = take(store, tasks=frozenset({"new", "newer"}))
    assert [one.task for one in taken] == ["newer"]


def test_the_cost_of_taking_is_the_same_however_many_wait(store: Store) -> None:
    steps: list[int] = []

    def count_steps() -> int:
        steps[-1] += 1
        return 0

    for waiting in (100, 20_000):
        put(store, *(message() for _ in range(waiting)))
        put(store, message(priority=5))
        steps.append(0)
        store.db.set_progress_handler(count_steps, 10)
        take(store, 50)
        store.db.set_progress_handler(None, 10)
    assert steps[1] < steps[0] * 1.2


def test_counting(store: Store) -> None:
    put(store, message(), message(), message("b"), message(delay=5.0))
    settle(store, take(store, 1)[0], "failed", b"{}")
    take(store, 1, frozenset({"b"}))
    counted = stats(store)
    assert {name: counted[name] for name in ("waiting", "scheduled", "running", "failed", "ended")} == {
        "waiting": 1,
        "scheduled": 1,
        "running": 1,
        "failed": 1,
        "ended": 0,
    }
    assert counted["tasks"] == {"add": {"waiting": 1, "failed": 1}, "b": {"running": 1}}


def test_another_writer_waits(store: Store, path: Path) -> None:
    other = sqlite3.connect(path, timeout=0)
    store.begin()
    with pytest.raises(sqlite3.OperationalError):
        other.execute("BEGIN IMMEDIATE")
    store.rollback()
    other.close()


@pytest.mark.slow
def test_a_file_that_is_half_empty_shrinks(store: Store, clock: FakeClock) -> None:
    put(store, *(message(args="[" + "1" * 4000 + "]") for _ in range(10_000)))
    taken = take(store, 10_000)
    transact(store, lambda: store.settle([(delivery, Ending("done", b"3")) for delivery in taken]))
    (before,) = store.db.execute("PRAGMA page_count").fetchone()
    clock.pass_by(101)
    while store.cleaner.has_work():
        transact(store, store.cleaner.step)
    assert store.cleaner.can_shrink()
    for _ in range(10):
        store.cleaner.shrink()
    (after,) = store.db.execute("PRAGMA page_count").fetchone()
    assert after <= before - 5000
