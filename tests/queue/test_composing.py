"""Steps and groups: what waits for what, in a file, step by step."""

import json
import random
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from greentask.errors import InvalidArguments, QueueError
from greentask.queue import looking, managing
from greentask.queue.ids import id_text
from greentask.queue.interface import Chain, Delivery, Ending, Fan, Found, Message, Placed, Step, Want
from greentask.queue.store import Store
from support.queues import FakeClock, message, open_store, transact

pytestmark = pytest.mark.once

NAMES = frozenset("abcdefgh")
ERROR = b'{"type":"ValueError","message":"no stock","traceback":"..."}'


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Store:
    return open_store(path, clock.as_clock())


def step(name: str, takes: bool | str = True, rest: str = "", *, errors: bool = False, **options: object) -> Step:
    if takes is False:
        args = f"[{rest}]"
    elif takes is True:
        args = f"[null{',' if rest else ''}{rest}]"
    else:
        args = f'{{"{takes}":null{"," if rest else ""}{rest}}}'
    return Step(message(name, args, **options), takes, errors)


def first(name: str, args: str = "[]", **options: object) -> Step:
    return Step(message(name, args, **options), False)


def compose(store: Store, chain: Chain, after: str | None = None) -> Placed:
    return transact(store, lambda: store.composer.compose(chain, after))


def group(store: Store, *messages: Message, then: Chain = (), **more: Any) -> tuple[list[str], str, Placed]:
    given: dict[str, Any] = {"group": None, "is_open": False, **more}
    return transact(
        store, lambda: store.composer.enqueue_group(messages, then, given["group"], is_open=given["is_open"])
    )


def take(store: Store, slots: int = 100) -> list[Delivery]:
    def work() -> list[Delivery]:
        store.ripen()
        return store.take([Want(NAMES, slots)], 77)

    return transact(store, work)


def settle(store: Store, delivery: Delivery, how: str = "done", body: bytes = b"3") -> None:
    if how == "failed":
        body = ERROR
    assert transact(store, lambda: store.settle([(delivery, Ending(how, body))])) == [True]  # type: ignore[arg-type]


def run_one(store: Store, how: str = "done", body: bytes = b"3") -> Any:
    """The arguments of the only one that is ready, which ends like that."""
    (delivery,) = take(store)
    settle(store, delivery, how, body)
    return json.loads(delivery.payload)["args"]


def find(store: Store, id: str) -> Found:
    found = looking.find(store, id)
    assert found is not None
    return found


def forget(store: Store, clock: FakeClock) -> None:
    """Let so much time go by that all is forgotten that may be."""
    clock.pass_by(1000)
    while transact(store, store.cleaner.has_work):
        transact(store, store.cleaner.step)


# ---- Chains


def test_each_step_takes_what_came_of_the_one_before(store: Store) -> None:
    ids = compose(store, [first("a", "[7]"), step("b", rest="1,2"), step("c", "text", '"x":5'), step("d", takes=False)])
    assert [find(store, id).state for id in ids] == ["waiting", "blocked", "blocked", "blocked"]
    assert run_one(store, body=b'{"r":[1]}') == [7]
    assert run_one(store, body=b'"two"') == [{"r": [1]}, 1, 2]
    assert run_one(store) == {"text": "two", "x": 5}
    assert run_one(store) == []
    assert [find(store, id).state for id in ids] == ["done"] * 4


def test_who_waits_for_one_that_fails_fails_with_its_error(store: Store) -> None:
    ids = compose(store, [first("a"), step("b"), step("c")])
    run_one(store, "failed")
    assert [find(store, id).state for id in ids] == ["failed"] * 3
    assert json.loads(find(store, ids[2]).error or b"")["message"] == "no stock"
    assert take(store) == []


@pytest.mark.parametrize("how", ["revoked", "expired"])
def test_one_that_never_ran_has_not_ended_well(store: Store, clock: FakeClock, how: str) -> None:
    head, waiter = compose(store, [first("a", ttl=1.0), step("b")])
    if how == "revoked":
        assert transact(store, lambda: looking.revoke(store, head))
    else:
        clock.pass_by(2)
        assert take(store) == []
    assert find(store, head).state == how
    error = json.loads(find(store, waiter).error or b"")
    assert error["type"] == {"revoked": "Cancelled", "expired": "DeadlineExceeded"}[how]


