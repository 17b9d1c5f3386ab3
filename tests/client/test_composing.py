"""Durable tasks that follow others, as a client sees them."""

from datetime import timedelta

import pytest

from greentask import Client, Fan, InvalidArguments, QueueError, Step, UnknownTask
from support import durable_tasks as tasks
from support.queue_calls import queue_client, queue_server
from support.servers import RunningServer, wait_until

APPS = ("support.durable_tasks",)


server, client = queue_server, queue_client


def test_the_result_goes_on_to_the_next_one(client: Client) -> None:
    first = client.enqueue("add", 1, 2)
    last = first.then("add", 10).then(tasks.add_in_process, b=100)
    assert (last.result(), first.result(), last.state) == (113, 3, "done")


def test_what_follows_is_enqueued_in_the_same_moment(client: Client) -> None:
    steps = [
        Step(tasks.add, 10),
        Step(tasks.add, b=100),
        Step("add", 7).using(takes=False, priority=3, ttl=timedelta(days=1)),
    ]
    receipt = tasks.add.using(client, then=steps).enqueue(1, b=2)
    assert [one.result() for one in receipt.following] == [13, 113, 8]
    assert client.enqueue("add", 1).following == ()


def test_it_waits_until_the_one_before_has_ended(client: Client) -> None:
    receipt = client.using(delay=3600, then=Step("add", 1)).enqueue("add", 1)
    (following,) = receipt.following
    assert following.state == "blocked"
    assert receipt.revoke()
    assert following.state == "failed"


def test_an_error_goes_on_to_who_follows(client: Client) -> None:
    failed = client.using(retries=0).enqueue("fail")
    with pytest.raises(ValueError, match="attempt 1"):
        failed.then("add", 1).then("add", 2).result()
    taken = failed.then(Step("collect").using(errors=True)).result()
    assert taken == {"error": {"type": "ValueError", "message": "attempt 1"}}


def test_a_batch_tells_how_far_it_is_and_when_it_has_ended(client: Client) -> None:
    batch = client.using(retries=0).enqueue_many("odd", [[number] for number in range(1, 10)])
    assert batch.result() == {"total": 9, "done": 5, "failed": 4}
    assert (batch.state, batch.progress, len(batch)) == ("done", batch.result(), 9)
    assert client.receipt(batch.id).progress == batch.result()
    assert [one.state for one in batch[:3]] == ["done", "failed", "done"]
    assert batch[-1].result() == 9
    assert (batch.index(client.receipt(batch[3].id)), batch[0] in batch, len({*batch, *batch})) == (3, True, 9)
    with pytest.raises(ValueError, match="2 is even"):
        batch.then("collect").result()
    assert [set(one) for one in batch.then(Step("collect").using(errors=True)).result()[:3]] == [
        {"result"},
        {"error"},
        {"result"},
    ]


def test_the_progress_of_a_batch_is_told_to_who_waits(client: Client) -> None:
    batch = client.using(priority=1).enqueue_many("nap", [["/dev/null", 0.1 * number] for number in range(1, 5)])
    assert batch.state == "running"
    heard: list[dict[str, int]] = []
    assert batch.result(progress=heard.append) == {"total": 4, "done": 4, "failed": 0}
    assert heard
    assert [one["done"] for one in heard] == sorted({one["done"] for one in heard})
    assert all(one["total"] == 4 for one in heard)


def test_a_batch_of_several_lines_is_one(client: Client) -> None:
    batch = client.using(then=Step("collect")).enqueue_many("add", ([number, 1] for number in range(2500)))
    (completion,) = batch.following
    assert completion.result() == list(range(1, 2501))
    assert batch.result()["total"] == 2500


def test_lines_that_are_too_long_make_one_batch_too(server: RunningServer) -> None:
    with Client(server.address, max_line=20_000, timeout=20) as client:
        batch = client.enqueue_many("note", [["/dev/null", "x" * 3000] for _ in range(20)])
        assert batch.result() == {"total": 20, "done": 20, "failed": 0}


def test_an_empty_batch_has_ended(client: Client) -> None:
    batch = client.using(then=Step("collect")).enqueue_many("add", [])
    assert (len(batch), batch.result()["total"], batch.following[0].result()) == (0, 0, [])


def test_fans(client: Client) -> None:
    fan = Fan(Step("add", 10), [Step("add", 20), Step("add", 100)], Fan(Step("add", 1), Step("add", 2)))
    receipt = client.using(then=[fan, Step("collect")]).enqueue("add", 0, 0)
    group, last = receipt.following
    assert last.result() == [10, 120, [1, 2]]
    assert group.result() == {"total": 3, "done": 3, "failed": 0}


def test_a_batch_that_is_revoked(client: Client) -> None:
    batch = client.using(delay=3600).enqueue_many("add", [[1], [2]])
    assert batch.progress == {"total": 2, "done": 0, "failed": 0}
    assert batch.revoke()
    assert batch.result() == {"total": 2, "done": 0, "failed": 2}


def test_what_can_not_follow_is_refused_at_once(client: Client) -> None:
    with pytest.raises(UnknownTask):
        client.using(then=Step("unheard_of")).enqueue("add", 1)
    with pytest.raises(InvalidArguments, match="too many"):
        client.using(then=Step("me")).enqueue("add", 1)
    with pytest.raises(InvalidArguments, match="without 'a'"):
        client.using(then=Step("add", a=1)).enqueue("add", 1)
    for several in ([Step("add"), Step("add")], Fan(Step("add"))):
        with pytest.raises(TypeError, match=r"say several with using\(then=…\)"):
            client.receipt("0000000000000").then(several)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="write Step"):
        client.using(then="add")
    with pytest.raises(QueueError, match="knows no task"):
        client.receipt("0000000000000").then("add")


def test_a_key_finds_what_follows_as_well(client: Client) -> None:
    keyed = client.using(key="a chain", then=Step("add", 1))
    one, two = keyed.enqueue("add", 1), keyed.enqueue("add", 1)
    assert one.id == two.id
    assert [receipt.id for receipt in one.following] == [receipt.id for receipt in two.following]
    wait_until(lambda: two.following[0].state == "done")
