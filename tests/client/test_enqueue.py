"""Durable tasks, as a client sees them."""

import json
import signal
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from greentask import Client, Receipt, Step
from greentask.errors import (
    Cancelled,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    InvalidArguments,
    LineTooLong,
    QueueError,
    UnknownTask,
)
from support import durable_tasks as tasks
from support.durable_tasks import marks
from support.peers import next_call, peer
from support.programs import run_source
from support.queue_calls import queue_client, queue_server
from support.servers import LineClient, RunningServer, free_port, serving, wait_until

APPS = ("support.durable_tasks",)


server, client = queue_server, queue_client


def test_a_task_is_enqueued_and_its_result_awaited(client: Client) -> None:
    receipt = client.enqueue("add", 1, 2)
    assert receipt.result() == 3
    assert receipt.state == "done"
    assert client.receipt(receipt.id).result() == 3, "from elsewhere, by its id"


def test_a_decorated_function_is_enqueued_as_it_is_called(client: Client) -> None:
    remote = tasks.add_in_process.using(client)
    assert remote.enqueue(1, b=5).result(10) == 6
    assert [receipt.result() for receipt in remote.enqueue_many([[1], {"a": 2, "b": 2}, (3,)])] == [2, 4, 4]


def test_the_default_clients_server_keeps_it(server: RunningServer) -> None:
    source = "from support.durable_tasks import add\nprint(add.enqueue(1, b=2).result(10))"
    for patched in (False, True):
        assert run_source(source, patched=patched, GREENTASK_URL=server.address) == ["3"]


def test_thousands_are_enqueued_in_a_moment(client: Client) -> None:
    receipts = client.enqueue_many("add", ([number, 1] for number in range(2500)))
    assert len({receipt.id for receipt in receipts}) == 2500
    assert [receipt.result() for receipt in receipts[::500]] == [1, 501, 1001, 1501, 2001]


def test_what_is_too_long_for_one_line_goes_in_several(server: RunningServer) -> None:
    with Client(server.address, max_line=20_000) as client:
        receipts = client.enqueue_many("note", [["/dev/null", "x" * 3000] for _ in range(20)])
        assert {receipt.result(10) for receipt in receipts} == {"x" * 3000}
        with pytest.raises(LineTooLong):
            client.enqueue_many("note", [["/dev/null", "x" * 30_000]])


def test_a_failed_task_raises_what_its_last_attempt_raised(client: Client) -> None:
    with pytest.raises(ValueError, match="attempt 3"):
        tasks.fail.using(client).enqueue().result()
    assert tasks.fail.using(client, retries=3).enqueue(until=4).result() == 4
    with pytest.raises(ValueError, match="attempt 1"):  # none, where the task says two
        tasks.fail.using(client, retries=0).enqueue().result()


def test_it_begins_when_it_is_told_to(client: Client) -> None:
    began = time.time()
    receipts = [client.using(delay=0.3).enqueue("add", 1), client.using(at=began + 0.3).enqueue("add", 1)]
    assert {receipt.state for receipt in receipts} == {"scheduled"}
    assert [receipt.result() for receipt in receipts] == [2, 2]
    assert time.time() - began >= 0.3


def test_a_key_is_one_task(client: Client) -> None:
    keyed = client.using(key="order 1")
    assert keyed.enqueue("add", 1).id == keyed.enqueue("add", 2).id
    with pytest.raises(TypeError, match="a key is one task's"):
        keyed.enqueue_many("add", [[1]])


def test_waiting_for_a_result_has_an_end(client: Client) -> None:
    receipt = client.using(delay=3600).enqueue("add", 1)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"is scheduled after 0\.2 s"):
        receipt.result(0.2)
    assert time.monotonic() - began < 5
    assert receipt.revoke() is True
    assert receipt.revoke() is False
    with pytest.raises(Cancelled, match="revoked"):
        receipt.result(5)


def test_a_receipt_is_found_by_its_key(client: Client) -> None:
    receipt = client.using(key="order 5").enqueue("add", 1, 2)
    found = client.receipt(key="order 5")
    assert (found.id, found.result(20)) == (receipt.id, 3)
    with pytest.raises(QueueError, match="no task with the key 'order 6'"):
        client.receipt(key="order 6")
    for wrong in ({}, {"id": receipt.id, "key": "order 5"}):
        with pytest.raises(TypeError, match="by an id, or by a key"):
            client.receipt(**wrong)


def test_what_runs_is_ended(client: Client) -> None:
    receipt = client.enqueue("steps", 10_000)
    wait_until(lambda: receipt.progress)
    assert receipt.revoke() is False
    assert receipt.revoke(running=True) is True
    with pytest.raises(Cancelled, match="revoked") as caught:
        receipt.result(20)
    assert caught.value.started is True
    assert receipt.state == "revoked"


def test_who_waits_asks_once_and_is_told(server: RunningServer) -> None:
    asked: list[str] = []

    def pass_on(connection: LineClient) -> None:
        with server.connect() as behind:
            while (line := next_call(connection)) is not None:
                asked.append(json.loads(line)["function"])
                connection.send(behind.ask(json.loads(line)))

    with peer(pass_on) as between, Client(between.address) as client:
        assert client.using(delay=1.0).enqueue("add", 1).result(20) == 2
    assert asked == ["add", "greentask.result"]


