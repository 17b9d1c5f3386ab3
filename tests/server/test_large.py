"""Lines that are large: read and answered in turns with everybody else's, and as any other."""

import json
import threading
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.servers import LineClient, RunningServer, module_server, serving, wait_until

pytestmark = pytest.mark.once

RECORDS = [{"id": number, "name": "é\n,]" * 5, "parts": [number, {"a": []}]} for number in range(4_000)]
VALUES = {
    "records": RECORDS,
    "text": '€,"\\' * 50_000,
    "numbers": list(range(50_000)),
    "object": {"a": {"b": RECORDS}},
}


server = module_server("--max-line", str(4 * 1024 * 1024))


def to_line(message: Any) -> bytes:
    return json.dumps(message, ensure_ascii=False).encode() + b"\n"


@pytest.mark.parametrize("function", ["echo", "echo_in_process"])
@pytest.mark.parametrize("name", VALUES)
def test_a_large_line_is_answered(peer: LineClient, function: str, name: str) -> None:
    value = VALUES[name]
    for message in (
        {"id": 1, "function": function, "args": {"value": value}},
        {"args": [value], "timeout": 60, "function": function, "id": "behind"},
        {"function": function, "args": [value]},
    ):
        line = to_line(message)
        assert len(line) > 100_000
        peer.send_bytes(line)
        reply = peer.hear()
        assert reply.pop("id", None) == message.get("id")
        assert reply == {"result": value}


def test_lines_around_a_large_one_keep_their_order(peer: LineClient) -> None:
    small, large = {"function": "add", "args": [1, 2]}, {"function": "echo", "args": [RECORDS]}
    sender = threading.Thread(target=peer.send_bytes, args=(to_line(small) + to_line(large) + to_line(small),))
    sender.start()
    assert [peer.hear() for _ in range(3)] == [{"result": 3}, {"result": RECORDS}, {"result": 3}]
    sender.join()


@pytest.mark.parametrize("function", ["echo", "echo_in_process"])
def test_what_is_wrong_in_a_large_line_is_refused_by_its_id(peer: LineClient, function: str) -> None:
    text = to_line({"id": 7, "function": function, "args": [RECORDS]})
    deep = b'{"id":7,"function":"%b","args":%b%b}\n' % (function.encode(), b"[1," * 250 + b"0", b"]" * 250)
    for line, says, id in (
        (text.replace(b'"id": 3999', b'"id": 1e999'), "1e999 is beyond a float's range", None),
        (text.replace(b'"id": 3999', b'"name": 1'), "key", None),
        (text.replace(b"3999", b"3999,", 1), "not JSON", None),
        (text.replace(b'"id": 3999', b'"\\ud800": 1'), "lone surrogate", 7),
        (deep[:-2] + b"," + b" " * 100_000 + b'"timeout":1}\n', "nested deeper than 200", 7),
        (text[:-2] + b',"tiemout":1}\n', 'unknown member "tiemout"', 7),
        (text.replace(b'"args"', b'"argz"'), 'unknown member "argz"', 7),
    ):
        peer.send_bytes(line)
        reply = peer.hear()
        assert reply["error"]["type"] == "InvalidMessage"
        assert says in reply["error"]["message"]
        assert reply.get("id") == id


def test_a_large_batch_is_run(peer: LineClient) -> None:
    peer.send({"id": 1, "function": "length", "batch": [["x" * 1000]] * 500})
    replies = peer.hear_all(501)
    assert sorted(reply["index"] for reply in replies[:-1]) == list(range(500))
    assert all(reply["result"] == 1000 for reply in replies[:-1])
    assert replies[-1] == {"id": 1, "result": {"done": 500, "failed": 0}}


@pytest.mark.slow
@pytest.mark.parametrize("is_rpc", [False, True])
def test_large_lines_in_flight_on_one_connection_are_bounded(
    server: RunningServer, tmp_path: Path, is_rpc: bool
) -> None:
    """Four times the longest line; whoever sends more waits, and the server's memory doesn't grow with it."""
    gate = tmp_path / "gate"
    line = to_line({"function": "mark_in_process", "args": {"file": str(gate), "seconds": 0}})
    large = to_line({"id": 1, "function": "nap_in_process", "args": {"seconds": 3.0}})
    padded = to_line({"function": "echo_in_process", "args": ["x" * 4_000_000]})
    if is_rpc:
        padded = to_line({"jsonrpc": "2.0", "id": None, "method": "echo_in_process", "params": ["x" * 4_000_000]})
    with server.connect() as hogs, server.connect() as peer:
        for id in range(2):  # both processes are busy
            hogs.send_bytes(large.replace(b"1,", b"%d," % id, 1))
        before = server.memory()
        sent = threading.Thread(target=_send_all, args=(peer, [padded] * 30 + [line]))
        sent.start()
        wait_until(lambda: server.status()["in_flight"] >= 6)
        began = time.monotonic()
        while time.monotonic() < began + 0.3:
            assert server.status()["in_flight"] <= 8
            assert server.memory() < before + 100_000_000
            time.sleep(0.02)
        results = [peer.hear()["result"] for _ in range(31)]  # in any order, where it is JSON-RPC
        assert sorted(map(len, results)) == [len("marked"), *[4_000_000] * 30]
        sent.join()


def _send_all(peer: LineClient, lines: list[bytes]) -> None:
    for line in lines:
        peer.send_bytes(line)


@pytest.mark.slow
def test_who_asks_for_many_large_results_holds_up_nobody_and_does_not_fill_the_memory(tmp_path: Path) -> None:
    size, calls = 4_000_000, 150
    (tmp_path / "mine.py").write_text(
        "from greentask import task\n\n\n@task\ndef text(size):\n    return 'x' * size\n\n\n"
        "@task\ndef ping():\n    return 1\n"
    )
    with serving("--max-unsent", str(16 * size), apps=["mine"], cwd=tmp_path) as server:
        front = psutil.Process(server.pid)
        before = front.memory_info().rss
        with server.connect() as greedy, server.connect() as honest:
            greedy.send(*({"id": number, "function": "text", "args": [size]} for number in range(calls)))
            took, most = [], 0
            for _ in range(30):
                began = time.monotonic()
                assert honest.ask({"function": "ping"}) == {"result": 1}
                took.append(time.monotonic() - began)
                most = max(most, front.memory_info().rss - before)
            assert max(took) < 1.5, "a few steps, and not one of each of them"
            assert most < 60 * size, "what nobody has read yet, and a few that are being written"
