"""Batches: one line that is many calls, answered item by item, by a real server."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.holding import longest_hold
from support.servers import LineClient, RunningServer, module_server, serving, wait_until

pytestmark = pytest.mark.once

server = module_server()


def hear_batch(peer: LineClient, id: object) -> tuple[dict[int, dict[str, Any]], dict[str, Any]]:
    """The items' last lines by their indices, and the closing line, which must come after them."""
    items: dict[int, dict[str, Any]] = {}
    while "index" in (reply := peer.hear()):
        assert reply.pop("id") == id
        index = reply.pop("index")
        assert index not in items, "two answers to one item"
        items[index] = reply
    assert reply.pop("id") == id
    return items, reply


@pytest.mark.parametrize("function", ["add", "add_in_process"])
def test_each_item_is_answered_and_a_line_closes_the_batch(peer: LineClient, function: str) -> None:
    batch: list[Any] = [[number, 1] for number in range(50)]
    batch[7] = {"a": 7, "b": 1}
    peer.send({"id": "sums", "function": function, "batch": batch})
    items, closing = hear_batch(peer, "sums")
    assert items == {number: {"result": number + 1} for number in range(50)}
    assert closing == {"result": {"done": 50, "failed": 0}}


@pytest.mark.parametrize("function", ["add", "add_in_process"])
def test_an_item_fails_by_itself(peer: LineClient, function: str) -> None:
    peer.send({"id": 1, "function": function, "batch": [[1, 2], [], {"a": 1, "c": 1}, ["x", 1], None, [3, 4]]})
    items, closing = hear_batch(peer, 1)
    assert items[0] == {"result": 3}
    assert items[5] == {"result": 7}
    assert items[3]["error"]["type"] == "TypeError"
    assert {items[index]["error"]["type"] for index in (1, 2, 4)} == {"InvalidArguments"}
    assert closing == {"result": {"done": 2, "failed": 4}}


def test_a_process_that_dies_fails_its_item_only(peer: LineClient) -> None:
    peer.send({"id": 1, "function": "die", "batch": [["kill"], ["exit"]]})
    items, closing = hear_batch(peer, 1)
    assert [items[index]["error"]["type"] for index in (0, 1)] == ["WorkerLost", "WorkerLost"]
    assert closing == {"result": {"done": 0, "failed": 2}}


def test_items_are_answered_as_they_finish(peer: LineClient) -> None:
    peer.send({"id": 1, "function": "nap", "batch": [[0.4], [0.0], [0.2]]})
    replies = peer.hear_all(4)
    assert [reply.get("index") for reply in replies] == [1, 2, 0, None]


def test_items_run_at_the_same_time(peer: LineClient) -> None:
    began = time.monotonic()
    peer.send({"id": 1, "function": "nap", "batch": [[0.3]] * 200})
    items, _ = hear_batch(peer, 1)
    assert len(items) == 200
    assert time.monotonic() - began < 5, "one after another they take 60 s"


def test_other_calls_are_answered_meanwhile(peer: LineClient) -> None:
    peer.send({"id": 1, "function": "nap", "batch": [[0.3]] * 3}, {"id": 2, "function": "add", "args": [1]})
    assert peer.hear() == {"id": 2, "result": 1}
    hear_batch(peer, 1)


def test_a_batch_of_nothing_is_closed_at_once(peer: LineClient) -> None:
    assert peer.ask({"id": 1, "function": "add", "batch": []}) == {"id": 1, "result": {"done": 0, "failed": 0}}


def test_a_batch_of_an_unknown_task_is_one_error(peer: LineClient) -> None:
    reply = peer.ask({"id": 1, "function": "ad", "batch": [[1], [2]]})
    assert set(reply) == {"id", "error"}
    assert reply["error"]["type"] == "UnknownTask"
    assert peer.call("add", 1, 2) == 3


def test_a_batch_of_a_generator_gives_arrays(peer: LineClient) -> None:
    peer.send({"id": 1, "function": "count", "batch": [[2], [0]]})
    items, _ = hear_batch(peer, 1)
    assert items == {0: {"result": [0, 1]}, 1: {"result": []}}


@pytest.mark.parametrize("function", ["advance", "advance_in_process"])
def test_progress_of_an_item_carries_its_index(peer: LineClient, function: str) -> None:
    peer.send({"id": 1, "function": function, "batch": [[2], [1]], "progress": True})
    replies = peer.hear_all(6)
    assert [reply for reply in replies if reply.get("index") == 0] == [
        {"id": 1, "index": 0, "progress": {"done": 1, "total": 2}},
        {"id": 1, "index": 0, "progress": {"done": 2, "total": 2}},
        {"id": 1, "index": 0, "result": 2},
    ]
    assert replies[-1] == {"id": 1, "result": {"done": 2, "failed": 0}}


