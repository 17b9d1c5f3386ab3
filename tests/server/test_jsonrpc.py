"""JSON-RPC 2.0 on a server's port: the specification's own examples, and what it leaves open, on real connections."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.holding import longest_hold
from support.servers import LineClient, RunningServer, module_server, serving, wait_until

pytestmark = pytest.mark.once

PING = {"jsonrpc": "2.0", "method": "greentask.ping", "id": "ping"}
PONG = {"jsonrpc": "2.0", "result": "pong", "id": "ping"}


server = module_server(apps=["support.server_tasks", "support.jsonrpc_tasks"])


@pytest.fixture(scope="module")
def strict() -> Iterator[RunningServer]:
    """One whose lines are bounded, and which cancels what nobody waits for."""
    with serving("--debug", "--max-depth", "5", "--max-line", "200000", "--cancel-abandoned") as server:
        yield server


@pytest.fixture(scope="module")
def narrow() -> Iterator[RunningServer]:
    """One that is soon full."""
    with serving("--max-in-flight", "2", "--max-calls", "3", "--max-unsent", "1000000") as server:
        yield server


def hear(peer: LineClient) -> Any:
    line = peer.line()
    assert line is not None, "closed, where a line was due"
    return json.loads(line)


def ask(peer: LineClient, message: Any) -> Any:
    peer.send(message)
    return hear(peer)


def request(method: str, params: Any = (), **more: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params, **more}


def plain(response: Any) -> Any:
    """Without the data of errors, which the specification leaves to the server."""
    if isinstance(response, list):
        return [plain(one) for one in response]
    response.get("error", {}).pop("data", None)
    return response


# ---- The specification's examples, as they stand there; None: nothing is answered

PARSE_ERROR = '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}'
INVALID = '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'

EXAMPLES = {
    "by position": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        '{"jsonrpc": "2.0", "result": 19, "id": 1}',
    ),
    "by position, the other way round": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        '{"jsonrpc": "2.0", "result": -19, "id": 2}',
    ),
    "by name": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
        '{"jsonrpc": "2.0", "result": 19, "id": 3}',
    ),
    "by name, the other way round": (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
        '{"jsonrpc": "2.0", "result": 19, "id": 4}',
    ),
    "a notification": ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    "a notification of nothing": ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    "a method that is not there": (
        '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
        '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}',
    ),
    "invalid JSON": ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]', PARSE_ERROR),
    "an invalid request": ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}', INVALID),
    "a batch of invalid JSON": (
        '[ {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method" ]',
        PARSE_ERROR,
    ),
    "an empty array": ("[]", INVALID),
    "an invalid batch, but not empty": ("[1]", f"[{INVALID}]"),
    "an invalid batch": ("[1,2,3]", f"[{INVALID}, {INVALID}, {INVALID}]"),
    "a batch": (
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
        ]""",
        """[
        {"jsonrpc": "2.0", "result": 7, "id": "1"},
        {"jsonrpc": "2.0", "result": 19, "id": "2"},
        {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
        {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
        {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
        ]""",
    ),
    "a batch of notifications": (
        """[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
        ]""",
        None,
    ),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_an_example_of_the_specification(server: RunningServer, name: str) -> None:
    sent, expected = EXAMPLES[name]
    with server.connect() as peer:
        peer.send_bytes(sent.replace("\n", " ").encode() + b"\n")
        peer.end_sending()
        answered = []
        while (line := peer.line()) is not None:
            answered.append(plain(json.loads(line)))
    assert answered == ([] if expected is None else [json.loads(expected)])


def test_all_the_examples_on_one_connection(peer: LineClient) -> None:
    for sent, expected in EXAMPLES.values():
        peer.send_bytes(sent.replace("\n", " ").encode() + b"\n")
        if expected is not None:
            assert plain(hear(peer)) == json.loads(expected)
    assert ask(peer, PING) == PONG


# ---- Lines that can't be read