def test_a_step_that_takes_errors_runs_in_any_case(store: Store) -> None:
    compose(store, [first("a"), step("b", errors=True)])
    run_one(store, "failed")
    assert run_one(store) == [{"error": {"type": "ValueError", "message": "no stock"}}]
    compose(store, [first("a"), step("b", errors=True)])
    run_one(store)
    assert run_one(store) == [{"result": 3}]


def test_those_behind_a_dead_letter_go_on_when_it_is_tried_again(store: Store) -> None:
    ids = compose(store, [first("a"), step("b"), step("c")])
    run_one(store, "failed")
    assert not transact(store, lambda: looking.retry(store, ids[1])), "it has no arguments to run with"
    assert transact(store, lambda: looking.retry(store, ids[0]))
    assert [find(store, id).state for id in ids] == ["waiting", "blocked", "blocked"]
    assert [run_one(store, body=b"8"), run_one(store), run_one(store)] == [[], [8], [3]]
    assert [find(store, id).state for id in ids] == ["done"] * 3


def test_a_step_may_come_late(store: Store) -> None:
    (head,) = compose(store, [first("a")])
    run_one(store, body=b"5")
    compose(store, [step("b")], after=head)
    assert run_one(store, "failed") == [5]
    (failed,) = compose(store, [first("a")])
    run_one(store, "failed")
    (waiter,) = compose(store, [step("b")], after=failed)
    assert find(store, waiter).state == "failed"
    with pytest.raises(QueueError, match="knows no task '0000000000000'"):
        compose(store, [step("b")], after="0" * 13)


def test_what_is_revoked_while_it_waits_does_not_run(store: Store) -> None:
    ids = compose(store, [first("a"), step("b"), step("c")])
    assert transact(store, lambda: looking.revoke(store, ids[1]))
    assert [find(store, id).state for id in ids] == ["waiting", "revoked", "failed"]
    run_one(store)
    assert take(store) == []


def test_delay_and_ttl_of_a_step_begin_when_it_may_run(store: Store, clock: FakeClock) -> None:
    _, late, brief = compose(store, [first("a"), step("b", delay=10.0, ttl=20.0), step("c", ttl=5.0)])
    clock.pass_by(1000)
    run_one(store)
    assert take(store) == []
    clock.pass_by(11)
    run_one(store)
    clock.pass_by(6)
    assert take(store) == []
    assert [find(store, late).state, find(store, brief).state] == ["done", "expired"]


def test_a_key_keeps_all_of_a_chain_from_being_enqueued_twice(store: Store) -> None:
    chain = [first("a", key="k"), step("b")]
    ids = compose(store, chain)
    assert compose(store, chain) == ids
    run_one(store)
    assert compose(store, chain) == ids
    run_one(store)
    assert take(store) == []


def test_a_key_that_outlasts_its_chain_keeps_it_from_being_enqueued_again(store: Store, clock: FakeClock) -> None:
    chain = [first("a", key="k", key_ttl=1000.0), step("b")]
    one, other = compose(store, chain)
    run_one(store)
    run_one(store)
    clock.pass_by(200)
    while store.cleaner.has_work():
        transact(store, store.cleaner.step)
    assert looking.find(store, other) is None
    assert compose(store, chain) == [one]
    assert store.db.execute("SELECT count(*) FROM task").fetchone() == (0,), "nothing waits for what is forgotten"


def test_a_long_chain_that_fails_is_no_deeper_than_a_short_one(store: Store) -> None:
    ids = compose(store, [first("a"), *(step("b") for _ in range(3000))])
    run_one(store, "failed")
    assert find(store, ids[-1]).state == "failed"
    assert transact(store, lambda: looking.retry(store, ids[0]))
    assert find(store, ids[-1]).state == "blocked"


# ---- Groups


