"""What a server must survive from its network, its operators and strangers: one test (or group) for each fault.

N: the network, O: operations, S: strangers. What concerns clients is tested with them.
"""

import json
import os
import pickle
import re
import resource
import select
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from support.parts import descriptors
from support.programs import environment
from support.servers import LineClient, RunningServer, serving, wait_until

pytestmark = pytest.mark.once

MB = 1_000_000


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving("--debug", "--max-line", str(MB), "--max-unsent", str(MB), "--read-timeout", "2") as server:
        yield server


def open_files(server: RunningServer) -> int:
    return psutil.Process(server.pid).num_fds()


def is_idle(server: RunningServer) -> bool:
    status = server.status()
    return not (status["connections"] or status["in_flight"] or status["processes"]["busy"])


# ---- N1: bytes one at a time; a line cut anywhere; 10,000 lines in one segment

CALLS = (
    b'{"function":"add","args":[1,2]}\r\n'
    b'{"function":"echo","args":{"value":"t\xc3\xa2che"}}\n'
    b"\n"
    b'nonsense\n{"function":"add","args":{"a":3}}\n'
)


def is_answer_to_calls(replies: list[dict[str, Any]]) -> bool:
    assert [reply.get("result") for reply in replies] == [3, "tâche", None, 3]
    return bool(replies[2]["error"]["type"] == "InvalidMessage")


def test_n1_bytes_that_come_one_at_a_time(peer: LineClient, server: RunningServer) -> None:
    with server.connect() as other:
        for byte in CALLS:
            peer.send_bytes(bytes([byte]))
            assert other.call("greentask.ping") == "pong", "by now the server has read it"
    assert is_answer_to_calls(peer.hear_all(4))


def test_n1_a_line_that_is_cut_anywhere(peer: LineClient, server: RunningServer) -> None:
    with server.connect() as other:
        for cut in range(1, len(CALLS), 2):
            peer.send_bytes(CALLS[:cut])
            assert other.call("greentask.ping") == "pong"
            peer.send_bytes(CALLS[cut:])
            assert is_answer_to_calls(peer.hear_all(4))


@pytest.mark.parametrize("function", ["add", "add_in_process"])
def test_n1_10_000_lines_in_one_segment(peer: LineClient, function: str) -> None:
    calls = [{"id": number, "function": function, "args": [number, 1]} for number in range(10_000)]
    sending = threading.Thread(target=peer.send, args=calls)
    sending.start()
    replies = peer.hear_all(10_000)
    sending.join()
    assert sorted((reply["id"], reply["result"]) for reply in replies) == [(n, n + 1) for n in range(10_000)]


def test_n1_10_000_lines_without_id_in_one_segment(peer: LineClient) -> None:
    sending = threading.Thread(
        target=peer.send, args=[{"function": "add", "args": [number, 1]} for number in range(10_000)]
    )
    sending.start()
    assert [reply["result"] for reply in peer.hear_all(10_000)] == list(range(1, 10_001))
    sending.join()


# ---- N2: RST in the middle of a line, of a reply, of a progress stream


def test_n2_a_reset_frees_what_the_connection_had(server: RunningServer, tmp_path: Path) -> None:
    wait_until(lambda: is_idle(server), "other tests' calls are over")
    before = open_files(server)

    def in_a_line(peer: LineClient) -> None:
        peer.send_bytes(b'{"function":"echo","args":["' + b"x" * 1000)

    def in_a_reply(peer: LineClient) -> None:
        peer.send({"id": 1, "function": "large", "args": [MB - 1000]})
        assert peer.socket.recv(10)

    def in_a_progress_stream(peer: LineClient) -> None:
        peer.send({"id": 1, "function": "advance", "args": {"to": 10, "pause": 0.02}, "progress": True})
        assert "progress" in peer.hear()

    def in_a_progress_stream_of_a_process(peer: LineClient) -> None:
        peer.send({"id": 1, "function": "advance_in_process", "args": {"to": 10, "pause": 0.02}, "progress": True})
        assert "progress" in peer.hear()

    def in_a_batch(peer: LineClient) -> None:
        peer.send({"id": 1, "function": "add", "batch": [[1, 2]] * 5000})
        assert "result" in peer.hear()

    def in_a_stream(peer: LineClient) -> None:
        peer.send({"id": 1, "function": "count", "args": [10_000], "stream": 100})
        assert "item" in peer.hear()

    for what in (
        in_a_line,
        in_a_reply,
        in_a_progress_stream,
        in_a_progress_stream_of_a_process,
        in_a_batch,
        in_a_stream,
    ):
        peer = server.connect(receive_buffer=4096)
        what(peer)
        peer.reset()
        wait_until(lambda: is_idle(server) and open_files(server) <= before, f"{what.__name__}: all is freed")


