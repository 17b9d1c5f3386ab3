"""JSON-RPC 2.0 over a real connection: the specification's own examples, and what it leaves open."""

import json
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.servers import LineClient, RunningServer, is_goodbye, serving, wait_until


@pytest.fixture(scope="module")
def notes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("rpc") / "notes"


@pytest.fixture(scope="module")
def server(notes: Path) -> Iterator[RunningServer]:
    options = ("--max-unsent", "1000000")
    with serving(*options, apps=["support.rpc_tasks"], GREENTASK_TEST_NOTES=str(notes)) as server:
        yield server
        assert "Traceback" not in server.output()


@pytest.fixture
def peer(server: RunningServer) -> Iterator[LineClient]:
    with server.connect() as peer:
        yield peer


def hear(peer: LineClient) -> Any:
    line = peer.line()
    assert line is not None
    return json.loads(line)


def without_data(answer: Any) -> Any:
    """An answer as the specification's examples have it: ours says more, in the error's ``data``."""
    if isinstance(answer, list):
        return [without_data(one) for one in answer]
    if "error" in answer:
        return {**answer, "error": {key: value for key, value in answer["error"].items() if key != "data"}}
    return answer


def in_any_order(answers: Any) -> Any:
    return sorted(answers, key=json.dumps) if isinstance(answers, list) else answers


# ---- The specification's examples (section 7), as they stand there

EXAMPLES = {
    "positional parameters": [
        ('{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
         '{"jsonrpc": "2.0", "result": 19, "id": 1}'),
        ('{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
         '{"jsonrpc": "2.0", "result": -19, "id": 2}'),
    ],
    "named parameters": [
        ('{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23, "minuend": 42}, "id": 3}',
         '{"jsonrpc": "2.0", "result": 19, "id": 3}'),
        ('{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42, "subtrahend": 23}, "id": 4}',
         '{"jsonrpc": "2.0", "result": 19, "id": 4}'),
    ],
    "a notification": [
        ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
        ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    ],
    "a method that is not there": [
        ('{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
         '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "1"}'),
    ],
    "invalid JSON": [
        ('{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
         '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}'),
    ],
    "an invalid request": [
        ('{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
         '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'),
    ],
    "a batch of invalid JSON": [
        ('[ {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"}, {"jsonrpc": "2.0", "method" ]',
         '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"}, "id": null}'),
    ],
    "an empty array": [
        ("[]", '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}'),
    ],
    "an invalid batch, which is not empty": [
        ("[1]", '[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]'),
    ],
    "an invalid batch": [
        ("[1,2,3]",
         '[{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},'
         '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},'
         '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}]'),
    ],
    "a batch": [
        ('[{"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},'
         '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},'
         '{"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},'
         '{"foo": "boo"},'
         '{"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},'
         '{"jsonrpc": "2.0", "method": "get_data", "id": "9"}]',
         '[{"jsonrpc": "2.0", "result": 7, "id": "1"},'
         '{"jsonrpc": "2.0", "result": 19, "id": "2"},'
         '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},'
         '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},'
         '{"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}]'),
    ],
    "a batch of notifications": [
        ('[{"jsonrpc": "2.0", "method": "notify_hello", "params": [1,2,4]},'
         '{"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}]', None),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_specifications_examples(peer: LineClient, notes: Path, name: str) -> None:
    for sent, answered in EXAMPLES[name]:
        peer.send_bytes(sent.replace("\n", "").encode() + b"\n")
        if answered is not None:
            assert in_any_order(without_data(hear(peer))) == in_any_order(json.loads(answered))
    assert peer.ask({"function": "greentask.ping"}) == {"result": "pong"}, "and nothing else was answered"


def test_notifications_run(peer: LineClient, notes: Path) -> None:
    peer.send({"jsonrpc": "2.0", "method": "update", "params": ["this one"]})
    wait_until(lambda: notes.exists() and "update('this one',)" in notes.read_text(), "it has run")


# ---- What the specification leaves to us


@pytest.mark.parametrize("id", [0, -1, 2**70, 1.5, "", 'é"\\', None])
def test_the_id_comes_back_as_it_was(peer: LineClient, id: object) -> None:
    peer.send({"jsonrpc": "2.0", "method": "subtract", "params": [3, 1], "id": id})
    assert hear(peer) == {"jsonrpc": "2.0", "result": 2, "id": id}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"id": True}, "id must be a string, a number or null"),
        ({"id": []}, "id must be a string, a number or null"),
        ({"id": "x" * 1001}, "id is longer than 1000 characters"),
        ({"jsonrpc": "1.0"}, 'jsonrpc must be "2.0"'),
        ({"jsonrpc": 2.0}, 'jsonrpc must be "2.0"'),
        ({"method": None}, "method must be a string"),
        ({"params": 1}, "params must be an array or an object"),
        ({"params": None}, "params must be an array or an object"),
    ],
)
def test_what_is_no_request_is_told_what_is_wrong(peer: LineClient, changes: dict[str, object], told: str) -> None:
    peer.send({"jsonrpc": "2.0", "method": "subtract", "params": [3, 1], "id": 1, **changes})
    answer = hear(peer)
    assert answer["error"]["code"] == -32600
    assert answer["error"]["data"] == {"type": "InvalidMessage", "message": told}
    assert answer["id"] == (None if "id" in changes else 1)


