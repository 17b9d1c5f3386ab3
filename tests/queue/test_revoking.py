"""Tasks that are revoked while they run, step by step; on servers: test_service."""

from pathlib import Path
from typing import Any

import pytest

from greentask.queue import looking, managing
from greentask.queue.beside import Beside
from greentask.queue.byhand import QueueFile
from greentask.queue.holders import Holders
from greentask.queue.interface import Delivery, Ending, Found, Step, Want
from greentask.queue.recover import recover
from greentask.queue.sqlite import SQLiteQueue
from greentask.queue.store import Store
from greentask.queue.transfer import export_tasks
from support.queues import FakeClock, Taker, message, open_store, transact
from support.waiting import wait_until

HOLDER = 7
WANTS = [Want(frozenset({"add"}), 10)]


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Store:
    return open_store(path, clock.as_clock())


def running(store: Store, **options: Any) -> Delivery:
    """A task that runs."""
    transact(store, lambda: store.enqueue([message(**options)]))
    (delivery,) = transact(store, lambda: store.take(WANTS, HOLDER))
    return delivery


def found(store: Store, delivery: Delivery) -> Found:
    known = looking.find(store, delivery.id)
    assert known is not None
    return known


def marks(store: Store) -> int:
    return int(store.db.execute("SELECT count(*) FROM revoked").fetchone()[0])


def test_one_that_runs_is_marked_for_its_holder_and_only_if_that_is_wanted(store: Store) -> None:
    delivery = running(store)
    transact(store, lambda: store.db.execute("INSERT INTO holder VALUES (?, 0, 'pid 1')", (HOLDER,)))
    assert not transact(store, lambda: looking.revoke(store, delivery.id))
    assert "is_revoked" not in (managing.show(store, delivery.id) or {})
    assert store.revoking.of(HOLDER) == []
    for _ in range(2):
        assert transact(store, lambda: looking.revoke(store, delivery.id, running=True))
    assert store.revoking.of(HOLDER) == [delivery.handle[0]]
    assert store.revoking.of(HOLDER + 1) == []
    assert found(store, delivery).state == "running"
    shown = managing.show(store, delivery.id)
    assert shown is not None
    assert (shown["state"], shown["server"], shown["is_revoked"]) == ("running", "pid 1", True)


@pytest.mark.parametrize("how", ["failed", "retry", "lost", "released"])
def test_however_its_attempt_ends_it_was_the_last_one(store: Store, how: Any) -> None:
    delivery = running(store)
    transact(store, lambda: looking.revoke(store, delivery.id, running=True))
    error = b'{"type":"ValueError","message":"half done"}'
    assert transact(store, lambda: store.settle([(delivery, Ending(how, error, 0.5))])) == [True]
    known = found(store, delivery)
    assert (known.state, known.attempts, marks(store)) == ("revoked", 1, 0)
    assert transact(store, lambda: store.take(WANTS, HOLDER)) == []
    errors = (managing.show(store, delivery.id) or {})["errors"]
    assert [one["message"] for one in errors] == ([] if how == "released" else ["half done"])
    assert looking.dead(store, 10) == []


def test_a_result_that_is_there_before_counts(store: Store) -> None:
    delivery, other = running(store), running(store)
    transact(store, lambda: looking.revoke(store, delivery.id, running=True))
    endings = [(delivery, Ending("done", b"3")), (other, Ending("retry", b'{"type":"E","message":""}', 60.0))]
    assert transact(store, lambda: store.settle(endings)) == [True, True]
    assert (found(store, delivery).state, marks(store)) == ("done", 0)
    assert found(store, other).state == "scheduled", "it is another one's affair"


def test_what_a_dead_server_had_is_not_handed_out_again(store: Store, path: Path, clock: FakeClock) -> None:
    dead, beside = Beside(str(path)), Beside(str(path))
    try:
        lost = Holders(store, dead, 5.0, lambda: clock.steady)
        me = Holders(store, beside, 5.0, lambda: clock.steady)
        transact(store, lambda: store.enqueue([message(), message()]))
        one, other = transact(store, lambda: store.take(WANTS, lost.me()))
        transact(store, lambda: (me.me(), looking.revoke(store, one.id, running=True)))
        assert (lost.to_revoke(), me.to_revoke()) == ([one.handle[0]], [])
        lost._let_go()
        transact(store, lambda: [me.take_back(*overdue) for overdue in me.overdue()])
    finally:
        dead.close()
        beside.close()
    assert (found(store, one).state, found(store, one).attempts) == ("revoked", 1)
    assert (found(store, other).state, marks(store)) == ("waiting", 0)


def test_what_follows_it_fails_and_a_group_is_revoked_as_a_whole(store: Store) -> None:
    step = Step(message("then", "[null]"))
    ids, group, placed = transact(
        store, lambda: store.composer.enqueue_group([message()] * 3, [step], None, is_open=False)
    )
    one, other = transact(store, lambda: store.take([Want(frozenset({"add"}), 2)], HOLDER))
    assert transact(store, lambda: looking.revoke(store, group, running=True))
    assert [found(store, one).state, found(store, other).state] == ["running", "running"]
    assert looking.find(store, ids[2]).state == "revoked"  # type: ignore[union-attr]
    transact(store, lambda: store.settle([(one, Ending("released")), (other, Ending("done", b"1"))]))
    told = looking.find(store, group)
    assert told is not None
    assert (told.state, told.result) == ("done", b'{"total":3,"done":1,"failed":2}')
    assert looking.find(store, placed[0]).state == "failed"  # type: ignore[union-attr]


def test_it_does_not_run_where_it_is_moved_to_nor_in_a_file_that_is_made_of_a_damaged_one(
    store: Store, path: Path
) -> None:
    delivery, other = running(store), running(store)
    transact(store, lambda: looking.revoke(store, delivery.id, running=True))
    lines = list(export_tasks(store, managing.Filter()))
    assert b'"state":"revoked"' in lines[1]
    assert b'"call"' not in lines[1]
    assert b'"state":"running"' in lines[2]
    store.db.close()
    recover(str(path), f"{path}.new")
    with QueueFile(f"{path}.new") as queue:
        states = {task["task"]: task["state"] for task in queue.look("list")["tasks"]}
    assert states == {delivery.id: "revoked", other.id: "waiting"}


def test_a_filter_may_have_those_that_run_ended(store: Store) -> None:
    delivery = running(store)
    transact(store, lambda: store.enqueue([message()]))
    assert transact(store, lambda: managing.change_some(store, "revoke_running", managing.Filter(), None)) == (2, None)
    assert store.revoking.of(HOLDER) == [delivery.handle[0]]


def test_who_waits_is_told_that_it_was_revoked_and_its_runner_until_it_ends(queue: SQLiteQueue) -> None:
    (id,) = queue.enqueue([message()]).result()
    told: list[Found] = []
    asked: list[str] = []
    taker = Taker(queue)
    queue.consume(taker.got.extend, lambda: None, {}, asked.extend)
    taker.want(1)
    (delivery,) = taker.wait_for(1)
    queue.follow(id, told.append)
    assert queue.revoke(id, running=True).result()
    wait_until(lambda: asked == [id], 0.9, "he is told at once")
    wait_until(lambda: asked[:2] == [id, id], 5.0, "and again, for he may not have had it yet")
    taker.settle(delivery, "failed", b'{"type":"ValueError","message":"half done"}')
    wait_until(lambda: told)
    assert [(one.state, one.attempts) for one in told] == [("revoked", 1)]