def test_its_progress_is_told(client: Client) -> None:
    receipt = client.enqueue("steps", 6)
    heard: list[dict[str, object]] = []
    newest = wait_until(lambda: receipt.progress)
    assert newest["total"] == 6
    assert receipt.result(progress=heard.append) == 6
    assert heard
    assert receipt.progress is None


def test_what_cannot_be_kept_is_refused(client: Client) -> None:
    with pytest.raises(UnknownTask):
        client.enqueue("ad", 1)
    with pytest.raises(InvalidArguments):
        client.enqueue("add", 1, 2, 3)
    with pytest.raises(InvalidArguments):
        client.enqueue_many("add", [[1], [1, 2, 3]])
    with pytest.raises(ValueError, match="priority"):
        client.using(priority=11)
    with pytest.raises(QueueError, match="knows no task"):
        client.receipt("nothing").result(5)


@pytest.mark.parametrize("what", ["call", "submit", "map", "stream"])
def test_options_of_what_is_enqueued_are_for_nothing_else(client: Client, what: str) -> None:
    with pytest.raises(TypeError, match=r"delay=, then= of using\(\) is for what is enqueued.*: use enqueue"):
        list(getattr(client.using(delay=5, then=Step("add")), what)("add", [1]))


def answering(answers: list[dict[str, object] | None], asked: list[str]) -> Callable[[LineClient], None]:
    """Answers each question about a task with the next of these; None: it closes the connection a moment later."""

    def answer(connection: LineClient) -> None:
        while (line := next_call(connection)) is not None:
            call = json.loads(line)
            asked.append(call["function"])
            given = answers.pop(0)
            if given is None:
                time.sleep(0.25)
                return
            connection.send({"id": call["id"], **given})

    return answer


@pytest.mark.parametrize("timeout", [None, 30])
def test_who_waits_bears_with_a_server_that_drains(monkeypatch: pytest.MonkeyPatch, timeout: float | None) -> None:
    """However long it drains: that of the last attempts of a call is over sooner."""
    monkeypatch.setattr("greentask.client.retrying._PAUSES", (0.0,))
    asked: list[str] = []
    leaves: dict[str, object] = {"error": {"type": "Draining", "message": "this server is going away"}}
    answers = [*(leaves for _ in range(6)), {"result": {"name": "f", "state": "done", "result": 5}}]
    with peer(answering(answers, asked)) as server, Client(server.address) as client:
        assert client.receipt("1M8").result(timeout) == 5
    assert len(asked) == 7


def test_who_waits_does_not_bear_with_one_that_drains_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greentask.client.retrying._PAUSES", ())
    leaves: dict[str, object] = {"error": {"type": "Draining", "message": "this server is going away"}}
    with (
        peer(answering([leaves] * 100, [])) as server,
        Client(server.address) as client,
        pytest.raises(Draining, match="going away"),
    ):
        client.receipt("1M8").result(0.3)


def test_who_waits_without_a_limit_bears_with_each_loss_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that is started anew each week is not one that has been lost for weeks."""
    monkeypatch.setattr("greentask.client.receipt._LOST_FOR", 0.2)
    answers = [None, None, None, {"result": {"name": "f", "state": "done", "result": 5}}]
    with peer(answering(answers, [])) as server, Client(server.address) as client:
        assert client.receipt("1M8").result() == 5


@pytest.mark.slow
def test_who_waits_hears_the_result_though_the_server_dies_meanwhile(tmp_path: Path) -> None:
    file, queue, address = tmp_path / "marks", str(tmp_path / "tasks.db"), f"127.0.0.1:{free_port()}"
    with Client(address) as client:
        results: list[object] = []

        def wait(receipt: Receipt[object]) -> None:
            results.append(receipt.result(60))

        with serving("--queue", queue, apps=APPS, listen=(address,)) as server:
            receipt = client.enqueue("nap", str(file), 0.5)
            waiting = threading.Thread(target=wait, args=(receipt,))
            waiting.start()
            wait_until(lambda: marks(file) == ["began"])
            server.signal_all(signal.SIGKILL)
            server.wait()
        with pytest.raises(ConnectionLost):
            _ = receipt.state
        with serving("--queue", queue, apps=APPS, listen=(address,)):
            waiting.join(30)
    assert results == ["rested"]
    assert marks(file) == ["began", "began", "ended"]


@pytest.mark.slow
def test_who_waits_hears_the_result_through_a_reload(tmp_path: Path) -> None:
    with serving("--queue", str(tmp_path / "tasks.db"), apps=APPS) as server, Client(server.address) as client:
        receipt = client.using(delay=2.0).enqueue("add", 1)
        results: list[object] = []
        waiting = threading.Thread(target=lambda: results.append(receipt.result(30)))
        waiting.start()
        server.signal(signal.SIGHUP)
        waiting.join(30)
    assert results == [2]
