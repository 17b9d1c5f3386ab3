"""Durable tasks by JSON-RPC, whose requests have no place for how they are to run."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.durable_tasks import marks
from support.queue_calls import queue_server
from support.servers import LineClient, RunningServer, wait_until

server = queue_server


@pytest.fixture
def peer(server: RunningServer) -> Iterator[LineClient]:
    with server.connect() as peer:
        yield peer


def request(method: str, id: object = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params, "id": id}


def enqueued(peer: LineClient, **params: Any) -> Any:
    told = peer.ask(request("greentask.enqueue", **params))
    assert "result" in told, told
    return told["result"]


@pytest.mark.parametrize("where", ["", "_in_process"])
def test_a_task_is_enqueued_and_its_result_asked_for(peer: LineClient, where: str) -> None:
    task = enqueued(peer, function=f"add{where}", args={"a": 1, "b": 2}, priority=3)["task"]
    told = peer.ask(request("greentask.result", task=task, wait=True))["result"]
    assert (told["state"], told["result"]) == ("done", 3)
    shown = peer.ask(request("greentask.queue", action="show", task=task))["result"]
    assert (shown["priority"], shown["name"]) == (3, f"add{where}")


@pytest.mark.parametrize("function", ["note", "note_in_process"])
def test_a_large_one_arrives_as_it_is(peer: LineClient, function: str) -> None:
    text = "ä" * 2_000_000
    task = enqueued(peer, function=function, args=["/dev/null", text])["task"]
    assert peer.ask(request("greentask.result", task=task, wait=True))["result"]["result"] == text


def test_how_it_is_to_run_is_said_as_ever(peer: LineClient) -> None:
    later = enqueued(peer, function="add", args=[1], delay=3600, key="rpc")["task"]
    assert enqueued(peer, function="add", args=[2], key="rpc")["task"] == later
    assert peer.ask(request("greentask.revoke", task=later))["result"] is True
    batch = enqueued(peer, function="add", batch=[[1], [2]], group=True, then={"function": "collect"})
    (step,) = batch["then"]
    assert peer.ask(request("greentask.result", task=step, wait=True))["result"]["result"] == [2, 3]


def test_a_batch_of_requests_has_these_functions_too(peer: LineClient, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    notes = [request("greentask.enqueue", n, function="note", args=[str(file), n]) for n in range(3)]
    silent = {name: value for name, value in notes[2].items() if name != "id"}
    peer.send([notes[0], request("add", "plain", a=1), notes[1], silent])
    told = {one["id"]: one["result"] for one in json.loads(peer.line() or b"")}
    assert told.keys() == {0, 1, "plain"}
    peer.send([request("greentask.result", n, task=told[n]["task"], wait=True) for n in (0, 1)])
    assert [one["result"]["state"] for one in json.loads(peer.line() or b"")] == ["done", "done"]
    wait_until(lambda: sorted(marks(file)) == ["0", "1", "2"], "the notification was kept as well")


@pytest.mark.parametrize(
    ("params", "code", "word"),
    [
        ({"args": [1]}, -32602, "function is missing"),
        ({"function": "add", "args": [1], "dlay": 5}, -32602, "enqueue has no 'dlay'; it has after, at, delay"),
        ({"function": "add", "args": [1], "delay": -5}, -32602, "delay is seconds"),
        ({"function": "add", "args": 1}, -32602, "args must be"),
        ({"function": "add", "batch": [1]}, -32602, "each item of batch"),
        ({"function": "add", "args": [1, 2, 3]}, -32602, "add"),
        ({"function": "ad", "args": [1]}, -32601, "ad"),
        ([1], -32602, "its arguments have names"),
    ],
)
def test_what_does_not_fit_is_refused(peer: LineClient, params: Any, code: int, word: str) -> None:
    told = peer.ask({"jsonrpc": "2.0", "method": "greentask.enqueue", "params": params, "id": 1})["error"]
    assert told["code"] == code
    assert word in told["data"]["message"]