def test_a_group_tells_how_far_it_is_and_ends_with_its_last(store: Store) -> None:
    ids, id, _ = group(store, *(message("a", f"[{number}]") for number in range(4)))
    one, two, three, four = take(store)
    settle(store, three)
    settle(store, one, "failed")
    found = find(store, id)
    assert (found.state, json.loads(found.progress or b"")) == ("running", {"total": 4, "done": 1, "failed": 1})
    settle(store, four)
    settle(store, two)
    found = find(store, id)
    assert (found.state, json.loads(found.result or b"")) == ("done", {"total": 4, "done": 3, "failed": 1})
    assert [find(store, one).state for one in ids] == ["failed", "done", "done", "done"]


def test_what_follows_a_group_takes_all_results_in_their_order(store: Store) -> None:
    _, _, (body,) = group(store, *(message("a") for _ in range(3)), then=[step("b", rest='"x"')])
    one, two, three = take(store)
    for number, delivery in enumerate((two, three, one)):
        assert find(store, body).state == "blocked"
        settle(store, delivery, body=b"%d" % number)
    assert run_one(store) == [[2, 0, 1], "x"]


def test_what_follows_a_group_that_failed(store: Store) -> None:
    _, id, (strict,) = group(store, message("a"), message("a"), then=[step("b")])
    (lenient,) = compose(store, [step("c", errors=True)], after=id)
    (count,) = compose(store, [step("d", takes=False, errors=True)], after=id)
    one, two = take(store)
    settle(store, one, "failed")
    assert {find(store, body).state for body in (strict, lenient, count)} == {"blocked"}, "the last one runs yet"
    settle(store, two)
    assert find(store, strict).state == "failed"
    taken = {delivery.id: json.loads(delivery.payload)["args"] for delivery in take(store)}
    error = {"error": {"type": "ValueError", "message": "no stock"}}
    assert taken == {lenient: [[error, {"result": 3}]], count: []}


def test_a_group_goes_on_when_its_dead_letter_is_tried_again(store: Store) -> None:
    ids, id, (body,) = group(store, message("a"), message("a"), then=[step("b")])
    one, two = take(store)
    settle(store, one, "failed")
    settle(store, two)
    assert find(store, id).state == "done"
    assert transact(store, lambda: looking.retry(store, ids[0]))
    assert [find(store, one).state for one in (id, body)] == ["running", "blocked"]
    run_one(store, body=b"9")
    assert run_one(store) == [[9, 3]]
    assert json.loads(find(store, id).result or b"") == {"total": 2, "done": 2, "failed": 0}


def test_results_are_kept_until_the_group_has_ended(store: Store, clock: FakeClock) -> None:
    ids, _, _ = group(store, message("a"), message("a"), then=[step("b")])
    one, two = take(store)
    settle(store, one, body=b"1")
    clock.pass_by(1000)
    transact(store, store.cleaner.step)
    assert not transact(store, lambda: looking.purge(store, ids[0]))
    settle(store, two, body=b"2")
    assert run_one(store) == [[1, 2]]
    clock.pass_by(1000)
    while transact(store, store.cleaner.step):
        pass
    for table in ("task", "forget", "blocked", "link", "member"):
        assert store.db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_results_that_are_forgotten_can_not_be_taken(store: Store) -> None:
    ids, id, _ = group(store, message("a"), message("a"), message("a"))
    for delivery in take(store):
        settle(store, delivery)
    assert transact(store, lambda: looking.purge(store, ids[1]))
    (late,) = compose(store, [step("b")], after=id)
    assert b"not known any more" in (find(store, late).error or b"")
    compose(store, [step("c", takes=False)], after=id)
    assert run_one(store) == []


def test_a_task_that_comes_twice_in_a_group_is_one_member(store: Store) -> None:
    twice = [message("a", key="k"), message("a", key="k"), message("b", singleton="s"), message("b", singleton="s")]
    ids, id, _ = group(store, *twice, message("c"))
    assert (ids[0], ids[2], len(set(ids))) == (ids[1], ids[3], 3)
    for delivery in take(store):
        settle(store, delivery)
    assert json.loads(find(store, id).result or b"") == {"total": 3, "done": 3, "failed": 0}


