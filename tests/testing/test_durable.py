"""Durable tasks that run in place."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greentask import Client, Fan, InvalidArguments, Overloaded, QueueError, Step, UnknownTask
from greentask.testing import Calls, eager
from greentask.testing.durable import MOST_ATTEMPTS
from support import durable_tasks as tasks
from support.guarded_tasks import SEEN


@pytest.fixture(autouse=True)
def calls() -> Iterator[Calls]:
    with eager("support.durable_tasks") as calls:
        yield calls


def test_what_is_enqueued_has_run(calls: Calls) -> None:
    receipt = tasks.add.enqueue(1, b=2)
    assert (receipt.result(), receipt.state, receipt.revoke()) == (3, "done", False)
    [call, *_] = calls.calls_to(tasks.add)
    assert call.kwargs == {"a": 1, "b": 2}
    assert [one.result(5) for one in tasks.add_in_process.enqueue_many([[1], {"a": 2}])] == [2, 3]


def test_it_knows_its_receipt_and_attempts() -> None:
    receipt = tasks.me.enqueue()
    assert receipt.result() == [receipt.id, "me", 1]
    assert tasks.fail.enqueue(until=3).result() == 3
    failed = tasks.fail.enqueue()
    assert failed.state == "failed"
    with pytest.raises(ValueError, match="attempt 3"):
        failed.result()
    assert tasks.again.using(delay=3600).enqueue(5).result() == 6
    with pytest.raises(KeyError):
        tasks.fail.enqueue("KeyError").result()


def test_what_asks_to_be_tried_again_and_again_comes_to_an_end() -> None:
    with pytest.raises(QueueError, match=r"again asks for a further attempt after 1,000 of them.*retries="):
        tasks.again.enqueue(MOST_ATTEMPTS + 1)
    assert tasks.again.enqueue(MOST_ATTEMPTS - 1).result() == MOST_ATTEMPTS
    longer = tasks.again.using(retries=MOST_ATTEMPTS + 5).enqueue(MOST_ATTEMPTS + 1)
    assert longer.result() == MOST_ATTEMPTS + 2


def test_a_key_is_one_task() -> None:
    keyed = tasks.add.using(key="order 1")
    assert keyed.enqueue(1).id == keyed.enqueue(2).id
    assert keyed.enqueue(3).result() == 2


def test_what_cannot_be_kept_is_refused() -> None:
    with pytest.raises(InvalidArguments):
        tasks.add.enqueue()  # type: ignore[call-arg]
    with pytest.raises(QueueError, match="nothing"):
        Client("127.0.0.1:1").receipt("nothing").result()


def test_hooks_may_refuse_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = tmp_path / "seen"
    monkeypatch.setenv(SEEN, str(seen))
    with eager("support.guarded_tasks:tasks"):
        client = Client("127.0.0.1:1")
        with pytest.raises(Overloaded, match="may not have 1 of secret"):
            client.enqueue("secret")
        with pytest.raises(Overloaded, match="may not have 1 of secret"):
            client.using(then=[Step("add"), Fan(Step("secret"))]).enqueue("add", 1)
        with pytest.raises(Overloaded, match="may not have 11 of add"):
            client.enqueue_many("add", [[1]] * 11)
        told = [json.loads(line)[:2] + json.loads(line)[-2:] for line in seen.read_text().splitlines()]
        assert told[-3:] == [
            ["before", "add", 11, None],
            ["failed", "add", 11, "refused"],
            ["after", "add", 11, "refused"],
        ]
        assert ["after", "add", 2, "refused"] in told
        assert all(one[2] for one in told), "nothing has run"
        assert client.enqueue("add", 1).result() == 2


def test_a_test_may_break_it(calls: Calls) -> None:
    calls.refuse(tasks.add, error=QueueError("full"))
    with pytest.raises(QueueError, match="full"):
        tasks.add.enqueue(1)
    assert tasks.add.enqueue(1).result() == 2


def test_plain_calls_are_as_before() -> None:
    assert tasks.me.call()[1:] == ["me", None]
    assert tasks.add.call(1) == 2


def test_what_follows_has_run_as_well() -> None:
    receipt = tasks.add.using(then=[Fan(Step("add", 10), Step("add", 20)), Step("collect")]).enqueue(1, 2)
    assert receipt.following[-1].result() == [13, 23]
    assert receipt.then(tasks.add, b=4).result() == 7
    batch = tasks.odd.using(retries=0).enqueue_many([[1], [2], [3]])
    assert batch.result() == {"total": 3, "done": 2, "failed": 1}
    with pytest.raises(ValueError, match="2 is even"):
        batch.then("collect").result()
    error = {"type": "ValueError", "message": "2 is even"}
    assert batch.then(Step("collect").using(errors=True)).result() == [{"result": 1}, {"error": error}, {"result": 3}]


def test_a_chain_by_itself_has_run_as_well() -> None:
    client = Client("127.0.0.1:1")
    fan = {"group": [[{"function": "add", "args": [10]}], [{"function": "odd", "args": []}, {"function": "add"}]]}
    chain = [{"function": "add", "args": [1, 2]}, fan, {"function": "collect"}]
    first, (one, (_, other)), last = _ids(client.call("greentask.compose", chain=chain)["tasks"])
    assert [client.receipt(id).result() for id in (first, one, other, last)] == [3, 13, 4, [13, 4]]
    failed = client.call("greentask.compose", chain=[{"function": "odd", "args": [2]}, {"function": "add"}])["tasks"]
    with pytest.raises(ValueError, match="2 is even"):
        client.receipt(failed[-1]).result()
    with pytest.raises(InvalidArguments, match="chain is a step"):
        client.call("greentask.compose", chain=[])
    with pytest.raises(UnknownTask, match="nobody"):
        client.call("greentask.compose", chain={"function": "nobody"})


def _ids(placed: list[Any]) -> list[Any]:
    return [
        one if isinstance(one, str) else [ids if len(ids) > 1 else ids[0] for ids in one["tasks"]] for one in placed
    ]


def test_what_is_enqueued_by_name_has_run() -> None:
    client = Client("127.0.0.1:1")
    kept = client.call("greentask.enqueue", function="add", args=[1, 2], then=[{"function": "add", "args": [4]}])
    assert [client.receipt(id).result() for id in (kept["task"], *kept["then"])] == [3, 7]
    many = client.call("greentask.enqueue", function="add", batch=[[1], [2]])
    assert [client.receipt(id).result() for id in many["tasks"]] == [2, 3]
    with pytest.raises(InvalidArguments, match=r"greentask\.enqueue: "):
        client.call("greentask.enqueue", function="add", args=7)


@pytest.mark.parametrize("function", ["greentask.queue", "greentask.status"])
def test_what_needs_a_server_is_refused_by_its_name(function: str) -> None:
    with pytest.raises(UnknownTask, match=rf"{function} is not there in eager mode.*greentask_server"):
        Client("127.0.0.1:1").call(function)