@pytest.mark.parametrize("function", ["nap", "nap_in_process"])
def test_a_batch_that_runs_out_of_time_fails_item_by_item(peer: LineClient, function: str) -> None:
    peer.send({"id": 1, "function": function, "batch": [[30]] * 4, "timeout": 0.3})
    items, closing = hear_batch(peer, 1)
    assert {item["error"]["type"] for item in items.values()} == {"DeadlineExceeded"}
    assert closing == {"result": {"done": 0, "failed": 4}}


def test_a_batch_keeps_to_max_in_flight_and_what_has_not_begun_in_time_never_begins(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    with serving("--max-in-flight", "2") as server, server.connect() as peer:
        peer.send({"id": 1, "function": "mark", "batch": [[str(file), 30]] * 8, "timeout": 0.3})
        items, _ = hear_batch(peer, 1)
        began = time.monotonic()
        peer.send({"id": 1, "function": "nap", "batch": [[0.1]] * 6})
        hear_batch(peer, 1)
        assert time.monotonic() - began > 0.25, "three rounds of naps"
    started = [item["error"]["started"] for _, item in sorted(items.items())]
    assert started == [True] * 2 + [False] * 6
    assert file.read_text().count("started") == 2


@pytest.mark.parametrize("function", ["mark", "mark_in_process"])
def test_a_batch_can_be_cancelled(server: RunningServer, peer: LineClient, function: str, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    peer.send({"id": "long", "function": function, "batch": [[str(file), 60]] * 1000})
    wait_until(lambda: file.exists() and file.read_text(), "the first items run")
    peer.send({"id": "stop", "function": "greentask.cancel", "args": ["long"]})
    while (reply := peer.hear())["id"] == "long" and "index" in reply:
        assert reply["error"]["type"] == "Cancelled"
    last = {reply["id"]: reply for reply in (reply, *iter_until_closed(peer, reply))}
    assert last["stop"] == {"id": "stop", "result": True}
    assert last["long"]["error"]["type"] == "Cancelled"
    assert last["long"]["error"]["started"] is True
    assert server.status()["in_flight"] == 0
    assert len(file.read_text().splitlines()) <= 2 * 256, "those that had not begun never do"


def iter_until_closed(peer: LineClient, reply: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What follows, up to the closing line of the batch or its cancellation's answer, whichever is last."""
    ended = {reply["id"]}
    while ended != {"long", "stop"}:
        reply = peer.hear()
        if "index" not in reply:
            ended.add(reply["id"])
            yield reply


def test_a_large_batch_does_not_hold_up_others(server: RunningServer, peer: LineClient) -> None:
    def ask() -> None:
        peer.send({"id": 1, "function": "add", "batch": [[number, 1] for number in range(10_000)]})
        items, closing = hear_batch(peer, 1)
        assert items == {number: {"result": number + 1} for number in range(10_000)}
        assert closing == {"result": {"done": 10_000, "failed": 0}}

    assert longest_hold(server, ask) < 0.5


def test_a_batch_waits_for_a_peer_that_does_not_read(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    with serving("--max-unsent", "1000000") as server, server.connect(receive_buffer=4096) as peer:
        peer.send({"id": 1, "function": "large", "batch": [[1000]] * 10_000})
        wait_until(lambda: server.status()["in_flight"] == 1, "it runs")
        wait_until(lambda: server.is_at_rest(), "it waits")
        assert server.status()["in_flight"] == 1
        assert server.call("mark", str(file)) == "marked", "others are served meanwhile"
        assert server.memory() < 150_000_000
        items, closing = hear_batch(peer, 1)
        assert closing == {"result": {"done": 10_000, "failed": 0}}
        assert len(items) == 10_000


@pytest.mark.parametrize("is_rpc", [False, True])
def test_a_batch_that_is_refused_item_by_item_does_not_hold_up_others(server: RunningServer, is_rpc: bool) -> None:
    count = 30_000
    call: object = {"id": 1, "function": "keep_apart", "batch": [[0.2]] * count}
    if is_rpc:
        call = [{"jsonrpc": "2.0", "method": "keep_apart", "params": [0.2]}] * count
    with server.connect() as busy, server.connect() as peer:
        # One runs, one waits: there is room for none of the batch, which ends by itself.
        busy.send(*({"id": number, "function": "keep_apart", "args": [60]} for number in range(2)))
        wait_until(lambda: server.status()["in_flight"] == 2, "there is no room")
        line = json.dumps(call).encode() + b"\n"

        def ask() -> None:
            peer.send_bytes(line)
            peer.end_sending()
            assert (peer.socket.makefile("rb").read() == b"") is is_rpc, "of notifications nothing is told"

        assert longest_hold(server, ask) < 0.5
        busy.send(*({"id": f"stop {id}", "function": "greentask.cancel", "args": [id]} for id in range(2)))
        busy.hear_all(4)