def test_a_fan_takes_no_task_away_from_another_group(store: Store) -> None:
    ids, id, _ = group(store, message("a"), message("b", singleton="s"), message("c"))
    fan, _ = compose(store, [Fan([[first("b", singleton="s")], [first("b", singleton="s")]]), step("d")])
    assert not {one for (one,) in fan["tasks"]} & set(ids), "a singleton doesn't hold for a step"
    for delivery in take(store):
        settle(store, delivery)
    assert [find(store, one).state for one in (id, fan["group"])] == ["done", "done"]
    assert run_one(store) == [[3, 3]]


@pytest.mark.parametrize("turned", [False, True])
def test_what_comes_of_inner_groups_is_kept_until_the_outer_one_has_ended(
    store: Store, clock: FakeClock, turned: bool
) -> None:
    chains = [[first("a")], [Fan([[first("b")], [first("c")]])]]
    _, last = compose(store, [Fan(chains[::-1] if turned else chains), step("d")])
    a, b, c = sorted(take(store), key=lambda one: one.task)
    settle(store, b, body=b"1")
    settle(store, c, body=b"2")
    forget(store, clock)
    settle(store, a, body=b"0")
    assert run_one(store) == [[[1, 2], 0] if turned else [0, [1, 2]]]
    assert find(store, last).state == "done"
    forget(store, clock)
    assert store.db.execute("SELECT count(*) FROM task").fetchone() == (0,)


def test_results_are_kept_for_who_comes_late(store: Store, clock: FakeClock) -> None:
    _, id, _ = group(store, message("a"), message("b"))
    a, b = take(store)
    settle(store, a, body=b"1")
    compose(store, [step("c")], after=id)
    forget(store, clock)
    settle(store, b, body=b"2")
    assert run_one(store) == [[1, 2]]


def test_a_dead_letter_of_a_group_is_tried_again_however_late(store: Store, clock: FakeClock) -> None:
    ids, id, (body,) = group(store, message("a"), message("b"), then=[step("c")])
    a, b = take(store)
    settle(store, a, "failed")
    settle(store, b, body=b"2")
    for _ in range(3):
        forget(store, clock)
    assert transact(store, lambda: looking.retry(store, ids[0]))
    assert [find(store, one).state for one in (id, body)] == ["running", "blocked"]
    run_one(store, body=b"1")
    assert run_one(store) == [[1, 2]]
    forget(store, clock)
    assert store.db.execute("SELECT count(*) FROM task").fetchone() == (0,)


def test_a_group_that_was_open_again_is_known_as_long_as_others(store: Store, clock: FakeClock) -> None:
    ids, id, _ = group(store, message("a"))
    run_one(store, "failed")
    clock.pass_by(95)  # of 100
    assert transact(store, lambda: looking.retry(store, ids[0]))
    (delivery,) = take(store)
    clock.pass_by(10)
    transact(store, store.cleaner.step)
    assert find(store, id).state == "running"
    settle(store, delivery)
    clock.pass_by(95)
    transact(store, store.cleaner.step)
    assert find(store, id).state == "done"
    forget(store, clock)
    assert looking.find(store, id) is None


@pytest.mark.slow
def test_nobody_looks_through_all_that_have_ended_to_try_one_again(store: Store) -> None:
    steps: list[int] = []

    def count_steps() -> int:
        steps[-1] += 1
        return 0

    for ended in (100, 20_000):
        put = [message("b") for _ in range(ended)]
        transact(store, lambda put=put: [looking.revoke(store, id_text(id)) for id in store.enqueue(put)])  # type: ignore[misc]
        ids, _, _ = group(store, message("a"))
        run_one(store, "failed")
        steps.append(0)
        store.db.set_progress_handler(count_steps, 10)
        transact(store, lambda ids=ids: looking.retry(store, ids[0]))  # type: ignore[misc]
        store.db.set_progress_handler(None, 10)
        run_one(store)
    assert steps[1] < steps[0] * 1.5


def test_a_group_is_forgotten_when_nobody_waits_for_a_second_attempt(store: Store, clock: FakeClock) -> None:
    ids, _, (body,) = group(store, message("a"), message("b"), then=[step("c")])
    a, b = take(store)
    settle(store, a, "failed")
    settle(store, b)
    forget(store, clock)
    assert transact(store, lambda: looking.purge(store, body) and looking.purge(store, ids[0]))
    forget(store, clock)
    for table in ("task", "forget", "blocked", "link", "member"):
        assert store.db.execute(f"SELECT count(*) FROM {table}").fetchone() == (0,), table


