"""Calls with much in them, or in their answers: everybody else goes on meanwhile."""

import json
import threading
from typing import Any

import pytest

from greentask import Client, ConnectionLost, InvalidArguments, InvalidResult, LineTooLong
from greentask.client import large
from support.peers import peer
from support.programs import run_source
from support.servers import LineClient, RunningServer, serving, wait_until

NUMBERS = list(range(400_000))  # 2.7 MB
ROWS = [{"name": f"row {number}", "parts": [number, None, True]} for number in range(20_000)]
VALUES = {"numbers": NUMBERS, "rows": ROWS, "text": "\u20ac" * 500_000, "deep": {"a": {"b": ROWS}}}


def answer(id: int, result: Any, **more: Any) -> bytes:
    return json.dumps({"id": id, "result": result, **more}, separators=(",", ":")).encode() + b"\n"


@pytest.mark.parametrize(
    "value", [NUMBERS, ROWS, "\u20ac" * 500_000, {"a": {"b": ROWS}}], ids=["numbers", "rows", "text", "deep"]
)
def test_there_and_back(client: Client, value: Any) -> None:
    assert client.call("echo", value) == value
    assert client.submit("echo", value=value).result() == value
    assert list(client.map("echo", [value, 1, value])) == [value, 1, value]


def test_other_answers_of_the_connection_are_heard_while_a_large_one_is_read() -> None:
    def behave(connection: LineClient) -> None:
        first, second = connection.hear(), connection.hear()
        connection.send_bytes(answer(first["id"], NUMBERS) + answer(second["id"], 2))
        third = connection.hear()
        connection.send({"id": third["id"], "result": 3})

    with peer(behave) as server, Client(server.address) as client:
        first, second = client.submit("f"), client.submit("f")
        before: list[bool] = []
        second.add_done_callback(lambda _: before.append(first.done()))
        assert second.result(20) == 2
        assert client.call("f") == 3
        assert first.result(20) == NUMBERS
        assert before == [False]


def test_what_has_come_before_the_connections_end_is_an_answer() -> None:
    def behave(connection: LineClient) -> None:
        first, _ = connection.hear(), connection.hear()
        connection.send_bytes(answer(first["id"], NUMBERS))

    with peer(behave) as server, Client(server.address) as client:
        first, second = client.submit("f"), client.submit("f")
        assert first.result(20) == NUMBERS
        with pytest.raises(ConnectionLost, match="closed the connection before it answered"):
            second.result(20)


def test_a_server_that_goes_away_behind_a_large_answer_has_answered() -> None:
    calls: list[Any] = []

    def behave(connection: LineClient) -> None:
        calls.append(first := connection.hear())
        told = {"error": {"type": "Draining", "message": "goes away"}}
        connection.send_bytes(answer(first["id"], NUMBERS) + json.dumps(told).encode() + b"\n")
        assert connection.line() is None

    with peer(behave) as server, Client(server.address) as client:
        assert client.call("f") == NUMBERS
        assert len(calls) == 1


def test_the_items_of_a_stream_keep_their_order() -> None:
    def behave(connection: LineClient) -> None:
        id = connection.hear()["id"]
        for item in (ROWS, 1, ROWS, 2):
            connection.send_bytes(json.dumps({"id": id, "item": item}, separators=(",", ":")).encode() + b"\n")
        connection.send({"id": id, "result": {"items": 4}})

    with peer(behave) as server, Client(server.address) as client:
        assert list(client.stream("f")) == [ROWS, 1, ROWS, 2]


def test_a_large_line_that_is_no_reply_ends_the_connection() -> None:
    def behave(connection: LineClient) -> None:
        connection.send_bytes(answer(connection.hear()["id"], NUMBERS).replace(b"399999", b"39999,"))
        assert connection.line() is None

    refused = pytest.raises(ConnectionLost, match="no reply of a greentask server: not JSON")
    with peer(behave) as server, Client(server.address) as client, refused:
        client.call("f")


def test_no_more_is_read_at_a_time_than_a_line_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    most: list[int] = []
    read = large.LargeAnswers._read

    def look(self: large.LargeAnswers, text: bytes) -> None:
        most.append(self._size)
        read(self, text)

    monkeypatch.setattr(large.LargeAnswers, "_read", look)

    def behave(connection: LineClient) -> None:
        ids = [connection.hear()["id"] for _ in range(6)]
        connection.send_bytes(b"".join(answer(id, "x" * 500_000) for id in ids))

    with peer(behave) as server, Client(server.address, max_line=1_100_000) as client:
        assert [len(one.result(20)) for one in [client.submit("f") for _ in range(6)]] == [500_000] * 6
    assert max(most) <= 1_100_000
    assert len(most) == 6