@pytest.mark.parametrize(
    ("method", "params", "code", "type"),
    [
        ("subtract", [1], -32602, "InvalidArguments"),
        ("subtract", {"minuend": 1, "nonsense": 2}, -32602, "InvalidArguments"),
        ("subtract_in_process", [1], -32602, "InvalidArguments"),
        ("short_nap", [30], -32003, "DeadlineExceeded"),
        ("die", [], -32005, "WorkerLost"),
        ("large", [1_000_001], -32006, "InvalidResult"),
        ("fail", [], -32099, "LookupError"),
        ("os.system", ["true"], -32601, "UnknownTask"),
        ("rpc.discover", [], -32601, "UnknownTask"),
    ],
)
def test_errors_have_their_code_and_our_type(
    peer: LineClient, method: str, params: object, code: int, type: str
) -> None:
    peer.send({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
    error = hear(peer)["error"]
    assert (error["code"], error["data"]["type"]) == (code, type)


def test_processes_keywords_and_our_own_functions(peer: LineClient) -> None:
    for method, params, result in (
        ("subtract_in_process", {"minuend": 5, "subtrahend": 3}, 2),
        ("greet", {"from": "me"}, "from me"),
        ("greentask.ping", [], "pong"),
    ):
        peer.send({"jsonrpc": "2.0", "method": method, "params": params, "id": 1})
        assert hear(peer) == {"jsonrpc": "2.0", "result": result, "id": 1}


def test_answers_come_as_they_are_ready_beside_other_calls(peer: LineClient) -> None:
    peer.send(
        {"jsonrpc": "2.0", "method": "nap", "params": [0.3], "id": "slow"},
        {"jsonrpc": "2.0", "method": "subtract", "params": [3, 1], "id": "quick"},
        {"function": "subtract", "args": [4, 1], "id": 7},
    )
    heard = [hear(peer) for _ in range(3)]
    assert heard[2] == {"jsonrpc": "2.0", "result": 0.3, "id": "slow"}
    assert {"id": 7, "result": 3} in heard


def test_a_large_batch_is_answered_in_one_line_within_the_limits(peer: LineClient, server: RunningServer) -> None:
    count = 3000
    peer.send([{"jsonrpc": "2.0", "method": "subtract", "params": [n, 1], "id": n} for n in range(count)])
    answers = hear(peer)
    assert {one["id"]: one["result"] for one in answers} == {n: n - 1 for n in range(count)}
    peer.send([{"jsonrpc": "2.0", "method": "large", "params": [300_000], "id": n} for n in range(5)])
    answers = hear(peer)
    assert sum("result" in one for one in answers) == 3
    assert {one["error"]["data"]["type"] for one in answers if "error" in one} == {"InvalidResult"}


def test_at_most_so_many_of_a_batch_run_at_once() -> None:
    options = ("--max-in-flight", "5")
    with serving(*options, apps=["support.rpc_tasks"]) as server, server.connect() as peer, server.connect() as other:
        peer.send([{"jsonrpc": "2.0", "method": "nap", "params": [0.2], "id": n} for n in range(12)])
        assert other.call("greentask.ping") == "pong"
        assert len(hear(peer)) == 12


def test_a_draining_server_answers_what_is_in_flight() -> None:
    with serving(apps=["support.rpc_tasks"]) as server, server.connect() as peer:
        peer.send({"jsonrpc": "2.0", "method": "nap", "params": [0.5], "id": 1})
        wait_until(lambda: server.status()["in_flight"] == 1, "it runs")
        server.signal(signal.SIGTERM)
        wait_until(lambda: "draining" in server.output(), "it drains")
        peer.send({"jsonrpc": "2.0", "method": "subtract", "params": [3, 1], "id": 2})
        refused = hear(peer)
        assert (refused["error"]["code"], refused["error"]["data"]["type"], refused["id"]) == (-32001, "Draining", 2)
        assert hear(peer) == {"jsonrpc": "2.0", "result": 0.5, "id": 1}
        assert is_goodbye(peer.hear())
        assert server.wait() == 0


def test_cancelled_where_the_connection_breaks_and_that_is_wanted() -> None:
    with serving("--cancel-abandoned", apps=["support.rpc_tasks"]) as server:
        peer = server.connect()
        peer.send(
            {"jsonrpc": "2.0", "method": "nap", "params": [60], "id": 1},
            [{"jsonrpc": "2.0", "method": "nap", "params": [60], "id": n} for n in range(300)],
        )
        wait_until(lambda: server.status()["in_flight"] == 2, "they run")
        peer.reset()
        wait_until(lambda: server.status()["in_flight"] == 0, "they are cancelled")