def test_of_several_that_failed_the_error_of_one_that_still_has_is_told(store: Store) -> None:
    ids, _, (body,) = group(store, message("a"), message("b"), then=[step("c")])
    for delivery in take(store):
        settle(store, delivery, "failed")
    assert transact(store, lambda: looking.retry(store, ids[0]))
    run_one(store)
    assert json.loads(find(store, body).error or b"")["message"] == "no stock"


def test_a_group_that_is_open_takes_more(store: Store) -> None:
    _, id, (body,) = group(store, message("a"), then=[step("b")], is_open=True)
    run_one(store, body=b"1")
    assert find(store, id).state == "running"
    group(store, message("a"), group=id, is_open=True)
    run_one(store, body=b"2")
    group(store, message("a"), group=id)
    run_one(store, body=b"3")
    assert run_one(store) == [[1, 2, 3]]
    with pytest.raises(QueueError, match="no group that is open"):
        transact(store, lambda: store.composer.enqueue_group([], (), id, is_open=False))
    assert find(store, body).state == "done"


def test_an_empty_group_has_ended(store: Store) -> None:
    _, id, _ = group(store, then=[step("b")])
    assert find(store, id).state == "done"
    assert run_one(store) == [[]]


def test_fans_within_fans(store: Store) -> None:
    # a -> (b -> c | (d | e)) -> f
    inner = Fan([[step("d")], [step("e")]])
    compose(store, [first("a"), Fan([[step("b"), step("c")], [inner]]), step("f")])
    run_one(store, body=b"1")
    b, d, e = sorted(take(store), key=lambda one: one.task)
    assert {one.payload for one in (b, d, e)} == {b'{"args":[1]}'}
    for number, delivery in ((4, e), (3, d), (2, b)):
        settle(store, delivery, body=b"%d" % number)
    assert run_one(store, body=b"5") == [2]
    assert run_one(store) == [[5, [3, 4]]]


def test_revoking_a_group_revokes_what_has_not_begun(store: Store) -> None:
    ids, id, (body,) = group(store, *(message("a") for _ in range(3)), then=[step("b")])
    (running,) = take(store, 1)
    assert transact(store, lambda: looking.revoke(store, id))
    assert sorted(find(store, one).state for one in ids) == ["revoked", "revoked", "running"]
    settle(store, running)
    assert find(store, body).state == "failed"


def test_a_group_that_nobody_closed_ends_when_it_is_revoked(store: Store) -> None:
    _, id, (body,) = group(store, message("a"), then=[step("b")], is_open=True)
    run_one(store, body=b"1")
    assert transact(store, lambda: looking.revoke(store, id))
    assert find(store, id).state == "done"
    assert run_one(store) == [[1]]
    assert find(store, body).state == "done"
    assert not transact(store, lambda: looking.revoke(store, id))


def test_nobody_looks_through_all_who_wait_for_each_that_ends(store: Store) -> None:
    plan = store.db.execute("EXPLAIN QUERY PLAN SELECT 1 FROM blocked WHERE keeps = 1 LIMIT 1").fetchone()
    assert "keeping" in plan[3]


def test_what_is_taken_has_a_limit(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock(), max_taken=1000, max_members=3)
    _, _, (body,) = group(store, *(message("a") for _ in range(3)), then=[step("b")])
    for delivery in take(store):
        settle(store, delivery, body=b'"%b"' % (b"x" * 400))
    assert "more than 1,000 bytes (max_taken)" in str(find(store, body).error)
    store.begin()
    with pytest.raises(InvalidArguments, match=r"at most 3 members \(max_members\)"):
        store.composer.enqueue_group([message("a")] * 4, [step("b")], None, is_open=False)
    store.rollback()