@pytest.mark.parametrize("text", [b"hello", b"{", b"\xff", b'{"jsonrpc":1,"jsonrpc":2}', b"[" * 100_000])
def test_what_is_no_json_is_answered_in_the_form_that_the_connection_has_spoken(peer: LineClient, text: bytes) -> None:
    if b"jsonrpc" not in text:
        peer.send_bytes(text + b"\n")
        assert hear(peer)["error"]["type"] == "InvalidMessage"
    assert ask(peer, PING) == PONG
    peer.send_bytes(text + b"\n")
    told = hear(peer)
    assert told["error"]["data"]["type"] == "InvalidMessage"
    assert told["error"]["code"] == -32700
    assert told["id"] is None


def test_a_line_of_the_own_protocol_is_still_answered_in_its_own(peer: LineClient) -> None:
    assert ask(peer, PING) == PONG
    assert ask(peer, {"function": "add", "args": [1, 2]}) == {"result": 3}
    assert ask(peer, {"id": 7, "function": "add", "args": [1, 2]}) == {"id": 7, "result": 3}


def test_an_array_of_anything_does_not_turn_a_connection_into_one_of_json_rpc(peer: LineClient) -> None:
    assert ask(peer, [{"function": "add"}])[0]["error"]["code"] == -32600
    assert ask(peer, {"function": "add", "timout": 1})["error"]["type"] == "InvalidMessage"


def test_a_line_that_is_too_long_is_told_before_the_connection_is_closed(strict: RunningServer) -> None:
    with strict.connect() as peer:
        assert ask(peer, PING) == PONG
        peer.send_bytes(b"x" * 200_001 + b"\n")
        told = hear(peer)
        assert (told["error"]["code"], told["error"]["data"]["type"], told["id"]) == (-32007, "LineTooLong", None)
        peer.end_sending()
        assert peer.line() is None


def test_what_is_nested_too_deeply_is_an_invalid_request_with_its_id(strict: RunningServer) -> None:
    with strict.connect() as peer:
        assert ask(peer, request("echo", [[[[]]]], id=1))["result"] == [[[]]]
        told = ask(peer, request("echo", [[[[[]]]]], id=2))
        assert (told["id"], told["error"]["code"]) == (2, -32600)
        assert told["error"]["data"]["message"] == "nested deeper than 5"
        told = ask(peer, [request("echo", [[[[]]]], id=2)])
        assert (told["id"], told["error"]["code"]) == (None, -32600)


# ---- Requests


@pytest.mark.parametrize("function", ["echo", "echo_in_process"])
@pytest.mark.parametrize("value", [None, -0.0, 10**30, "\u2028\0é", [[]], {"params": 1, "args": 2}])
def test_values_come_back_as_they_went_alone_and_in_a_batch(peer: LineClient, function: str, value: Any) -> None:
    assert repr(ask(peer, request(function, [value], id=1))["result"]) == repr(value)
    assert repr(ask(peer, request(function, {"value": value}, id=1))["result"]) == repr(value)
    told = ask(peer, [request(function, [value], id=1), request(function, {"value": value}, id=2)])
    assert [repr(one["result"]) for one in told] == [repr(value)] * 2


def test_a_large_line_is_taken_and_answered(peer: LineClient) -> None:
    rows = [{"id": number, "name": f"row {number}"} for number in range(20_000)]
    for function in ("echo", "echo_in_process"):
        assert ask(peer, request(function, [rows], id=1))["result"] == rows
        assert ask(peer, [request(function, [rows], id=1)])[0]["result"] == rows
    assert ask(peer, PING) == PONG


def test_a_python_keyword_binds_to_the_parameter_with_an_underscore(peer: LineClient) -> None:
    told = ask(peer, request("send_mail", {"from": "a@x", "to": "b@y", "class": 1}, id=1))
    assert told["result"] == {"from": "a@x", "to": "b@y", "rest": {"class": 1}}


@pytest.mark.parametrize("function", ["who", "echo", "echo_in_process"])
@pytest.mark.parametrize("id", [7, "7", "", 0, -1, 10**30, 1.5, None])
def test_an_id_is_echoed_as_it_was(peer: LineClient, function: str, id: Any) -> None:
    told = ask(peer, {"jsonrpc": "2.0", "method": function, "id": id})
    assert repr(told["id"]) == repr(id)
    if function == "who":
        assert told["result"]["id"] == id