def test_what_can_not_be_sent_is_told_as_ever(client: Client, server: RunningServer) -> None:
    with pytest.raises(InvalidArguments, match=r"echo: args\['value'\]\[20000\] is a set"):
        client.call("echo", value=[*ROWS, set()])
    with Client(server.address, max_line=1_000_000) as narrow, pytest.raises(LineTooLong, match="max_line is 1000000"):
        narrow.call("echo", NUMBERS)


# ---- Answers that are longer than max_line


TOO_LONG = r"the answer is longer than max_line \(10000 bytes\): return less at once, or raise it"


def test_an_answer_that_is_too_long_is_the_error_of_its_call_alone(server: RunningServer, observer: LineClient) -> None:
    with Client(server.address, max_line=10_000) as client:
        other = client.submit("nap", 0.3)
        for size in (10_000, 70_000, 1_000_000):  # it ends with what is read at once, or long after that
            with pytest.raises(InvalidResult, match=TOO_LONG):
                client.call("large", size)
        assert other.result(20) == 0.3
        results = list(client.map("large", [1, 20_000, 2, 3, 20_000, 4] * 20, return_exceptions=True))
        assert [len(one) if isinstance(one, str) else type(one) for one in results] == [
            *(1, InvalidResult, 2, 3, InvalidResult, 4) * 20
        ]
        items = client.stream("growing", 200)
        assert [len(next(items)) for _ in range(10)] == list(range(0, 10_000, 1000))
        with pytest.raises(InvalidResult, match=TOO_LONG):
            next(items)
        wait_until(lambda: observer.call("greentask.status")["in_flight"] == 1, "the rest of the stream is cancelled")
        assert client.call("echo", 1) == 1
        assert observer.call("greentask.status")["connections"] == 2, "it is the first connection still"


def test_large_results_come_as_they_are_read_however_many_are_wanted() -> None:
    with serving("--max-unsent", "4000000", apps=["support.server_tasks"]) as server, Client(server.address) as client:
        assert list(map(len, client.map("large", [3_000_000] * 20))) == [3_000_000] * 20


def test_who_is_cut_off_for_what_it_has_not_read_is_told_what_to_do() -> None:
    options = ("--max-unsent", "4000000", "--read-timeout", "0.5")
    with serving(*options, apps=["support.server_tasks"]) as server, Client(server.address) as client:
        futures = [client.submit("large", 3_000_000) for _ in range(20)]
        # It is called in the client's hub, which hears nothing meanwhile.
        futures[0].add_done_callback(lambda _: wait_until(lambda: "(read_timeout" in server.output(), "it is cut off"))
        with pytest.raises(
            ConnectionLost, match=r"this program did not read \(read_timeout, max_unsent\); then let its"
        ):
            [future.result(20) for future in futures]


def test_one_that_nobody_waits_for_and_a_report_are_left_out() -> None:
    def behave(connection: LineClient) -> None:
        id = connection.hear()["id"]
        text = "x" * 100_000
        connection.send({"id": id, "progress": {"note": text}}, {"id": id + 1, "result": text}, {"id": id, "result": 7})

    heard: list[object] = []
    with peer(behave) as server, Client(server.address, max_line=10_000) as client:
        assert client.using(progress=heard.append).call("f") == 7
    assert heard == []


def test_a_hub_and_who_reads_answers_write_in_one_go(client: Client) -> None:
    """Nothing would run meanwhile that they must not wait for."""
    sent: list[Any] = []
    first = client.submit("echo", 1)
    first.add_done_callback(lambda _: sent.append(client.submit("echo", ROWS)))
    wait_until(lambda: sent)
    assert sent[0].result(20) == ROWS


def test_other_threads_run_while_a_thread_writes_a_large_call(client: Client) -> None:
    turns: list[int] = []
    done = threading.Event()

    def others() -> None:
        while not done.is_set():
            turns.append(client.call("echo", 1))

    other = threading.Thread(target=others)
    other.start()
    wait_until(lambda: turns)
    try:
        assert client.call("echo", NUMBERS) == NUMBERS
    finally:
        done.set()
        other.join()


PATCHED = """
import sys
import gevent
from greentask import Client
client, turns, running = Client(sys.argv[1], max_line=1 << 26), 0, True
client.call("echo", 1)
def others():
    global turns
    while running:
        gevent.sleep(0.001)
        turns += 1
other = gevent.spawn(others)
gevent.sleep(0.01)
numbers = list(range(300_000))

def turns_of(function):
    before = turns
    function()
    return turns - before > 10

futures = []
print(turns_of(lambda: futures.append(client.submit("length", numbers))))
print(futures[0].result() == 300_000)
print(turns_of(lambda: client.call("length", value=numbers)))
print(turns_of(lambda: client.call("large", 3_000_000)))
print(list(client.map("length", [numbers, [1]])) == [300_000, 1])
"""


def test_in_a_patched_program_the_other_greenlets_have_their_turns(server: RunningServer) -> None:
    assert run_source(PATCHED, server.address, patched=True) == ["True"] * 5