def test_what_could_not_be_taken_is_tried_again_with_a_higher_limit(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock(), max_taken=1000)
    _, _, (body, last) = group(store, *(message("a") for _ in range(3)), then=[step("b"), step("c")])
    for delivery in take(store):
        settle(store, delivery, body=b'"%b"' % (b"x" * 400))
    shown = managing.show(store, last)
    assert shown is not None
    assert (shown["state"], shown["failed_with"]) == ("failed", body)
    assert not transact(store, lambda: looking.retry(store, last)), "it has failed with another one"
    assert not transact(store, lambda: looking.retry(store, body)), "the limit is as it was"
    assert [find(store, one).state for one in (body, last)] == ["failed", "failed"]
    more = open_store(path, clock.as_clock(), max_taken=2000)
    clock.pass_by(1000.0)
    more.begin()
    while more.cleaner.step():
        pass
    more.commit()
    assert transact(more, lambda: looking.retry(more, body))
    assert [find(more, one).state for one in (body, last)] == ["waiting", "blocked"]
    (taken,) = run_one(more)
    assert [len(one) for one in taken] == [400] * 3
    assert run_one(more) == [3]
    assert find(more, last).state == "done"


# ---- Counting


def ended(store: Store) -> tuple[int, int]:
    """How many have ended that are to be forgotten, as it is counted, and as it is."""
    (found,) = store.db.execute(
        "SELECT count(*) FROM task t WHERE t.state IN (1, 3, 4) AND NOT EXISTS (SELECT 1 FROM member m "
        "JOIN blocked b ON b.id = m.waiter AND b.keeps = 1 AND b.missing > 0 WHERE t.id BETWEEN m.first AND m.last)"
    ).fetchone()
    return managing.stats(store)["ended"], found


def test_members_that_ended_before_somebody_waits_for_them_are_counted_once(store: Store, clock: FakeClock) -> None:
    ids, id, _ = group(store, *[message("a")] * 5)
    taken = take(store)
    for one in taken[:3]:
        settle(store, one)
    assert ended(store) == (3, 3)
    clock.pass_by(1)
    compose(store, [step("b")], after=id)
    compose(store, [step("b")], after=id)
    assert ended(store) == (0, 0), "they are kept until their group has ended"
    clock.pass_by(150)  # so that they are due, and not forgotten
    transact(store, store.cleaner.step)
    clock.pass_by(1)
    for one in taken[3:]:
        settle(store, one)
    assert ended(store) == (6, 6), "with the group itself"
    assert transact(store, lambda: looking.purge(store, ids[0]))
    assert ended(store) == (5, 5)
    for one in take(store):
        settle(store, one)
    assert ended(store) == (7, 7)
    forget(store, clock)
    assert ended(store) == (0, 0)
    assert store.db.execute("SELECT value FROM meta WHERE name = 'purged'").fetchone() == (0,)


@pytest.mark.parametrize("takes", [True, False])
@pytest.mark.parametrize("is_late", [True, False])
def test_a_group_that_was_open_again_is_counted_once(
    store: Store, clock: FakeClock, takes: bool, is_late: bool
) -> None:
    fan = Fan(([first("a"), step("b")], [first("c")], [first("d")]))
    placed = compose(store, [fan, step("e", takes=takes)])
    (outer,) = [one["group"] for one in placed if isinstance(one, dict)]
    _, id, _ = group(store, *[message("f")] * 3, then=[step("g")])
    for one in take(store):
        settle(store, one, "failed" if one.task in "af" else "done")
        clock.pass_by(0.1)
    dead = [one["task"] for one in managing.list_tasks(store, managing.Filter(error="ValueError"), None, 99)["tasks"]]
    assert ended(store)[0] == ended(store)[1] > 2
    for round in range(3):
        if is_late:
            forget(store, clock)
        clock.pass_by(1)
        for task in dead:
            transact(store, lambda task=task: looking.retry(store, task))  # type: ignore[misc]
            assert ended(store)[0] == ended(store)[1]
        clock.pass_by(1)
        transact(store, store.cleaner.step)
        assert {find(store, one).state for one in (outer, id)} == {"running"}
        while taken := take(store):
            for one in taken:
                settle(store, one, "failed" if round < 2 and one.task in "af" else "done")
                clock.pass_by(0.1)
                assert ended(store)[0] == ended(store)[1]
    forget(store, clock)
    assert ended(store) == (0, 0)
    assert store.db.execute("SELECT count(*) FROM task").fetchone() == (0,)