def test_requests_are_answered_as_they_finish(peer: LineClient) -> None:
    peer.send(request("nap", [0.3], id=1), request("nap", [0.0], id=2))
    assert [hear(peer)["id"], hear(peer)["id"]] == [2, 1]


def test_several_may_have_an_id_of_null_or_a_fraction(peer: LineClient) -> None:
    peer.send(*(request("nap", [0.1], id=id) for id in (None, None, 1.0, 1.0, 1)))
    assert sorted(str(hear(peer)["id"]) for _ in range(5)) == ["1", "1.0", "1.0", "None", "None"]


def test_an_id_in_flight_twice_is_refused_whichever_protocol_it_is_of(peer: LineClient) -> None:
    peer.send(request("nap", [0.2], id=1), request("nap", [0.2], id=1), {"id": 1, "function": "nap", "args": [0.2]})
    told = hear(peer)
    assert (told["id"], told["error"]["code"]) == (1, -32600)
    assert "still in flight" in told["error"]["data"]["message"]
    assert "still in flight" in hear(peer)["error"]["message"]
    assert hear(peer) == {"jsonrpc": "2.0", "result": 0.2, "id": 1}


def test_a_generator_gives_an_array(peer: LineClient) -> None:
    assert ask(peer, request("count", [3], id=1))["result"] == [0, 1, 2]
    assert ask(peer, request("count_in_process", [3], id=1))["result"] == [0, 1, 2]


def test_progress_is_not_told(peer: LineClient) -> None:
    assert ask(peer, request("advance", [3], id=1)) == {"jsonrpc": "2.0", "result": 3, "id": 1}


# ---- Errors


@pytest.mark.parametrize(
    ("method", "params", "code", "message", "type"),
    [
        ("ad", [], -32601, "Method not found", "UnknownTask"),
        ("greentask.shutdown", [], -32601, "Method not found", "UnknownTask"),
        ("rpc.discover", [], -32601, "Method not found", "UnknownTask"),
        ("add", [1, 2, 3], -32602, "Invalid params", "InvalidArguments"),
        ("add_in_process", {"c": 1}, -32602, "Invalid params", "InvalidArguments"),
        ("greentask.ping", [1], -32602, "Invalid params", "InvalidArguments"),
        ("misbehave", ["nan"], -32603, "Internal error", "InvalidResult"),
        ("fail", ["no stock"], -32000, "no stock", "ValueError"),
        ("fail_in_process", ["no stock"], -32000, "no stock", "ValueError"),
        ("misbehave", ["unheard"], -32000, "of here only", "Unheard"),
        ("short_nap", [30], -32004, "the time ran out while the task ran", "DeadlineExceeded"),
        ("die", ["exit"], -32006, None, "WorkerLost"),
    ],
)
def test_an_error_has_its_code_and_says_more_in_its_data(
    peer: LineClient, method: str, params: Any, code: int, message: str | None, type: str
) -> None:
    for told in (ask(peer, request(method, params, id=1)), ask(peer, [request(method, params, id=1)])[0]):
        assert set(told) == {"jsonrpc", "error", "id"}
        assert told["error"]["code"] == code
        assert message is None or told["error"]["message"] == message
        assert told["error"]["data"]["type"] == type
        assert told["error"]["data"]["message"]


def test_tracebacks_are_sent_only_with_debug(peer: LineClient, strict: RunningServer) -> None:
    assert "traceback" not in ask(peer, request("fail", id=1))["error"]["data"]
    with strict.connect() as other:
        assert "ValueError: no stock" in ask(other, request("fail", id=1))["error"]["data"]["traceback"]


# ---- Notifications


