"""What does not begin within its `ttl` is ended by the clock, whether its turn comes or not."""

import itertools
from concurrent.futures import Future
from pathlib import Path

import pytest

from greentask.queue.expiring import expire, has_expired
from greentask.queue.ids import id_text
from greentask.queue.interface import Delivery, Ending, Found, Message, Step, Want
from greentask.queue.looking import find
from greentask.queue.sqlite import SQLiteQueue
from greentask.queue.store import Store
from support.queues import FakeClock, message, open_store, transact
from support.waiting import wait_until


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Store:
    return open_store(path, clock.as_clock())


def put(store: Store, *messages: Message) -> list[str]:
    return [id_text(id) for id in transact(store, lambda: store.enqueue(messages))]


def take(store: Store, slots: int = 1) -> list[Delivery]:
    return transact(store, lambda: store.take([Want(frozenset({"add"}), slots)], 7))


def settle(store: Store, delivery: Delivery, how: str, delay: float = 0.0) -> None:
    ending = Ending(how, b"{}", delay)  # type: ignore[arg-type]
    assert transact(store, lambda: store.settle([(delivery, ending)])) == [True]


def states(store: Store, ids: list[str]) -> list[str]:
    return [found.state for id in ids if (found := find(store, id)) is not None]


def test_what_waits_and_what_is_scheduled_is_found_and_nothing_else(store: Store, clock: FakeClock) -> None:
    ids = put(store, message(), message(ttl=10.0), message(ttl=10.0, delay=60.0), message(ttl=20.0), message("b"))
    clock.pass_by(9)
    assert not has_expired(store)
    clock.pass_by(2)
    assert has_expired(store)
    assert not transact(store, lambda: expire(store)), "there are no more"
    assert states(store, ids) == ["waiting", "expired", "expired", "waiting", "waiting"]
    assert not has_expired(store)
    clock.pass_by(60)
    transact(store, store.ripen)
    assert [one.id for one in take(store, 10)] == [ids[0]], "none of those that are over runs"


def test_what_has_begun_is_left_alone(store: Store, clock: FakeClock) -> None:
    ids = put(store, *(message(ttl=10.0) for _ in range(3)))
    runs, failed, given_back = take(store, 3)
    settle(store, failed, "retry", delay=100.0)
    clock.pass_by(11)
    assert has_expired(store)
    transact(store, lambda: expire(store))
    assert states(store, ids) == ["running", "scheduled", "running"]
    assert not has_expired(store), "nobody looks at these again and again"
    settle(store, given_back, "released")
    assert has_expired(store), "it had not begun"
    transact(store, lambda: expire(store))
    assert states(store, ids) == ["running", "scheduled", "expired"]
    settle(store, runs, "done")
    clock.pass_by(100)
    transact(store, store.ripen)
    assert [one.id for one in take(store)] == [failed.id]


def test_who_waits_for_one_that_is_over_fails_with_it(store: Store, clock: FakeClock) -> None:
    steps = [Step(message(ttl=10.0), takes=False), Step(message(args="[null]"))]
    first, second = transact(store, lambda: store.composer.compose(steps))
    clock.pass_by(11)
    transact(store, lambda: expire(store))
    assert states(store, [first, second]) == ["expired", "failed"]


def test_many_are_ended_in_steps(store: Store, clock: FakeClock) -> None:
    put(store, *(message(ttl=10.0) for _ in range(500)), message())
    clock.pass_by(11)
    steps = list(itertools.takewhile(bool, (transact(store, lambda: expire(store)) for _ in range(9))))
    assert len(steps) == 2, "of 200 each, and then the rest"
    assert not has_expired(store)
    assert len(take(store, 10)) == 1


def test_nothing_is_kept_of_those_that_have_ended(store: Store, clock: FakeClock) -> None:
    put(store, message(), message(ttl=10.0), message(ttl=10.0))
    for delivery in take(store, 2):
        settle(store, delivery, "done")
    clock.pass_by(11)
    transact(store, lambda: expire(store))
    assert store.db.execute("SELECT count(*) FROM expiry").fetchone() == (0,)


def test_of_those_that_are_forgotten_nothing_is_kept_however_long_their_ttl_is(store: Store, clock: FakeClock) -> None:
    put(store, message(ttl=1e6), message(ttl=1e6), message())
    for delivery in take(store, 3):
        settle(store, delivery, "done")
    put(store, message(ttl=1e6))
    clock.pass_by(200)
    assert transact(store, store.cleaner.step) == 3
    assert store.db.execute("SELECT count(*) FROM expiry").fetchone() == (1,), "of the one that waits"


def test_who_waits_hears_of_it_in_time_at_any_server(path: Path) -> None:
    """Nobody takes anything here, as where all slots are taken, or the queue is paused."""
    one, other = SQLiteQueue(path), SQLiteQueue(path)
    one.open()
    other.open()
    try:
        ids = one.enqueue([message(ttl=0.3), message(ttl=0.3, delay=60.0), message()]).result(10)
        heard: list[tuple[str, Found]] = []
        for name, queue in (("one", one), ("other", other)):
            for id in ids:
                queue.follow(id, lambda found, name=name: heard.append((name, found)))  # type: ignore[misc]
        wait_until(lambda: len(heard) == 4, 5.0, "both servers hear of both")
        assert {found.state for _, found in heard} == {"expired"}
        waiting: Future[Found | None] = one.find(ids[2])
        found = waiting.result(10)
        assert found is not None
        assert found.state == "waiting"
    finally:
        one.close()
        other.close()