# ---- Whatever

_steps = st.deferred(lambda: st.one_of(st.booleans(), st.lists(_chains, min_size=1, max_size=3)))
_chains: st.SearchStrategy[Any] = st.lists(_steps, min_size=1, max_size=3)


def _chain(shape: Any) -> list[Step | Fan]:
    """Of booleans, which are steps that take errors or don't, and lists of chains."""
    return [step("b", errors=one) if isinstance(one, bool) else Fan([_chain(chain) for chain in one]) for one in shape]


def _expect(shape: Any, placed: Placed, value: Any, fails: Any) -> Any:
    """What comes of a chain, by the rules, where a task fails if `fails` says so of its id: (well, with errors)."""
    for one, id in zip(shape, placed, strict=True):
        if isinstance(one, bool):
            value = _expect_step(one, id, value, fails)
        else:
            ends = [_expect(chain, ids, value, fails) for chain, ids in zip(one, id["tasks"], strict=True)]
            well = None if any(end[0] is None for end in ends) else ([end[0][0] for end in ends],)
            value = (well, [end[1] for end in ends])
    return value


def _expect_step(errors: bool, id: str, value: Any, fails: Any) -> Any:
    error = {"error": {"type": "ValueError", "message": "no stock"}}
    if not errors and value[0] is None:
        return None, error
    ran[id] = value[1] if errors else value[0][0]
    return (None, error) if fails(id) else ((id,), {"result": id})


ran: dict[str, Any] = {}


@given(shape=_chains, seed=st.integers(0, 2**32))
@settings(max_examples=25, deadline=None)
def test_any_graph_runs_as_its_rules_say(tmp_path_factory: pytest.TempPathFactory, shape: Any, seed: int) -> None:
    chance = random.Random(seed)
    store = open_store(tmp_path_factory.mktemp("graph") / "tasks.db", FakeClock().as_clock(), 1000.0)
    head, *placed = compose(store, [first("a"), *_chain(shape)])
    failing: dict[str, bool] = {}

    def fails(id: str) -> bool:
        return failing.setdefault(id, chance.random() < 0.3)

    got: dict[str, Any] = {}
    open_ones: list[Delivery] = []
    while open_ones := open_ones + take(store, chance.randint(1, 4)):
        delivery = open_ones.pop(chance.randrange(len(open_ones)))
        if chance.random() < 0.1:  # its server dies
            settle(store, delivery, "lost", ERROR)
            continue
        assert delivery.id not in got, "twice"
        got[delivery.id] = (json.loads(delivery.payload)["args"] or [None])[0]
        settle(store, delivery, "failed" if fails(delivery.id) else "done", json.dumps(delivery.id).encode())
    ran.clear()
    begin = _expect_step(True, head, (None, None), fails)
    _expect(shape, placed, begin, fails)
    assert got == ran
    assert store.db.execute("SELECT count(*) FROM task WHERE state = 0").fetchone() == (0,)
    try_all_again(store, chance, got)
    store.db.close()


def try_all_again(store: Store, chance: random.Random, got: dict[str, Any]) -> None:
    """Have a person try dead letters again until there are none: all ends well, and nothing that was done is again."""
    done = {id for id in got if find(store, id).state == "done"}
    while letters := [letter["task"] for letter in looking.dead(store, 1000)]:
        chance.shuffle(letters)
        tried = sum(transact(store, lambda letter=letter: looking.retry(store, letter)) for letter in letters)
        assert tried, "some of them failed by themselves"
        while deliveries := take(store, chance.randint(1, 4)):
            for delivery in deliveries:
                assert delivery.id not in done
                done.add(delivery.id)
                settle(store, delivery, "done", json.dumps(delivery.id).encode())
    for id, total, missing, failed in store.db.execute("SELECT id, total, missing, failed FROM blocked"):
        assert (missing, failed) == (0, 0), (id, total)
    assert store.db.execute("SELECT count(*) FROM task WHERE state <> 1").fetchone() == (0,)
