"""What limits hold for all servers of a file: rates, and how many run at once."""

import random
from pathlib import Path

import pytest

from greentask.queue.interface import Delivery, Ending, Limit, Want
from greentask.queue.sqlite import SQLiteQueue
from greentask.queue.store import Store
from greentask.tasks.rates import Rate
from support.queues import FakeClock, Taker, message, open_store, transact
from support.waiting import wait_until

ADD = frozenset({"add"})
WITHIN = 10.0


def open_limited(path: Path, clock: FakeClock, limit: Limit) -> Store:
    store = open_store(path, clock.as_clock())
    store.allowances.limits = {"add": limit}
    return store


def take(store: Store, slots: int = 100, holder: int = 77) -> list[Delivery]:
    return transact(store, lambda: store.take([Want(ADD, slots)], holder))


def put(store: Store, count: int, **options: object) -> None:
    transact(store, lambda: store.enqueue([message(**options) for _ in range(count)]))


def settle(store: Store, delivery: Delivery, how: str = "done") -> None:
    assert transact(store, lambda: store.settle([(delivery, Ending(how, b"3"))])) == [True]  # type: ignore[arg-type]


def test_in_no_minute_do_more_begin_whichever_servers_ask(path: Path, clock: FakeClock) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    stores = [open_limited(path, clock, Limit(Rate(10, 60.0))) for _ in range(3)]
    put(stores[0], 200)
    began: list[float] = []
    for _ in range(300):
        clock.pass_by(chance.random() * 3)
        clock.set_by(chance.uniform(-3600, 3600))
        began += [clock.steady] * len(take(chance.choice(stores), chance.randint(1, 20)))
    for at in began:
        assert sum(at - 60 < one <= at for one in began) <= 10
    minutes = (began[-1] - began[0]) / 60
    assert len(began) >= 10 * minutes * 0.9, "and not far fewer"


def test_what_is_over_its_rate_does_not_hold_up_others(path: Path, clock: FakeClock) -> None:
    store = open_limited(path, clock, Limit(Rate(2, 60.0)))
    put(store, 5, priority=10)
    transact(store, lambda: store.enqueue([message("other") for _ in range(5)]))
    both = [Want(frozenset({"add", "other"}), 4)]
    taken = transact(store, lambda: store.take(both, 77))
    assert sorted(one.task for one in taken) == ["add", "add", "other", "other"]
    assert not store.has_ready([Want(ADD, 1)]), "nobody is to look again for nothing"
    assert store.next_moment() == pytest.approx(60, abs=0.7)
    clock.pass_by(61)
    assert store.has_ready([Want(ADD, 1)])
    assert len(take(store)) == 2


def test_what_was_given_back_has_not_used_its_rate(path: Path, clock: FakeClock) -> None:
    store = open_limited(path, clock, Limit(Rate(1, 3600.0)))
    put(store, 2)
    (delivery,) = take(store)
    clock.pass_by(10)
    settle(store, delivery, "released")
    (delivery,) = take(store)
    settle(store, delivery)
    assert take(store) == []


def test_so_many_run_at_once_whichever_servers_ask(path: Path, clock: FakeClock) -> None:
    one, other = (open_limited(path, clock, Limit(max_running=3)) for _ in range(2))
    put(one, 4)
    put(one, 4, priority=5)
    first = [*take(one, 2, holder=1), *take(other, 2, holder=2)]
    assert len(first) == 3
    assert not other.has_ready([Want(ADD, 1)])
    assert take(one) == []
    settle(one, first[0])
    assert len(take(other)) == 1


def test_a_server_that_died_runs_nothing(path: Path) -> None:
    limits = {"add": Limit(max_running=1)}
    first, second = SQLiteQueue(path), SQLiteQueue(path)
    first.open()
    second.open()
    taker, other = Taker(first, limits=limits), Taker(second, limits=limits)
    try:
        taker.want(5)
        first.enqueue([message(), message()]).result(WITHIN)
        taker.wait_for(1)
        other.want(5)
        second.find("x").result(WITHIN)
        assert not other.got
    finally:
        first.close()
    try:
        other.wait_for(1)
        other.settle(other.got[0])
        other.wait_for(2)
    finally:
        second.close()


def test_the_thread_sleeps_until_a_rate_allows_the_next(path: Path) -> None:
    queue = SQLiteQueue(path)
    queue.open()
    try:
        taker = Taker(queue, limits={"add": Limit(Rate(2, 0.5))})
        taker.want(10)
        queue.enqueue([message() for _ in range(4)]).result(WITHIN)
        taker.wait_for(2)
        commits = queue.counters()["commits"]
        taker.wait_for(4)
        assert queue.counters()["commits"] - commits < 10
    finally:
        queue.close()


def test_the_next_one_waits_for_another_servers_end(path: Path) -> None:
    queues = [SQLiteQueue(path) for _ in range(2)]
    takers = []
    for queue in queues:
        queue.open()
        takers.append(Taker(queue, limits={"add": Limit(max_running=1)}))
    try:
        queues[0].enqueue([message() for _ in range(6)]).result(WITHIN)
        for taker in takers:
            taker.want(10)
        settled: set[str] = set()
        for _ in range(6):
            wait_until(lambda: sum(len(taker.got) for taker in takers) > len(settled))
            ((taker, delivery),) = [(t, one) for t in takers for one in t.got if one.id not in settled]
            settled.add(delivery.id)
            taker.settle(delivery)
    finally:
        for queue in queues:
            queue.close()
