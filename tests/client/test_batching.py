"""Calls of ``Client.map`` that share a line: when they do, and that nobody sees it from what becomes of them."""

import json
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import pytest

from greentask import Client, ConnectionLost, InvalidArguments, Overloaded, WorkerLost
from greentask.client.batching import Batching
from greentask.wire.message import Args
from support.peers import peer
from support.servers import LineClient, wait_until

Message = dict[str, Any]


class Answering:
    """A server that answers each call, and each item of a batch, with its first argument, at once.

    ``batch``, if given, answers batches in its place; it returns False to end the connection.
    """

    def __init__(self, batch: Callable[[LineClient, Message], object] | None = None) -> None:
        self.calls: list[Message] = []
        self._batch = batch or answer

    def __call__(self, connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            call = json.loads(line)
            self.calls.append(call)
            if "batch" in call:
                if self._batch(connection, call) is False:
                    return
            else:
                args = call.get("args", [None])
                connection.send({"id": call["id"], "result": args[0] if isinstance(args, list) else True})

    @property
    def batches(self) -> list[Message]:
        return [call for call in self.calls if "batch" in call]


def answer(connection: LineClient, call: Message) -> None:
    """Answer all items of a batch, and the batch."""
    items = items_of(call)
    connection.send(*items, {"id": call["id"], "result": {"done": len(items), "failed": 0}})


def items_of(call: Message) -> list[Message]:
    return [{"id": call["id"], "index": index, "result": args[0]} for index, args in enumerate(call["batch"])]


BOTH = pytest.mark.parametrize("unordered", [False, True], ids=["ordered", "unordered"])


# ---- When they share a line


@BOTH
def test_quick_calls_share_lines_once_they_have_proved_quick(unordered: bool) -> None:
    server = Answering()
    with peer(server) as running, Client(running.address) as client:
        results = list(client.map("echo", range(3000), unordered=unordered))
    assert (sorted(results) if unordered else results) == list(range(3000))
    assert not any("batch" in call for call in server.calls[:100]), "the first ones may be slow"
    sizes = [len(call["batch"]) for call in server.batches]
    assert sizes, "not one batch"
    assert max(sizes) <= 64
    assert min(sizes) >= 4


def test_a_small_window_has_no_batches() -> None:
    server = Answering()
    with peer(server) as running, Client(running.address) as client:
        assert list(client.map("echo", range(200), window=3)) == list(range(200))
    assert not server.batches


def test_calls_that_report_progress_go_one_by_one() -> None:
    server = Answering()
    with peer(server) as running, Client(running.address) as client:
        assert list(client.using(progress=lambda report: None).map("echo", range(1000))) == list(range(1000))
    assert not server.batches


def test_lines_are_kept_small() -> None:
    server = Answering()
    with peer(server) as running, Client(running.address) as client:
        texts = [f"{number:05}" * 1000 for number in range(600)]
        assert list(client.map("echo", texts)) == texts
    assert all(len(call["batch"]) <= 13 for call in server.batches)


def test_a_batch_has_the_timeout_of_its_calls() -> None:
    server = Answering()
    with peer(server) as running, Client(running.address, timeout=30) as client:
        assert list(client.map("echo", range(2000))) == list(range(2000))
    assert {call["timeout"] for call in server.batches} == {30}


# ---- What becomes of them


@BOTH
def test_an_items_error_is_its_own(client: Client, unordered: bool) -> None:
    values = ["x" * (number % 7) if number % 100 else number for number in range(2000)]
    results = list(client.map("length", values, unordered=unordered, return_exceptions=True))
    assert sum(isinstance(result, TypeError) for result in results) == 20
    if not unordered:
        lengths = [len(value) for value in values if isinstance(value, str)]
        assert [result for result in results if isinstance(result, int)] == lengths


def test_an_argument_that_json_cannot_carry_has_its_turn(client: Client) -> None:
    values: list[Any] = list(range(1000))
    values[700] = {1, 2}
    results = client.map("echo", values)
    assert [next(results) for _ in range(700)] == values[:700]
    with pytest.raises(InvalidArguments, match="set"):
        next(results)


def test_a_server_that_knows_no_batches_gets_one_only() -> None:
    def refuse(connection: LineClient, call: Message) -> None:
        error = {"type": "InvalidMessage", "message": 'unknown member "batch"'}
        connection.send({"id": call["id"], "error": error})

    server = Answering(refuse)
    with peer(server) as running, Client(running.address) as client:
        assert list(client.map("echo", range(3000))) == list(range(3000))
    assert 1 <= len(server.batches) <= 25, "those that a window has room for"


def test_an_item_that_is_not_answered_is_an_error() -> None:
    def forget(connection: LineClient, call: Message) -> None:
        connection.send(*items_of(call)[:2])
        connection.send({"id": call["id"], "result": {"done": 2, "failed": 0}})

    with peer(Answering(forget)) as running, Client(running.address) as client:
        results = list(client.map("echo", range(3000), return_exceptions=True))
    assert len(results) == 3000
    assert any("without an answer for item 2" in str(result) for result in results)


@pytest.mark.parametrize("idempotent", [False, True])
def test_a_lost_connection_costs_those_that_are_not_idempotent(idempotent: bool) -> None:
    """The first batch is answered in part, and then the connection is lost."""
    lost: list[Message] = []

    def lose(connection: LineClient, call: Message) -> bool:
        if lost:
            answer(connection, call)
            return True
        lost.append(call)
        connection.send(*items_of(call)[:2])
        return False

    with peer(Answering(lose)) as running, Client(running.address) as client:
        mapped = client.using(idempotent=idempotent)
        list(mapped.map("echo", range(200), window=3))  # so that the budget has enough
        results = list(mapped.map("echo", range(3000), window=16, return_exceptions=True))
    assert len(results) == 3000
    assert all(type(result) is ConnectionLost or result == number for number, result in enumerate(results))
    errors = sum(isinstance(result, ConnectionLost) for result in results)
    if idempotent:
        assert errors == 0
    else:
        assert errors >= len(lost[0]["batch"]) - 2


@pytest.mark.parametrize(
    ("kind", "idempotent", "again"),
    [("Draining", False, True), ("WorkerLost", False, False), ("WorkerLost", True, True), ("Overloaded", False, True)],
)
def test_an_item_is_sent_again_where_a_call_would_be(kind: str, idempotent: bool, again: bool) -> None:
    refused: list[Any] = []

    def refuse_first(connection: LineClient, call: Message) -> None:
        if refused:
            answer(connection, call)
            return
        refused.append(call["batch"][0][0])
        connection.send({"id": call["id"], "index": 0, "error": {"type": kind, "message": "not this one"}})
        connection.send(*items_of(call)[1:])
        connection.send({"id": call["id"], "result": {"done": len(call["batch"]) - 1, "failed": 1}})

    server = Answering(refuse_first)
    with peer(server) as running, Client(running.address) as client:
        mapped = client.using(idempotent=idempotent).map("echo", range(3000), return_exceptions=True)
        results = list(mapped)
    sent_alone = [call for call in server.calls if call.get("args") == refused]
    assert len(sent_alone) == again
    assert isinstance(results[refused[0]], Exception) is not again


def batch_of(client: Client, count: int, *, idempotent: bool = False) -> list[Future[Any]]:
    """Start so many calls that share a line."""

    def submit(_: Args) -> Future[Any]:
        raise AssertionError("they were to share a line")

    batching = Batching(client._core, "echo", submit, lambda: None, idempotent=idempotent)
    return [*batching.start([[number] for number in range(count)], True)]


def test_an_item_that_may_have_run_is_sent_again_three_times_as_a_call_would_be() -> None:
    """It ends its servers, and with them whatever else they were asked."""
    bad, seen = 3, []

    def die_of_it(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            call = json.loads(line)
            if [bad] in (call.get("args"), *call.get("batch", ())):
                seen.append("alone" if "args" in call else "batch")
                return
            if "batch" in call:
                answer(connection, call)
            else:
                connection.send({"id": call["id"], "result": call["args"][0]})

    with peer(die_of_it) as running, Client(running.address) as client:
        for _ in range(150):
            assert client.call("echo", "so that the budget has enough") is not None
        futures = batch_of(client, 8, idempotent=True)
        errors = [future.exception(20) for future in futures]
    assert seen == ["batch", "batch", "alone", "alone"]
    assert isinstance(errors[bad], ConnectionLost)


def test_an_item_that_ends_its_processes_is_sent_again_three_times_and_the_others_not_at_all() -> None:
    bad, lost = 3, {"type": "WorkerLost", "message": "its process died"}

    def lose(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            call = json.loads(line)
            calls.append(call)
            if "batch" in call:
                items = items_of(call)
                items[bad] = {"id": call["id"], "index": bad, "error": lost}
                connection.send(*items, {"id": call["id"], "result": {"done": 7, "failed": 1}})
            else:
                connection.send({"id": call["id"], "error": lost})

    calls: list[Message] = []
    with peer(lose) as running, Client(running.address) as client:
        errors = [future.exception(20) for future in batch_of(client, 8, idempotent=True)]
    assert [call.get("args") for call in calls] == [None, [bad], [bad], [bad]]
    assert [type(error) for error in errors if error is not None] == [WorkerLost]


def test_of_a_batch_that_has_too_much_so_many_go_elsewhere_as_the_budget_has() -> None:
    """As of as many calls, each of which was refused: ten and a tenth."""
    lines: list[tuple[int, Message]] = []
    refused: list[Message] = []

    def refuse_first(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            call = json.loads(line)
            lines.append((connection.socket.getsockname()[1], call))
            if "batch" in call:
                refused.append(call)
                error = {"type": "Overloaded", "message": "too much"}
                connection.send({"id": call["id"], "error": error})
            else:
                connection.send({"id": call["id"], "result": call["args"][0]})

    with peer(refuse_first) as one, peer(refuse_first) as other, Client([one.address, other.address]) as client:
        errors = [future.exception(20) for future in batch_of(client, 40)]
    assert sum(error is None for error in errors) == 10 + 4
    assert {type(error) for error in errors if error is not None} == {Overloaded}
    (batch_at, _), *alone = lines
    assert len(refused) == 1
    assert len(alone) == 10 + 4
    assert all(at != batch_at for at, _ in alone), "not to the one that has too much already"


def test_an_item_whose_arguments_one_server_does_not_take_goes_to_another() -> None:
    def refuse_first(connection: LineClient, call: Message) -> None:
        error = {"type": "InvalidArguments", "message": "no such parameter"}
        connection.send({"id": call["id"], "index": 0, "error": error}, *items_of(call)[1:])
        connection.send({"id": call["id"], "result": {"done": len(call["batch"]) - 1, "failed": 1}})

    servers = [Answering(refuse_first), Answering(refuse_first)]
    with peer(servers[0]) as one, peer(servers[1]) as other, Client([one.address, other.address]) as client:
        assert [future.result(20) for future in batch_of(client, 8)] == [*range(8)]
    assert sorted([["batch" in call for call in server.calls] for server in servers]) == [[False], [True]]


def test_closing_cancels_the_batch() -> None:
    silent: list[Message] = []
    server = Answering(lambda connection, call: silent.append(call))
    with peer(server) as running, Client(running.address) as client:
        results = client.map("echo", range(3000))
        for _ in range(100):
            next(results)
        wait_until(lambda: silent, "there is a batch")
        results.close()  # type: ignore[attr-defined]
        wait_until(
            lambda: (
                {call["args"]["id"] for call in server.calls if call["function"] == "greentask.cancel"}
                >= {call["id"] for call in silent}
            ),
            "the batches are cancelled",
        )