def test_n2_the_task_of_a_connection_that_was_reset_goes_on(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    with server.connect() as peer:
        peer.send({"id": 1, "function": "mark", "args": [str(file), 0.3]})
        wait_until(lambda: file.exists() and file.read_text(), "it runs")
        peer.reset()
    wait_until(lambda: file.read_text() == "started\nended\n", "it has ended well")


# ---- N3: half-close after the last call


def test_n3_a_peer_that_shuts_down_its_side_gets_all_its_answers(peer: LineClient) -> None:
    peer.send(
        {"id": 1, "function": "nap", "args": [0.2]},
        {"id": 2, "function": "nap_in_process", "args": [0.2]},
        {"function": "nap", "args": [0.1]},
        {"id": 3, "function": "nap", "batch": [[0.1], [0.2]]},
        {"id": 4, "function": "count", "args": [3], "stream": True},
        {"id": 5, "function": "large", "args": [MB // 2]},
        "nonsense",
    )
    peer.end_sending()
    replies = peer.hear_rest()
    assert Counter(reply.get("id") for reply in replies) == {1: 1, 2: 1, None: 2, 3: 3, 4: 4, 5: 1}


def test_n3_the_last_line_needs_its_newline(peer: LineClient) -> None:
    peer.send_bytes(b'{"function":"add","args":[1]}\n{"function":"add","args":[2]}')
    peer.end_sending()
    assert peer.hear_rest() == [{"result": 1}], "half a call is none"


# ---- N4: a line without end


def send_without_end(server: RunningServer, size: int, most: int) -> None:
    with server.connect() as peer, server.connect() as other:
        assert other.call("add", 1, 2) == 3
        before, memory = server.memory(), 0
        piece = b"x" * MB
        try:
            for _ in range(size // len(piece)):
                peer.send_bytes(piece)
                memory = max(memory, server.memory() - before)
                assert other.call("greentask.ping") == "pong"
        except ConnectionError:
            pass  # it may be refused before it is sent
        (reply,) = peer.hear_rest()
        assert reply["error"]["type"] == "LineTooLong"
        assert memory < most
        assert server.status()["refused"]["max_line"] >= 1
        assert "is closed, for a line of it was too long (max_line; 1 so far" in server.output()
        assert other.call("add", 1, 2) == 3


def test_n4_a_line_without_end_is_refused_and_takes_no_more_memory_than_the_limit(server: RunningServer) -> None:
    send_without_end(server, 50 * MB, 10 * MB)


@pytest.mark.slow
def test_n4_a_line_of_a_gigabyte() -> None:
    with serving() as server:
        send_without_end(server, 1000 * MB, 60 * MB)


# ---- N5: slowloris


def meet_slow_peers(server: RunningServer, count: int) -> None:
    """Half a line each, some of them with a byte more every now and then: cut off in time, while others call."""
    with server.connect() as honest:
        assert honest.call("add", 1, 2) == 3
        before = open_files(server)
        slow = [server.connect() for _ in range(count)]
        wait_until(lambda: open_files(server) == before + count, "all are there")
        for number, peer in enumerate(slow):
            peer.send_bytes(b'{"function":"add","args":[1,2' if number % 2 else b"x")
        began, calls, meanwhile = time.monotonic(), 0, 0
        while open_files(server) > before:
            assert time.monotonic() - began < 30, f"{open_files(server) - before} are still there"
            for peer in slow[: count // 10]:
                with suppress(ConnectionError):
                    peer.send_bytes(b"x")
            assert honest.call("add", calls, 1) == calls + 1
            assert honest.call("nap", 0.01) == 0.01
            calls += 1
            meanwhile += open_files(server) > before
        assert meanwhile, "others are answered while they are there"
        for peer in slow[count // 10 :]:
            (reply,) = peer.hear_rest()
            assert reply["error"]["type"] == "DeadlineExceeded"
            assert reply["error"]["started"] is False
            assert "line_timeout" in reply["error"]["message"]
        for peer in slow:
            peer.close()
    assert server.status()["refused"]["line_timeout"] == count
    assert server.output().count("line_timeout") == 1, "it is told once, and not for each"
    assert "Traceback" not in server.output()


def test_n5_peers_with_half_a_line_are_cut_off_and_others_go_on() -> None:
    with serving("--line-timeout", "0.5") as server:
        meet_slow_peers(server, 200)


@pytest.mark.slow
def test_n5_5_000_connections_with_half_a_line() -> None:
    with descriptors(6_000), serving("--line-timeout", "2") as server:
        meet_slow_peers(server, 5_000)


def test_n5_a_call_in_flight_gets_its_answer_whatever_its_connection_does_then() -> None:
    with serving("--line-timeout", "0.2") as server, server.connect() as peer:
        peer.send({"id": 1, "function": "nap", "args": [0.8]})
        peer.send_bytes(b"half a line")
        replies = {reply.get("id"): reply for reply in peer.hear_rest()}
        assert replies[1]["result"] == 0.8
        assert replies[None]["error"]["type"] == "DeadlineExceeded"


def has_gone(peer: LineClient) -> bool:
    """Whether the goodbye comes next, and nothing after it."""
    (goodbye,) = peer.hear_rest()
    error = goodbye["error"]
    return (error["type"], "id" in goodbye, "idle" in error["message"]) == ("Draining", False, True)


@pytest.mark.slow
def test_n5_idle_connections_are_closed_where_that_is_wanted_and_busy_ones_are_not() -> None:
    with serving("--idle-timeout", "0.3") as server, server.connect() as busy, server.connect() as reader:
        busy.send({"id": 1, "function": "nap", "args": [1]}, {"id": 2, "function": "nap_in_process", "args": [1]})
        reader.send({"id": 1, "function": "count", "args": [2], "stream": 1})
        assert reader.hear() == {"id": 1, "item": 0}
        with server.connect() as idle:
            assert idle.call("add", 1, 2) == 3
            assert has_gone(idle)
        assert server.status()["refused"]["idle_timeout"] >= 1
        assert [reply["result"] for reply in busy.hear_all(2)] == [1, 1]
        assert has_gone(busy)
        reader.send({"more": 1, "items": 9})
        assert reader.hear_all(2)[-1] == {"id": 1, "result": {"items": 2}}, "a stream is not idle"
        assert has_gone(reader)


def test_n5_connections_of_one_address_are_limited_where_that_is_wanted() -> None:
    with (
        serving("--max-connections-per-address", "2", apps=["support.server_tasks:add"]) as server,
        server.connect() as one,
        server.connect() as two,
    ):
        assert (one.call("add", 1, 2), two.call("add", 3, 4)) == (3, 7)
        with server.connect() as three, suppress(ConnectionError):
            assert three.line() is None
        assert (one.call("add", 1, 2), two.call("add", 3, 4)) == (3, 7)
        assert "127.0.0.1 are refused" in server.output()
        assert one.call("greentask.status")["refused"]["too_many_from_address"] == 1


# ---- N6: a peer that never reads


def test_n6_a_peer_that_never_reads_is_cut_off(server: RunningServer) -> None:
    with server.connect() as other:
        assert other.call("add", 1, 2) == 3
        before, cut_off = server.memory(), server.status()["refused"]["read_timeout"]
        peers = [server.connect(receive_buffer=4096) for _ in range(5)]
        for peer in peers:
            peer.send(*({"id": number, "function": "large", "args": [MB // 10]} for number in range(200)))
        for peer in peers:
            with pytest.raises((ConnectionError, BrokenPipeError)):
                wait_until(lambda peer=peer: peer.send({"function": "greentask.ping"}), "it is cut off")  # type: ignore[misc]
            peer.close()
        assert server.memory() - before < 20 * MB, "200 answers of 100 KB for each of five would be 100 MB"
        assert server.status()["refused"]["read_timeout"] == cut_off + 5
        assert "is closed, for it did not read what it was sent (read_timeout; 1 so far" in server.output()
        assert other.call("add", 1, 2) == 3
    wait_until(lambda: is_idle(server), "nothing is left of them")


def test_n6_an_answer_that_no_reader_could_take_in_time_is_an_error_and_cuts_nobody_off(peer: LineClient) -> None:
    peer.send(
        {"id": 1, "function": "nap", "args": [0.2]},
        {"id": 2, "function": "large", "args": [MB]},
        {"id": 3, "function": "large", "batch": [[MB], [1]]},
    )
    replies = {(reply["id"], reply.get("index")): reply for reply in peer.hear_all(5)}
    for key in ((2, None), (3, 0)):
        error = replies[key]["error"]
        assert error["type"] == "InvalidResult"
        assert "max_unsent" in error["message"]
    assert replies[3, None]["result"] == {"done": 1, "failed": 1}
    assert replies[1, None]["result"] == 0.2


def test_n6_lines_of_a_peer_that_is_behind_wait_and_it_is_not_cut_off_for_that(server: RunningServer) -> None:
    with server.connect(receive_buffer=4096) as peer, server.connect() as other:
        # The answers to the thousand that may be in flight, all at once, are half of what it may leave unread.
        calls = [{"id": number, "function": "echo", "args": ["x" * 500]} for number in range(20_000)]
        sending = threading.Thread(target=peer.send, args=calls)
        sending.start()
        assert select.select([peer.socket], [], [], 10)[0], "it has begun"
        wait_until(server.is_at_rest, "it waits for the peer")
        assert other.call("greentask.ping") == "pong"
        assert len(peer.hear_all(20_000)) == 20_000
        sending.join()


def test_n6_a_peer_is_not_cut_off_for_asking_for_much_in_one_segment(server: RunningServer) -> None:
    with server.connect(receive_buffer=4096) as peer:
        peer.send(*({"function": "greentask.tasks"} for _ in range(1900)))
        wait_until(server.is_at_rest, "it waits for the peer")
        lines = [peer.line() for _ in range(1900)]
    assert len(set(lines)) == 1
    assert len(lines[0] or b"") * 1900 > 5 * MB


@pytest.mark.parametrize("function", ["pieces", "pieces_in_process"])
def test_n6_a_stream_waits_for_a_reader_that_is_behind_whatever_it_has_granted(
    server: RunningServer, function: str
) -> None:
    call = {"id": 1, "function": function, "args": [12_000, 1000], "stream": 1_000_000}
    with server.connect(receive_buffer=4096) as peer, server.connect() as other:
        peer.send(call, *({"more": 1, "items": 1_000_000} for _ in range(5)))
        assert select.select([peer.socket], [], [], 10)[0], "it has begun"
        wait_until(server.is_at_rest, "it waits for the peer")
        assert other.call("greentask.ping") == "pong"
        assert all(reply == {"id": 1, "item": "x" * 1000} for reply in peer.hear_all(12_000))
        assert peer.hear() == {"id": 1, "result": {"items": 12_000}}


def test_n6_a_stream_that_never_waits_holds_nobody_up(server: RunningServer) -> None:
    with server.connect() as peer, server.connect() as other:
        for id in range(5):
            peer.send({"id": id, "function": "count", "args": [400_000], "stream": 1_000_000})
        slowest = 0.0
        for _ in range(20):
            began = time.monotonic()
            assert other.call("greentask.ping") == "pong"
            slowest = max(slowest, time.monotonic() - began)
            peer.hear_all(100)
        assert slowest < 0.5
        peer.reset()
        wait_until(lambda: server.status()["in_flight"] == 0, "they have ended with their connection")


def test_n6_answers_that_wait_for_their_turn_count_as_unread(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send({"function": "nap", "args": [1]}, *({"function": "large", "args": [MB // 10]} for _ in range(15)))
        with pytest.raises((AssertionError, ConnectionError)):
            peer.hear()


def test_n6_a_peer_that_is_behind_loses_progress_and_nothing_else(server: RunningServer) -> None:
    count, note = 15_000, "x" * 500
    with server.connect(receive_buffer=4096) as peer:
        peer.send({"id": 1, "function": "advance", "args": {"to": count, "note": note}, "progress": True})
        wait_until(lambda: server.status()["in_flight"] == 0, "the task has ended")
        replies = []
        while "progress" in (reply := peer.hear()):
            replies.append(reply["progress"]["done"])
        assert reply == {"id": 1, "result": count}
        assert 0 < len(replies) < count
        assert replies == sorted(set(replies))


# ---- N7: what is not text, not JSON, or not a value

DEEP = 100_000


@pytest.mark.parametrize(
    "text",
    [
        b"\xff\xfe\x00",
        b'{"function":"echo","args":["\xc3"]}',
        b'{"function":"echo","args":["\xed\xa0\x80"]}',  # a surrogate in UTF-8
        b"\x00",
        b'{"function":"echo","args":["\x00"]}',
        b'{"function":"echo\x00"}',
        b'\xef\xbb\xbf{"function":"echo"}',
        b"[" * DEEP,
        b"[" * DEEP + b"]" * DEEP,
        b'{"function":"echo","args":[' + b"[" * DEEP + b"]" * DEEP + b"]}",
        b'{"function":"echo","args":[' + b"[" * 300 + b"]" * 300 + b"]}",
        b'{"a":' * DEEP + b"1" + b"}" * DEEP,
        b'{"function":"echo","args":[NaN]}',
        b'{"function":"echo","args":[Infinity]}',
        b'{"function":"echo","args":[-Infinity]}',
        b'{"function":"echo","args":[1e999]}',
        b'{"function":"echo","args":[' + b"9" * 10_000 + b"]}",
        b'{"function":"echo","id":' + b"9" * 10_000 + b"}",
        b'{"function":"echo","args":["\\ud800"]}',
        b'{"function":"echo","args":{"\\udfff":1}}',
        b'{"function":"echo","id":"\\ud800"}',
        b'{"function":"\\ud800"}',
        b'{"function":"echo","args":[01]}',
        b'{"function":"echo","args":[1,]}',
        b"{'function':'echo'}",
        b'{"function":"echo","args":[tRue]}',
        b'{"function":"echo"} // why not',
        b'{"function":"ec\tho"}',
        b'{"function":"greentask.ping","function":"echo"}',
        b'{"function":"echo","args":[1],"\\u0061rgs":[2]}',
        b'{"function":"echo","args":[{"a":1,"a":2}]}',
    ],
    ids=lambda text: ascii(text[:30])[2:-1],
)
@pytest.mark.parametrize("function", [b"echo", b"echo_in_process"])
def test_n7_what_is_no_json_is_an_invalid_message(peer: LineClient, text: bytes, function: bytes) -> None:
    began = time.monotonic()
    peer.send_bytes(text.replace(b'"echo"', b'"%b"' % function) + b"\n")
    reply = peer.hear()
    assert reply["error"]["type"] == "InvalidMessage"
    assert len(reply["error"]["message"]) < 500
    assert peer.call("add", 1, 2) == 3
    assert time.monotonic() - began < 2


@pytest.mark.parametrize("function", ["echo", "echo_in_process"])
@pytest.mark.parametrize(
    ("sent", "value"),
    [
        (b'{"1":1,"01":2,"":3}', {"1": 1, "01": 2, "": 3}),
        (b'"\\u0000\\u001f\\u007f"', "\x00\x1f\x7f"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\xf0\x9f\x98\x80"', "\U0001f600"),
        (b'"\xef\xbb\xbf\xc2\x85\xe2\x80\xa8"', "\ufeff\x85\u2028"),
        (b'"\xef\xbf\xbe\xef\xbf\xbf"', "\ufffe\uffff"),
        (b"9" * 400, 10**400 - 1),
        (b"-9223372036854775809", -(2**63) - 1),
        (b"18446744073709551616", 2**64),
        (b"0.1", 0.1),
        (b"1.7976931348623157e308", 1.7976931348623157e308),
        (b"5e-324", 5e-324),
        (b"1E400".replace(b"400", b"2"), 100.0),
        (b"[" * 100 + b"]" * 100, None),
        (b'"a\\/b"', "a/b"),
        (b'{"":{"":""}}', {"": {"": ""}}),
    ],
    ids=lambda part: ascii(part)[:30],
)
def test_n7_a_value_is_never_changed(peer: LineClient, function: str, sent: bytes, value: Any) -> None:
    peer.send_bytes(b'{"function":"%b","args":[%b]}\n' % (function.encode(), sent))
    reply = json.loads(peer.line() or b"")
    assert reply == {"result": json.loads(sent) if value is None else value}


# ---- N9: out of file descriptors


def take_all_descriptors(server: RunningServer) -> list[LineClient]:
    """Connections, for half of which a server has no descriptor left."""
    few = open_files(server) + 5
    resource.prlimit(server.pid, resource.RLIMIT_NOFILE, (few, few))
    taken = [server.connect() for _ in range(10)]
    wait_until(lambda: "Too many open files" in server.output(), "it is told")
    return taken


def test_n9_out_of_descriptors_accepting_pauses_and_goes_on() -> None:
    with serving() as server, server.connect() as peer:
        assert peer.call("add", 1, 2) == 3
        others = take_all_descriptors(server)
        used = cpu(server)
        assert peer.call("nap", 0.6) == 0.6
        assert cpu(server) - used < 0.3, "it does not spin"
        assert server.output().count("Too many open files") == 1
        assert "Traceback" not in server.output()
        for other in others:
            other.send({"function": "greentask.ping"})
        for other in others:
            assert other.hear() == {"result": "pong"}, "those that wait get in when another has gone"
            other.close()
        with server.connect() as another:
            assert another.call("add", 1, 2) == 3
        assert peer.call("add_in_process", 1, 2) == 3


@pytest.mark.slow
def test_n9_connections_that_idle_make_room_when_descriptors_are_out() -> None:
    with serving() as server, server.connect() as peer:
        assert peer.call("add", 1, 2) == 3
        idle = take_all_descriptors(server)
        with server.connect(patience=30) as newcomer:
            newcomer.send({"function": "greentask.ping"})
            while not select.select([newcomer.socket], [], [], 0.2)[0]:
                assert peer.call("add", 1, 2) == 3, "who calls isn't idle"
            assert newcomer.hear() == {"result": "pong"}
        for other in idle:
            other.close()


def cpu(server: RunningServer) -> float:
    times = psutil.Process(server.pid).cpu_times()
    return float(times.user + times.system)


# ---- O1: SIGTERM under load


@pytest.mark.slow
def test_o1_sigterm_under_load_loses_no_call() -> None:
    """Each of a number of peers calls and calls. What the server has taken it answers; what it refuses did not run."""
    calls, answers, errors = Counter[int](), Counter[int](), Counter[str]()
    unanswered: list[int] = []

    def call_and_call(server: RunningServer, number: int) -> None:
        function = ("nap", "nap_in_process", "add")[number % 3]
        with server.connect() as peer:
            try:
                while True:
                    peer.send(*({"id": n, "function": function, "args": [0.02]} for n in range(5)))
                    calls[number] += 5
                    for reply in peer.hear_all(5):
                        answers[number] += 1
                        if "error" in reply:
                            errors[reply["error"]["type"]] += 1
            except (AssertionError, ConnectionError):
                unanswered.append(calls[number] - answers[number])

    with serving() as server:
        threads = [threading.Thread(target=call_and_call, args=(server, number)) for number in range(9)]
        for thread in threads:
            thread.start()
        wait_until(lambda: min(answers[number] for number in range(9)) > 20, "they are at it")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < 5
        for thread in threads:
            thread.join()
        assert len(unanswered) == 9
        assert set(errors) <= {"Draining"}
        # What a peer sent while its connection was being closed has not been taken: all five or none of them.
        assert set(unanswered) <= {0, 5}
        assert "Traceback" not in server.output()


# ---- O4: port taken, socket file stale or alive, bad flag


def serve_in_vain(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "greentask", "serve", "support.server_tasks", *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment(),
    )
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    return done.returncode, done.stderr


def test_o4_what_can_not_be_listened_on_is_one_line_with_the_remedy_and_exit_code_1(
    server: RunningServer, tmp_path: Path
) -> None:
    code, said = serve_in_vain("--listen", server.address)
    assert (code, said.count("\n")) == (1, 1)
    assert "stop it, or choose another port (--listen)" in said
    address = f"unix://{tmp_path}/socket"
    with serving(listen=[address]) as other:
        code, said = serve_in_vain("--listen", address)
        assert (code, said.count("\n")) == (1, 1)
        assert "stop it, or choose another path (--listen)" in said
        assert other.call("add", 1, 2) == 3
        other.signal_all(signal.SIGKILL)
        other.wait()
    with serving("--max-line", "1000", "--max-unsent", str(MB), listen=[address]) as other:
        assert other.call("add", 1, 2) == 3, "what a dead server left is no obstacle"
        meet_the_faults_on_a_unix_socket(other)


def meet_the_faults_on_a_unix_socket(server: RunningServer) -> None:
    """The network's faults, in short, where the kernel behaves differently."""
    for leave in (LineClient.close, LineClient.end_sending):
        with server.connect() as peer:
            peer.send({"id": 1, "function": "count", "args": [10_000], "stream": 10})
            assert peer.hear() == {"id": 1, "item": 0}
            leave(peer)
            wait_until(lambda: is_idle(server), "nothing is left of it")
    with server.connect() as peer:
        try:
            peer.send_bytes(b"x" * MB)
        except BrokenPipeError:
            pass
        assert peer.hear_rest()[-1]["error"]["type"] == "LineTooLong"
    with server.connect() as peer:
        peer.send({"id": 1, "function": "nap", "args": [0.1]})
        peer.end_sending()
        assert peer.hear_rest() == [{"id": 1, "result": 0.1}]
    assert "Traceback" not in server.output()


def test_o4_a_bad_flag_is_exit_code_2() -> None:
    code, said = serve_in_vain("--lisen", "127.0.0.1:0")
    assert code == 2
    assert "--lisen" in said


# ---- O7: Ctrl-C at any moment


@pytest.mark.parametrize(
    ("moment", "number"),
    [
        ("server imports", signal.SIGINT),
        ("template imports", signal.SIGINT),
        ("template imports", signal.SIGTERM),
        ("serves", signal.SIGTERM),
    ],
)
def test_o7_a_signal_while_it_starts_ends_it_and_leaves_nothing_behind(
    tmp_path: Path, moment: str, number: signal.Signals
) -> None:
    with starting_until(moment, tmp_path) as process:
        os.killpg(process.pid, number)
        assert process.wait(2.0) in ((0,) if moment == "serves" else (0, 130, -number))


def test_o7_a_signal_of_which_a_starting_front_has_died_already_ends_it_all_the_same(tmp_path: Path) -> None:
    with starting_until("server imports", tmp_path) as process:
        process.send_signal(signal.SIGSTOP)  # so that it hears of both at once
        (front,) = psutil.Process(process.pid).children()
        os.killpg(process.pid, signal.SIGTERM)
        wait_until(lambda: front.status() == psutil.STATUS_ZOMBIE, "the front has died")
        process.send_signal(signal.SIGCONT)
        assert process.wait(2.0) == 0


@contextmanager
def starting_until(moment: str, folder: Path) -> "Iterator[subprocess.Popen[str]]":
    """A server that starts, and has come to this moment. Nothing is left of it in the end, and it says no more."""
    (folder / "mine.py").write_text(
        "import sys, time\n"
        "from greentask import task\n"
        "print('server' if 'gevent' in sys.modules else 'template', 'imports', flush=True)\n"
        "time.sleep(0.1)\n"
        "@task(process=True)\n"
        "def add(a, b): return a + b\n"
    )
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "greentask", "serve", "mine", "--listen", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=folder,
        env=environment(GREENTASK_TEST_SERVER=mark),
        start_new_session=True,
    )
    assert process.stdout is not None
    try:
        for line in process.stdout:
            if moment in line:
                break
        else:
            pytest.fail(f"never {moment}")
        yield process
        wait_until(lambda: not list(started_with(mark)), "nothing is left", patience=2.0)
        assert process.stdout.read() == ""
    finally:
        process.kill()
        process.communicate()


def started_with(mark: str) -> Iterator[psutil.Process]:
    for process in psutil.process_iter():
        try:
            if process.environ().get("GREENTASK_TEST_SERVER") == mark:
                yield process
        except psutil.Error:
            pass


def test_o7_ctrl_c_twice_under_load_ends_it_within_2_s_and_leaves_nothing_behind() -> None:
    mark = uuid.uuid4().hex
    with serving(new_session=True, GREENTASK_TEST_SERVER=mark) as server, server.connect() as peer:
        peer.send(*({"id": number, "function": "spin", "args": [60]} for number in range(3)))
        peer.send(*({"id": str(number), "function": "nap", "args": [60]} for number in range(3)))
        peer.send({"id": "left running", "function": "mark", "args": ["/dev/null", 60]})
        wait_until(lambda: server.status()["in_flight"] == 7, "all are in flight")
        began = time.monotonic()
        os.killpg(server.process.pid, signal.SIGINT)
        wait_until(lambda: peer.ask({"id": "?", "function": "greentask.status"})["result"]["draining"], "it drains")
        while server.process.poll() is None and time.monotonic() - began < 2.0:
            os.killpg(server.process.pid, signal.SIGINT)
            time.sleep(0.1)  # two in a row may be taken for one
        assert server.wait(0) == 0
        wait_until(lambda: not list(started_with(mark)), "nothing is left", patience=2.0)


# ---- S2: listening beyond loopback


def test_s2_it_refuses_to_listen_where_strangers_are_even_beside_what_is_safe(tmp_path: Path) -> None:
    code, said = serve_in_vain("--listen", f"unix://{tmp_path}/socket", "--listen", "0.0.0.0:0")
    assert (code, said.count("\n")) == (1, 1)
    assert "anybody there could run the tasks" in said
    assert "--insecure" in said


# ---- S4: names that are nobody's business


@pytest.mark.parametrize(
    "name",
    [
        "__import__",
        "eval",
        "os.system",
        "os:system",
        "support.server_tasks",
        "support.server_tasks:plain_add",
        "support.server_tasks.plain_add",
        "plain_add",
        "__class__",
        "__init__",
        "add.__globals__",
        "_tasks",
        "get",
        "task",
        "current",
        "time",
        "greentask",
        "greentask.",
        "greentask.shutdown",
        "greentask.__init__",
        "greentask.server",
        "GREENTASK.PING",
        "greentask.ping ",
        "Add",
        "add ",
        "add\n",
        "add\x00",
        "*",
        "../add",
    ],
)
def test_s4_a_name_that_is_not_registered_is_an_unknown_task(peer: LineClient, name: str) -> None:
    for call in ({"function": name}, {"function": name, "args": ["echo pwned"]}, {"function": name, "batch": [[]]}):
        reply = peer.ask({"id": 1, **call})
        assert reply["error"]["type"] == "UnknownTask", reply


@pytest.mark.parametrize("name", ["self", "task", "function", "__class__", "args", "kwargs", "debug", "_session"])
def test_s4_an_argument_reaches_nothing_but_parameters(peer: LineClient, name: str) -> None:
    for function in ("add", "greentask.ping", "greentask.cancel", "greentask.status", "greentask.tasks"):
        reply = peer.ask({"id": 1, "function": function, "args": {name: 1}})
        assert reply["error"]["type"] == "InvalidArguments", reply


# ---- S5, S6: pickles, YAML, prototypes, format strings, escapes


class Payload:
    def __reduce__(self) -> Any:
        return os.system, ("touch /tmp/greentask-was-here",)


NASTY = [
    "\x1b[2J\x1b[31mred",
    "\x9b31m",
    "line one\nFAKE LOG LINE: all is well\r\n",
    "%s%s%s%n%d",
    "{0.__class__.__mro__}{}",
    "${jndi:ldap://127.0.0.1/a}",
    "$(touch /tmp/x)`id`",
    "'; DROP TABLE tasks; --",
    "!!python/object/apply:os.system ['id']",
    "\u202egnp.exe\u2028\u2029\u200b\ufeff",
    "tâche, 漢字",
    "<script>alert(1)</script>",
]


LOG_LINE = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d+ greentask[.\w]*: \w")


@pytest.mark.parametrize("path", ["/", "/" + "x" * 5000], ids=["short", "long"])
@pytest.mark.parametrize("method", ["POST", "GET", "OPTIONS"])
def test_s6_calls_in_the_body_of_a_web_page_s_request_do_not_run(peer: LineClient, method: str, path: str) -> None:
    call = b'{"function":"add","args":[1,2]}\n'
    peer.send_bytes(b'{"function":"nap","args":[0.1]}\n')  # what was sent before is answered
    peer.send_bytes(f"{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n\r\n".encode())
    peer.send_bytes(call + b'{"jsonrpc":"2.0","method":"add","params":[1,2],"id":1}\n')
    done, refused = peer.hear_rest()
    assert done == {"result": 0.1}
    assert refused["error"]["type"] == "InvalidMessage"
    assert "this is HTTP" in refused["error"]["message"]


def test_s5_pickles_and_yaml_are_no_messages(server: RunningServer, peer: LineClient) -> None:
    mark = Path("/tmp/greentask-was-here")
    assert not mark.exists()
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        data = pickle.dumps(Payload(), protocol)
        peer.send_bytes(data.replace(b"\n", b" ") + b"\n")
        assert peer.hear()["error"]["type"] == "InvalidMessage"
        with server.connect() as other:
            other.send_bytes(data + b"\n")
            other.end_sending()
            assert {reply["error"]["type"] for reply in other.hear_rest()} == {"InvalidMessage"}
    peer.send_bytes(b"--- !!python/object/apply:os.system ['touch /tmp/greentask-was-here']\n")
    assert peer.hear()["error"]["type"] == "InvalidMessage"
    assert not mark.exists()


@pytest.mark.parametrize("function", ["echo", "echo_in_process"])
def test_s5_prototypes_are_data(peer: LineClient, function: str) -> None:
    value = {
        "__proto__": {"admin": True},
        "constructor": {"prototype": {"admin": True}},
        "__class__": "Payload",
        "__reduce__": ["os.system", "id"],
        "$ref": "file:///etc/passwd",
        "py/object": "os.system",
        "__json__": "x",
        "toDict": "x",
    }
    assert peer.call(function, value) == value


@pytest.mark.parametrize("text", NASTY, ids=ascii)
def test_s5_what_is_in_a_field_stays_in_it(peer: LineClient, server: RunningServer, text: str) -> None:
    before = len(server.output())
    assert peer.call("echo", text) == text
    assert peer.ask({"id": text, "function": "echo", "args": [text]}) == {"id": text, "result": text}
    assert peer.ask({"id": 1, "function": text})["error"]["type"] == "UnknownTask"
    assert peer.ask({"id": 1, "function": "add", "args": {text: 1}})["error"]["type"] == "InvalidArguments"
    assert peer.ask({"id": 1, "function": "add", text: 1})["error"]["type"] == "InvalidMessage"
    for function in ("fail", "fail_in_process"):
        error = peer.ask({"id": 1, "function": function, "args": [text]})["error"]
        assert (error["type"], error["message"]) == ("ValueError", text)
    peer.send({"id": 1, "function": "advance", "args": {"to": 1, "note": text}, "progress": True})
    assert peer.hear()["progress"]["note"] == text
    assert peer.hear() == {"id": 1, "result": 1}
    peer.send({"id": text, "function": "nap", "args": [0.05]}, {"id": text, "function": "nap", "args": [0.05]})
    assert "still in flight" in peer.hear()["error"]["message"]
    assert peer.hear() == {"id": text, "result": 0.05}
    for line in server.output()[before:].splitlines():
        # Lines of a traceback are indented, and so no lines of their own.
        assert LOG_LINE.match(line) or line.startswith("    "), "no line is forged"
        assert line.isprintable(), "no terminal is commanded"


def test_s5_every_reply_is_one_line_of_ascii_controls_escaped(peer: LineClient) -> None:
    for text in NASTY:
        peer.send({"id": text, "function": text, "args": {text: text}})
        line = peer.line()
        assert line is not None
        assert not any(byte < 0x20 or byte == 0x7F for byte in line), line
