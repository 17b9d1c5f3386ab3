"""What is not enqueued, for there is one already."""

from pathlib import Path

import pytest

from greentask.queue import looking
from greentask.queue.ids import id_text
from greentask.queue.interface import Delivery, Ending, Message, Want
from greentask.queue.store import Store
from support.queues import FakeClock, message, open_store, transact

ADD = frozenset({"add"})


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Store:
    return open_store(path, clock.as_clock())


def put(store: Store, *messages: Message) -> list[str]:
    return [id_text(id) for id in transact(store, lambda: store.enqueue(messages))]


def take(store: Store) -> list[Delivery]:
    return transact(store, lambda: store.take([Want(ADD, 100)], 77))


def settle(store: Store, delivery: Delivery, how: str = "done") -> None:
    assert transact(store, lambda: store.settle([(delivery, Ending(how, b"{}"))])) == [True]  # type: ignore[arg-type]


def clean(store: Store) -> None:
    while store.cleaner.has_work():
        transact(store, store.cleaner.step)


def rows(store: Store, table: str) -> int:
    count: int = store.db.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return count


# ---- Idempotency keys


def test_a_key_holds_beyond_its_task_for_as_long_as_it_says(store: Store, clock: FakeClock) -> None:
    (first,) = put(store, message(key="order 5", key_ttl=50.0))
    settle(store, take(store)[0])
    clock.pass_by(101)
    clean(store)
    assert looking.find(store, first) is None
    assert put(store, message(key="order 5")) == [first]
    clock.pass_by(49)
    clean(store)
    assert put(store, message(key="order 5")) == [first]
    clock.pass_by(2)
    clean(store)
    assert put(store, message(key="order 5")) != [first]
    assert rows(store, "lapse") == 0


def test_the_queue_says_how_long_where_the_message_does_not(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock(), key_ttl=50.0)
    first, other = put(store, message(key="a"), message(key="b", key_ttl=0.0))
    for delivery in take(store):
        settle(store, delivery)
    clock.pass_by(101)
    clean(store)
    again, fresh = put(store, message(key="a"), message(key="b"))
    assert (again == first, fresh == other) == (True, False)


def test_nothing_is_left_of_keys_in_the_end(store: Store, clock: FakeClock) -> None:
    put(
        store, *(message(key=f"key {number}", key_ttl=float(number % 3), singleton=f"{number}") for number in range(50))
    )
    for delivery in take(store):
        settle(store, delivery)
    for _ in range(2):
        clock.pass_by(101)
        clean(store)
    assert [rows(store, table) for table in ("task", "key", "lapse", "single", "forget")] == [0] * 5


# ---- Singletons


def test_of_a_singleton_one_waits_or_runs(store: Store) -> None:
    first, again, other = put(store, *(message(singleton=key) for key in ("a", "a", "b")))
    assert first == again != other
    assert put(store, message("sub", singleton="a")) != [first], "that of another task"
    delivery, _ = take(store)
    assert put(store, message(singleton="a")) == [first], "it runs"
    settle(store, delivery, "retry")
    assert put(store, message(singleton="a")) == [first], "it is to be tried again"
    (delivery,) = take(store)
    settle(store, delivery)
    (next_one,) = put(store, message(singleton="a"))
    assert next_one != first
    assert put(store, message(singleton="a")) == [next_one]


def test_a_singleton_that_failed_or_was_revoked_leaves_room(store: Store) -> None:
    (first,) = put(store, message(singleton="a"))
    settle(store, take(store)[0], "failed")
    (second,) = put(store, message(singleton="a"))
    assert second != first
    assert not transact(store, lambda: looking.retry(store, first)), "another one waits in its place"
    assert transact(store, lambda: looking.revoke(store, second))
    assert transact(store, lambda: looking.retry(store, first))
    assert put(store, message(singleton="a")) == [first]


def test_a_key_and_a_singleton_go_together(store: Store) -> None:
    (first,) = put(store, message(singleton="a", key="one"))
    assert put(store, message(singleton="a", key="two")) == [first]
    assert rows(store, "key") == 1, "what was not enqueued has no key"
    settle(store, take(store)[0])
    assert put(store, message(singleton="a", key="one")) == [first], "it is known"
    assert put(store, message(singleton="a", key="two")) != [first]


def test_a_rollback_gives_the_keys_back(store: Store) -> None:
    store.begin()
    store.enqueue([message(singleton="a", key="one")])
    store.rollback()
    put(store, message(singleton="a", key="two"), message(key="one"))
    assert rows(store, "task") == 2