def test_a_notification_runs_and_nobody_hears_of_it(peer: LineClient, server: RunningServer, tmp_path: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    peer.send(
        request("mark", [str(here)]),
        request("mark_in_process", [str(there)]),
        request("fail"),
        request("die"),
        request("add", [1, 2, 3]),
        request("ad"),
        request("misbehave", ["nan"]),
        request("greentask.ping", [1]),
    )
    wait_until(lambda: here.exists() and "ended" in here.read_text(), "the greenlet's ran")
    wait_until(lambda: there.exists() and "ended" in there.read_text(), "the process's ran")
    wait_until(lambda: server.status()["in_flight"] == 0, "all have ended")
    assert ask(peer, PING) == PONG


def test_a_connection_is_closed_when_its_notifications_have_ended(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    with server.connect() as peer:
        peer.send(request("mark", [str(file), 0.2]))
        peer.end_sending()
        assert peer.line() is None
    assert "ended" in file.read_text()


# ---- The server's own functions


def test_the_servers_own_functions_can_be_called(peer: LineClient) -> None:
    assert ask(peer, request("greentask.ping", {}, id=1))["result"] == "pong"
    assert ask(peer, request("greentask.status", id=1))["result"]["in_flight"] == 1
    told = ask(peer, [request("greentask.ping", id=1), request("greentask.tasks", id=2)])
    assert told[0]["result"] == "pong"
    assert "subtract" in {task["name"] for task in told[1]["result"]}


@pytest.mark.parametrize("function", ["nap", "nap_in_process"])
def test_a_request_can_be_cancelled_by_its_id(peer: LineClient, function: str) -> None:
    peer.send(request(function, [60], id="long"), request("greentask.cancel", ["long"], id="stop"))
    told = {one["id"]: one for one in (hear(peer), hear(peer))}
    assert told["stop"]["result"] is True
    assert told["long"]["error"]["code"] == -32005
    assert ask(peer, request("greentask.cancel", {"id": "long"}, id=1))["result"] is False


# ---- Batches


def test_a_batch_is_answered_in_one_line_in_its_order_when_all_are_done(peer: LineClient) -> None:
    peer.send([request("nap", [0.2], id=1), request("nap", [0.0], id=2)], request("nap", [0.0], id=3))
    assert hear(peer)["id"] == 3, "other requests are answered meanwhile"
    assert [one["id"] for one in hear(peer)] == [1, 2]


def test_the_requests_of_a_batch_run_at_the_same_time(peer: LineClient) -> None:
    began = time.monotonic()
    told = ask(peer, [request("nap", [0.3], id=number) for number in range(200)])
    assert [one["id"] for one in told] == list(range(200))
    assert time.monotonic() - began < 5, "one after another they take 60 s"


def test_a_large_batch_does_not_hold_up_others(server: RunningServer, peer: LineClient) -> None:
    def ask_for_all() -> None:
        peer.send([request("add", [number, 1], id=number) for number in range(5_000)])
        assert [one["result"] for one in hear(peer)] == list(range(1, 5_001))

    assert longest_hold(server, ask_for_all) < 0.5


def test_a_batch_is_one_call_in_flight_and_keeps_to_max_in_flight(narrow: RunningServer) -> None:
    with narrow.connect() as peer:
        began = time.monotonic()
        peer.send([request("nap", [0.1], id=number) for number in range(6)])
        wait_until(lambda: narrow.status()["in_flight"] == 1, "it runs")
        assert len(hear(peer)) == 6
        assert time.monotonic() - began > 0.25, "three rounds of naps"
        peer.send(*(request("nap", [0.1], id=number) for number in range(6)))
        assert {hear(peer)["id"] for _ in range(6)} == set(range(6)), "the rest waits, none is refused"


def test_what_a_batch_holds_is_bounded(narrow: RunningServer) -> None:
    with narrow.connect() as peer:
        before = narrow.memory()
        told = ask(peer, [request("large", [1_000], id=number) for number in range(20_000)])
        assert (told["id"], told["error"]["code"]) == (None, -32603)
        assert "send smaller batches, or raise max_unsent" in told["error"]["data"]["message"]
        told = ask(peer, [1] * 1_000_000)
        assert (told["id"], told["error"]["code"]) == (None, -32603)
        assert len(ask(peer, [request("large", [1_000], id=number) for number in range(400)])) == 400
        assert ask(peer, PING) == PONG
        assert narrow.memory() - before < 150_000_000
        assert narrow.status()["in_flight"] == 0


def test_a_peer_that_goes_away_leaves_nothing_behind(server: RunningServer) -> None:
    for _ in range(5):
        peer = server.connect()
        peer.send([request("nap", [0.1], id=number) for number in range(1_000)], request("nap", [0.1]))
        wait_until(lambda: server.status()["in_flight"] > 0, "they run")
        peer.reset()
    wait_until(lambda: server.status()["in_flight"] == 0 and server.status()["connections"] == 0, "all is freed")


def test_what_a_broken_connection_began_is_cancelled_where_that_is_wanted(
    strict: RunningServer, tmp_path: Path
) -> None:
    alone, batched = tmp_path / "alone", tmp_path / "batched"
    peer = strict.connect()
    peer.send(request("mark", [str(alone), 60]), [request("mark", [str(batched), 60], id=1)] * 600)
    wait_until(lambda: alone.exists() and batched.exists(), "they run")
    peer.reset()
    wait_until(lambda: "CancelRequest" in alone.read_text(), "it was cancelled")
    wait_until(lambda: strict.status()["in_flight"] == 0, "all were cancelled")
    assert batched.read_text().count("started") <= 256


# ---- Overload and the end


def test_requests_past_max_calls_are_refused_alone_and_in_a_batch(narrow: RunningServer, tmp_path: Path) -> None:
    begun = [tmp_path / str(number) for number in range(3)]  # to ask for the status would be a call more
    with narrow.connect() as peer, narrow.connect() as other, narrow.connect() as third:
        other.send(*(request("mark", [str(begun[number]), 1.5], id=number) for number in range(2)))
        third.send(request("mark", [str(begun[2]), 1.5], id=2))
        wait_until(lambda: all(file.exists() for file in begun), "it is full")
        told = ask(peer, request("add", [1], id=1))
        assert (told["error"]["code"], told["error"]["data"]["type"]) == (-32001, "Overloaded")
        told = ask(peer, [request("add", [1], id=1), request("greentask.ping", id=2), request("add", [1]), 1])
        assert [one.get("result") or one["error"]["code"] for one in told] == [-32001, "pong", -32600]
        assert all("result" in hear(one) for one in (other, other, third))


def test_a_connection_full_of_streams_refuses_requests(narrow: RunningServer) -> None:
    with narrow.connect() as peer:
        peer.send(*({"id": id, "function": "count", "args": [5], "stream": 1} for id in "ab"))
        assert sorted(hear(peer)["id"] for _ in range(2)) == ["a", "b"]
        assert ask(peer, request("add", [1], id=1))["error"]["code"] == -32001
        assert ask(peer, [request("add", [1], id=1)])[0]["error"]["code"] == -32001
        assert ask(peer, PING) == PONG


def test_who_drains_answers_what_is_in_flight_and_refuses_what_is_new(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with serving() as server:
        with server.connect() as peer:
            peer.send(request("wait_for_file", [str(gate)], id=1), [request("wait_for_file", [str(gate)], id=2)])
            wait_until(lambda: server.status()["in_flight"] == 2, "they run")
            server.process.terminate()
            wait_until(lambda: ask(peer, request("add", [1], id=3)).get("error"), "it drains")
            told = ask(peer, request("add", [1], id=3))
            assert (told["error"]["code"], told["error"]["data"]["type"]) == (-32002, "Draining")
            assert ask(peer, [request("add", [1], id=3)])[0]["error"]["code"] == -32002
            gate.touch()
            ended = [hear(peer), hear(peer)]
            assert {"jsonrpc": "2.0", "result": "there", "id": 1} in ended
            assert [{"jsonrpc": "2.0", "result": "there", "id": 2}] in ended
            goodbye = hear(peer)
            assert (goodbye["error"]["code"], goodbye["id"]) == (-32002, None)
            assert peer.line() is None
        assert server.wait() == 0
