"""greentask's protocol on one connection: what every line to a server is answered with, by a real server."""

import json
import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.servers import LineClient, RunningServer, module_server, serving, wait_until

MAX_LINE = 100_000


server = module_server("--max-line", str(MAX_LINE), "--grace", "0.5")


def error_of(reply: dict[str, Any]) -> dict[str, Any]:
    error = reply["error"]
    assert isinstance(error, dict)
    assert "result" not in reply
    return error


def is_usable(peer: LineClient) -> bool:
    call = {"id": "still there?", "function": "add", "args": [1, 2]}
    return peer.ask(call) == {"id": "still there?", "result": 3}


def is_idle_but_for(server: RunningServer, connections: int) -> bool:
    status = server.status()
    return status["in_flight"] == status["processes"]["busy"] == 0 and status["connections"] == connections


@pytest.fixture(scope="module")
def impatient() -> Iterator[RunningServer]:
    with serving("--stream-timeout", "0.3", "--max-unsent", "1000000") as server:
        yield server
        assert "Traceback" not in server.output()


def is_idle(server: RunningServer) -> bool:
    status = server.status()
    return not (status["in_flight"] or status["processes"]["busy"] or status["connections"])


# ---- Framing


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\n\n\n", b"\r\n\r\n"])
def test_a_line_may_end_like_unix_or_windows_and_empty_ones_are_ignored(peer: LineClient, end: bytes) -> None:
    peer.send_bytes(end + b'{"function":"add","args":[1,2]}' + end + b'{"function":"add","args":[3,4]}' + end)
    peer.end_sending()
    assert peer.hear_rest() == [{"result": 3}, {"result": 7}]


def test_a_reply_is_one_line_of_compact_json_ended_by_a_newline(peer: LineClient) -> None:
    peer.send({"id": 7, "function": "echo", "args": ["two\nlines, ein Wörtchen, 漢字, \U0001f600"]})
    assert peer.line() == '{"id":7,"result":"two\\nlines, ein Wörtchen, 漢字, \U0001f600"}'.encode()


def test_a_line_of_exactly_the_limit_is_taken(peer: LineClient) -> None:
    call = b'{"function":"length","args":["%b"]}'
    room = MAX_LINE - len(call) + len(b"%b")
    peer.send_bytes(call % (b"x" * room) + b"\r\n" + call % (b"x" * room) + b"\n")
    assert peer.hear_all(2) == [{"result": room}, {"result": room}]


@pytest.mark.parametrize("ended", [True, False])
def test_a_line_that_is_too_long_gets_one_error_and_the_connection_is_closed(peer: LineClient, ended: bool) -> None:
    peer.send({"function": "add", "args": [1, 2]}, {"id": "a", "function": "nap", "args": [0.2]})
    peer.send_bytes(b"x" * (MAX_LINE + 2) + b"\n" * ended)
    replies = peer.hear_rest()
    assert replies[0] == {"result": 3}
    assert {"id": "a", "result": 0.2} in replies, "what was asked before it is answered"
    (complaint,) = (reply for reply in replies if "error" in reply)
    assert set(complaint) == {"error"}
    assert complaint["error"]["type"] == "LineTooLong"
    assert str(MAX_LINE) in complaint["error"]["message"]


def test_the_error_for_a_line_that_is_too_long_keeps_to_the_order_of_calls_without_id(peer: LineClient) -> None:
    peer.send({"function": "nap", "args": [0.2]}, {"function": "add", "args": [1, 2]})
    peer.send_bytes(b"x" * (MAX_LINE + 2))
    first, second, third = peer.hear_rest()
    assert (first, second) == ({"result": 0.2}, {"result": 3})
    assert error_of(third)["type"] == "LineTooLong"


def test_a_peer_that_sends_on_after_a_line_that_is_too_long_still_reads_the_error(peer: LineClient) -> None:
    for _ in range(20):
        peer.send_bytes(b"x" * MAX_LINE)
    peer.end_sending()
    (reply,) = peer.hear_rest()
    assert error_of(reply)["type"] == "LineTooLong"


# ---- Lines that are no message


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (b"hello", "not JSON"),
        (b"{", "not JSON"),
        (b'{"function":"add"} {"function":"add"}', "not JSON"),
        (b'{"function":"\xff"}', "not UTF-8: byte 0xff at 13"),
        (b"3", "a message is an object, not a number"),
        (b'"add"', "a message is an object, not a string"),
        (b"null", "a message is an object, not null"),
        (b"{}", "function is missing"),
        (b'{"function":3}', "function must be a non-empty string"),
        (b'{"function":""}', "function must be a non-empty string"),
        (b'{"function":"add","timout":3}', 'unknown member "timout"'),
        (b'{"function":"add","args":3}', "args must be an object (keyword arguments) or an array, not a number"),
        (b'{"function":"add","args":"12"}', "args must be an object (keyword arguments) or an array, not a string"),
        (b'{"function":"add","id":true}', "id must be a string or an integer, not true or false"),
        (b'{"function":"add","id":1.5}', "id must be a string or an integer, not a number"),
        (b'{"function":"add","id":[1]}', "id must be a string or an integer, not an array"),
        (b'{"function":"add","timeout":0}', "timeout must be a number of seconds above 0, not 0"),
        (b'{"function":"add","timeout":-1}', "timeout must be a number of seconds above 0, not -1"),
        (b'{"function":"add","timeout":"5"}', "timeout must be a number of seconds above 0, not a string"),
        (b'{"function":"add","timeout":true}', "timeout must be a number of seconds above 0, not true or false"),
        (b'{"function":"advance","progress":true}', "progress needs an id"),
        (b'{"function":"add","batch":[[1]]}', "batch needs an id"),
        (b'{"function":"count","stream":true}', "stream needs an id"),
        (b'{"function":"count","id":1,"stream":0}', "stream must be true or an integer from 1"),
        (b'{"function":"count","id":1,"stream":"yes"}', "stream must be true or an integer from 1"),
        (b'{"function":"advance","id":1,"progress":1}', "progress must be true or false, not a number"),
        (b'{"function":"add","id":1,"batch":{"a":1}}', "batch must be an array of args values, not an object"),
        (b'{"function":"add","id":1,"batch":[1]}', "each item of batch must be an object"),
        (b'{"function":"add","id":1,"batch":[],"args":[1]}', "batch takes the place of args"),
        (b'{"function":"count","id":1,"batch":[],"stream":true}', "batch takes the place of args, and does not go"),
        (b'{"function":"add","id":1,"enqueue":1}', "enqueue is true or an object"),
        (b'{"more":true}', "more must be a call's id"),
        (b'{"more":1,"items":0}', "items must be an integer from 1"),
        (b'{"more":1,"itmes":1}', 'unknown member "itmes"'),
    ],
)
def test_what_is_no_message_is_told_what_is_wrong_and_the_connection_stays(
    peer: LineClient, text: bytes, told: str
) -> None:
    peer.send_bytes(text + b"\n")
    reply = peer.hear()
    error = error_of(reply)
    assert set(error) == {"type", "message"}
    assert error["type"] == "InvalidMessage"
    assert told in error["message"]
    assert reply.get("id") == (1 if b'"id":1,' in text or text.endswith(b'"id":1}') else None)
    assert is_usable(peer)


def test_an_error_about_a_line_without_id_keeps_to_the_order(peer: LineClient) -> None:
    peer.send({"function": "nap", "args": [0.1]}, "no object", {"function": "add", "args": [1]})
    replies = peer.hear_all(3)
    assert [next(iter(reply)) for reply in replies] == ["result", "error", "result"]


# ---- Arguments


def test_arguments_are_given_by_position_by_name_or_not_at_all(peer: LineClient) -> None:
    assert peer.call("add", 1, 2) == 3
    assert peer.call("add", b=2, a=1) == 3
    assert peer.ask({"function": "echo"}) == {"result": None}
    assert peer.ask({"function": "echo", "args": None}) == {"result": None}
    assert peer.ask({"function": "echo", "args": {}}) == {"result": None}


def test_a_python_keyword_binds_to_the_parameter_with_an_underscore_or_goes_into_kwargs(peer: LineClient) -> None:
    args = {"from": "a@x", "to": "b@y", "class": "first", "import": 1}
    assert peer.ask({"function": "send_mail", "args": args}) == {
        "result": {"from": "a@x", "to": "b@y", "rest": {"class": "first", "import": 1}}
    }


@pytest.mark.parametrize("function", ["add", "add_in_process"])
@pytest.mark.parametrize("args", [[], [1, 2, 3], {"a": 1, "c": 2}, {"b": 1}])
def test_arguments_that_do_not_fit_are_refused_with_the_signature(peer: LineClient, function: str, args: Any) -> None:
    error = error_of(peer.ask({"id": 1, "function": function, "args": args}))
    assert set(error) == {"type", "message"}
    assert error["type"] == "InvalidArguments"
    assert f"{function}(a: int, b: int = 0)" in error["message"]
    assert is_usable(peer)


@pytest.mark.parametrize("function", ["echo", "echo_in_process"])
@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        0,
        -1,
        2**63,
        2**64,
        10**40,
        1.5,
        -0.0,
        1e300,
        "",
        "\u2028\x00\x7f",
        "\U0001f600",
        [],
        {},
        {"": [{}]},
    ],
)
def test_values_come_back_as_they_went(peer: LineClient, function: str, value: Any) -> None:
    came_back = peer.call(function, value)
    assert came_back == value
    assert type(came_back) is type(value)


# ---- The order of replies


def test_calls_without_id_are_answered_in_the_order_in_which_they_were_sent(peer: LineClient) -> None:
    naps = [0.3, 0.1, 0.2, 0.0]
    peer.send(*({"function": "nap", "args": [seconds]} for seconds in naps))
    assert [peer.hear()["result"] for _ in naps] == naps


def test_calls_with_an_id_are_answered_as_they_finish(peer: LineClient) -> None:
    naps = {"slow": 0.4, "quick": 0.0, "medium": 0.2}
    peer.send(*({"id": id, "function": "nap", "args": [seconds]} for id, seconds in naps.items()))
    assert [peer.hear()["id"] for _ in naps] == ["quick", "medium", "slow"]


def test_one_with_an_id_does_not_wait_for_one_without(peer: LineClient) -> None:
    peer.send({"function": "nap", "args": [0.2]}, {"id": 1, "function": "add", "args": [1]})
    assert peer.hear_all(2) == [{"id": 1, "result": 1}, {"result": 0.2}]


def test_pipelined_calls_run_at_the_same_time(peer: LineClient) -> None:
    began = time.monotonic()
    peer.send(*({"id": number, "function": "nap", "args": [0.3]} for number in range(100)))
    assert {reply["id"] for reply in peer.hear_all(100)} == set(range(100))
    assert time.monotonic() - began < 3.0, "one after another they take 30 s"


@pytest.mark.parametrize("id", [0, -1, 2**70, "", "0", "\n", "ein Wörtchen", "x" * 1000])
def test_an_id_is_echoed_as_it_was(peer: LineClient, id: str | int) -> None:
    assert peer.ask({"id": id, "function": "add", "args": [1]}) == {"id": id, "result": 1}
    assert error_of(peer.ask({"id": id, "function": "none"}))["type"] == "UnknownTask"


def test_ids_that_are_equal_only_as_text_are_two(peer: LineClient) -> None:
    peer.send({"id": 1, "function": "nap", "args": [0.1]}, {"id": "1", "function": "nap", "args": [0.2]})
    assert [peer.hear()["id"], peer.hear()["id"]] == [1, "1"]


def test_an_id_that_is_null_is_none(peer: LineClient) -> None:
    assert peer.ask({"id": None, "function": "add", "args": [1]}) == {"result": 1}


def test_an_id_in_flight_twice_is_refused_and_the_first_call_is_unharmed(peer: LineClient) -> None:
    peer.send({"id": 1, "function": "nap", "args": [0.2]}, {"id": 1, "function": "add", "args": [1]})
    refused, answered = peer.hear_all(2)
    assert refused["id"] == 1
    assert error_of(refused)["type"] == "InvalidMessage"
    assert "still in flight" in error_of(refused)["message"]
    assert answered == {"id": 1, "result": 0.2}


def test_an_id_can_be_used_again_after_its_answer(peer: LineClient) -> None:
    for _ in range(3):
        assert peer.ask({"id": 1, "function": "add", "args": [1]}) == {"id": 1, "result": 1}


def test_two_connections_may_use_the_same_id(server: RunningServer) -> None:
    with server.connect() as one, server.connect() as other:
        one.send({"id": 1, "function": "nap", "args": [0.2]})
        assert other.ask({"id": 1, "function": "add", "args": [1]}) == {"id": 1, "result": 1}
        assert one.hear() == {"id": 1, "result": 0.2}


# ---- Errors


@pytest.mark.parametrize(
    ("function", "told"),
    [("ad", "did you mean add"), ("nothing like it", "greentask.tasks lists"), ("x" * 5000, "xxx…'")],
)
def test_an_unknown_task_lists_close_names(peer: LineClient, function: str, told: str) -> None:
    error = error_of(peer.ask({"id": 1, "function": function}))
    assert set(error) == {"type", "message"}
    assert error["type"] == "UnknownTask"
    assert told in error["message"]
    assert len(error["message"]) < 300
    assert is_usable(peer)


@pytest.mark.parametrize(
    ("call", "type", "message"),
    [
        ({"function": "fail", "args": ["no stock"]}, "ValueError", "no stock"),
        ({"function": "fail_in_process", "args": ["no stock"]}, "ValueError", "no stock"),
        ({"function": "count_badly", "args": [3]}, "ValueError", "that is as far as I can count"),
        ({"function": "misbehave", "args": ["unheard"]}, "Unheard", "of here only"),
        ({"function": "misbehave", "args": ["exit"]}, "SystemExit", "3"),
        ({"function": "misbehave", "args": ["interrupt"]}, "KeyboardInterrupt", ""),
        ({"function": "misbehave", "args": ["base"]}, "BaseException", "at the bottom"),
        ({"function": "misbehave", "args": ["key"]}, "KeyError", "missing"),
        ({"function": "misbehave", "args": ["surrogate"]}, "ValueError", "?"),
        ({"function": "misbehave", "args": ["stop"]}, "StopIteration", "7"),
    ],
)
def test_what_a_task_raises_is_told_by_class_and_message_and_nothing_else(
    peer: LineClient, call: dict[str, Any], type: str, message: str
) -> None:
    assert peer.ask({"id": 1, **call}) == {"id": 1, "error": {"type": type, "message": message}}
    assert is_usable(peer)


@pytest.mark.parametrize(
    ("how", "where"),
    [
        ("object", "result['rows'][1] is an object"),
        ("nan", "result[0] is nan"),
        ("circle", "result[0] contains itself"),
        ("bytes", "result is a bytes"),
        ("text", "result is '\\udfff'"),
    ],
)
def test_a_result_that_json_can_not_carry_is_told_by_its_place(peer: LineClient, how: str, where: str) -> None:
    error = error_of(peer.ask({"id": 1, "function": "misbehave", "args": [how]}))
    assert error["type"] == "InvalidResult"
    assert where in error["message"]


@pytest.mark.parametrize(("how", "told"), [("kill", "signal 9 (SIGKILL)"), ("segv", "signal 11"), ("exit", "code 3")])
def test_a_process_that_died_is_told_with_the_cause(peer: LineClient, how: str, told: str) -> None:
    error = error_of(peer.ask({"id": 1, "function": "die", "args": [how]}))
    assert set(error) == {"type", "message"}
    assert error["type"] == "WorkerLost"
    assert told in error["message"]
    assert peer.call("add_in_process", 1, 2) == 3


def test_tracebacks_are_sent_only_with_debug(peer: LineClient) -> None:
    calls = [{"function": name, "args": ["no stock"]} for name in ("fail", "fail_in_process")]
    for call in calls:
        assert set(error_of(peer.ask(call))) == {"type", "message"}
    with serving("--debug", processes=1) as debugging, debugging.connect() as other:
        for call in calls:
            error = error_of(other.ask(call))
            assert set(error) == {"type", "message", "traceback"}
            assert error["traceback"].startswith("Traceback (most recent call last):\n")
            assert "in fail" in error["traceback"]
            assert error["traceback"].endswith("ValueError: no stock\n")
        refused = error_of(other.ask({"function": "none"}))
        assert set(refused) == {"type", "message"}, "the protocol's own errors have no traceback"


# ---- Timeouts


@pytest.mark.parametrize("function", ["nap", "nap_in_process"])
def test_a_call_that_runs_out_of_time_is_stopped(peer: LineClient, function: str) -> None:
    began = time.monotonic()
    error = error_of(peer.ask({"id": 1, "function": function, "args": [30], "timeout": 0.2}))
    assert 0.1 < time.monotonic() - began < 5
    assert error == {"type": "DeadlineExceeded", "message": "the time ran out while the task ran", "started": True}


def test_a_call_that_did_not_start_in_time_never_starts(
    server: RunningServer, peer: LineClient, tmp_path: Path
) -> None:
    file = tmp_path / "marks"
    peer.send(*({"id": number, "function": "nap_in_process", "args": [0.5]} for number in range(2)))
    peer.send({"id": 2, "function": "mark_in_process", "args": [str(file)], "timeout": 0.1})
    first = peer.hear()
    assert first == {
        "id": 2,
        "error": {
            "type": "DeadlineExceeded",
            "message": "the time ran out before the task started",
            "started": False,
        },
    }
    peer.hear_all(2)
    assert peer.call("add_in_process", 1, 2) == 3, "whatever was to run before this has run"
    assert not file.exists()


@pytest.mark.parametrize("timeout", [30, 0.1])
def test_the_smaller_of_the_caller_s_and_the_task_s_limit_holds(peer: LineClient, timeout: float) -> None:
    began = time.monotonic()
    error = error_of(peer.ask({"id": 1, "function": "short_nap", "args": [10], "timeout": timeout}))
    assert error["type"] == "DeadlineExceeded"
    assert error["started"] is True
    assert time.monotonic() - began < 3


def test_a_running_task_knows_its_id_its_name_and_its_deadline(peer: LineClient) -> None:
    assert peer.ask({"id": "a", "function": "who", "timeout": 100}) == {
        "id": "a",
        "result": {"id": "a", "name": "who", "remaining": 100},
    }
    assert peer.ask({"function": "who"}) == {"result": {"id": None, "name": "who", "remaining": None}}


def test_a_timeout_beyond_any_clock_is_none_in_effect(peer: LineClient) -> None:
    for timeout in (1e9, 1e300, 10**30):
        assert peer.ask({"id": 1, "function": "add", "args": [1], "timeout": timeout}) == {"id": 1, "result": 1}


# ---- Cancelling


@pytest.mark.parametrize("function", ["mark", "mark_in_process"])
def test_cancel_ends_a_running_call(server: RunningServer, peer: LineClient, tmp_path: Path, function: str) -> None:
    file = tmp_path / "marks"
    peer.send({"id": "long", "function": function, "args": [str(file), 60]})
    wait_until(lambda: file.exists() and file.read_text(), "the task runs")
    peer.send({"id": 2, "function": "greentask.cancel", "args": {"id": "long"}})
    replies = {reply["id"]: reply for reply in peer.hear_all(2)}
    assert replies[2] == {"id": 2, "result": True}
    error = error_of(replies["long"])
    assert error["type"] == "Cancelled"
    assert error["started"] is True
    assert wait_until(lambda: file.read_text().splitlines()[1:], "the task has ended") == ["CancelRequest"]


def test_cancel_ends_a_call_that_waits_for_a_process(peer: LineClient, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    peer.send(
        *({"id": number, "function": "nap_in_process", "args": [0.3]} for number in range(2)),
        {"id": "waiting", "function": "mark_in_process", "args": [str(file)]},
        {"id": "cancel", "function": "greentask.cancel", "args": ["waiting"]},
    )
    replies = {reply["id"]: reply for reply in peer.hear_all(4)}
    assert replies["cancel"]["result"] is True
    error = error_of(replies["waiting"])
    assert error["type"] == "Cancelled"
    assert error["started"] is False
    assert not file.exists()


def test_cancel_says_false_where_nothing_is_in_flight_under_that_id(server: RunningServer, peer: LineClient) -> None:
    assert peer.call("greentask.cancel", id="none") is False
    peer.send({"id": 1, "function": "nap", "args": [0.3]})
    with server.connect() as other:
        assert other.call("greentask.cancel", id=1) is False, "an id is its connection's own"
    assert peer.hear() == {"id": 1, "result": 0.3}


@pytest.mark.parametrize("args", [{}, [], {"id": True}, {"id": [1]}, {"id": None}, [1, 2], {"task": 1}])
def test_cancel_wants_an_id(peer: LineClient, args: Any) -> None:
    error = error_of(peer.ask({"function": "greentask.cancel", "args": args}))
    assert error["type"] == "InvalidArguments"
    assert "greentask.cancel" in error["message"]


# ---- Progress


@pytest.mark.parametrize("function", ["advance", "advance_in_process"])
def test_progress_comes_in_lines_before_the_result(peer: LineClient, function: str) -> None:
    peer.send({"id": 7, "function": function, "args": [3], "progress": True})
    assert peer.hear_all(4) == [
        {"id": 7, "progress": {"done": 1, "total": 3}},
        {"id": 7, "progress": {"done": 2, "total": 3}},
        {"id": 7, "progress": {"done": 3, "total": 3}},
        {"id": 7, "result": 3},
    ]


@pytest.mark.parametrize("function", ["advance", "advance_in_process"])
def test_progress_that_nobody_asked_for_is_not_sent(peer: LineClient, function: str) -> None:
    assert peer.ask({"id": 7, "function": function, "args": [3]}) == {"id": 7, "result": 3}
    assert peer.ask({"id": 7, "function": function, "args": [3], "progress": False}) == {"id": 7, "result": 3}


def test_progress_carries_a_note_and_comes_while_the_task_runs(peer: LineClient) -> None:
    peer.send({"id": 7, "function": "advance", "args": {"to": 2, "pause": 0.2, "note": "a\nb"}, "progress": True})
    assert peer.hear() == {"id": 7, "progress": {"done": 1, "total": 2, "note": "a\nb"}}
    first = time.monotonic()
    assert [*peer.hear(), *peer.hear()] == ["id", "progress", "id", "result"]
    assert time.monotonic() - first > 0.2


# ---- Streams


@pytest.mark.parametrize("function", ["count", "count_in_process"])
def test_a_stream_sends_a_window_of_items_and_goes_on_when_more_is_granted(peer: LineClient, function: str) -> None:
    peer.send({"id": 1, "function": function, "args": [10], "stream": 4})
    assert peer.hear_all(4) == [{"id": 1, "item": number} for number in range(4)]
    assert peer.call("greentask.ping") == "pong", "nothing but the pong comes: the generator waits"
    peer.send({"more": 1, "items": 3})
    assert peer.hear_all(3) == [{"id": 1, "item": number} for number in range(4, 7)]
    assert peer.call("greentask.ping") == "pong"
    peer.send({"more": 1, "items": 1000})
    assert peer.hear_all(4) == [
        *({"id": 1, "item": number} for number in range(7, 10)),
        {"id": 1, "result": {"items": 10}},
    ]


@pytest.mark.parametrize("function", ["count", "count_in_process"])
def test_a_stream_of_true_has_a_window_of_64(peer: LineClient, function: str) -> None:
    peer.send({"id": 1, "function": function, "args": [65], "stream": True})
    assert [peer.hear()["item"] for _ in range(64)] == list(range(64))
    assert peer.call("greentask.ping") == "pong"
    peer.send({"more": 1})
    assert peer.hear_all(2) == [{"id": 1, "item": 64}, {"id": 1, "result": {"items": 65}}]


@pytest.mark.parametrize("items", [0, 4])
def test_a_stream_that_ends_with_its_window_needs_no_grant(peer: LineClient, items: int) -> None:
    peer.send({"id": 1, "function": "count", "args": [items], "stream": 4})
    assert peer.hear_all(items)[items - 1 :] == [{"id": 1, "item": items - 1}] * bool(items)
    assert peer.hear() == {"id": 1, "result": {"items": items}}


def test_the_generator_is_not_ahead_of_its_reader(peer: LineClient, tmp_path: Path) -> None:
    file = tmp_path / "far"
    peer.send({"id": 1, "function": "count_and_mark", "args": [1000, str(file)], "stream": 5})
    peer.hear_all(5)
    assert peer.call("greentask.ping") == "pong"
    assert int(file.read_text()) <= 5


def test_a_stream_that_fails_ends_with_its_error_after_its_items(peer: LineClient) -> None:
    peer.send({"id": 1, "function": "count_badly", "args": [2], "stream": True})
    assert peer.hear_all(2) == [{"id": 1, "item": 0}, {"id": 1, "item": 1}]
    assert error_of(peer.hear()) == {"type": "ValueError", "message": "that is as far as I can count"}


@pytest.mark.parametrize("function", ["count", "count_in_process"])
def test_a_stream_that_waits_can_be_cancelled(peer: LineClient, function: str) -> None:
    peer.send({"id": 1, "function": function, "args": [1000], "stream": 1})
    assert peer.hear() == {"id": 1, "item": 0}
    peer.send({"id": 2, "function": "greentask.cancel", "args": [1]})
    replies = {reply["id"]: reply for reply in peer.hear_all(2)}
    assert replies[2] == {"id": 2, "result": True}
    assert error_of(replies[1])["type"] == "Cancelled"


@pytest.mark.parametrize("function", ["count", "count_in_process"])
def test_without_stream_a_generator_s_result_is_an_array(peer: LineClient, function: str) -> None:
    assert peer.call(function, 5) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("function", ["add", "add_in_process"])
def test_a_stream_of_what_is_no_generator_is_refused(peer: LineClient, function: str) -> None:
    error = error_of(peer.ask({"id": 1, "function": function, "args": [1], "stream": True}))
    assert error["type"] == "InvalidArguments"
    assert "no generator" in error["message"]


@pytest.mark.parametrize("function", ["count", "count_in_process"])
def test_a_stream_whose_reader_takes_nothing_more_is_cancelled_after_a_while(
    impatient: RunningServer, function: str
) -> None:
    """It takes up a call, and perhaps a task process."""
    with impatient.connect() as peer, impatient.connect() as other:
        peer.send({"id": 1, "function": function, "args": [1000], "stream": 2})
        assert peer.hear_all(2) == [{"id": 1, "item": 0}, {"id": 1, "item": 1}]
        for number in range(2, 6):
            assert select.select([peer.socket], [], [], 0.1)[0] == [], "it waits, and its patience begins anew"
            assert peer.ask({"more": 1, "items": 1}) == {"id": 1, "item": number}
        said = {"type": "Cancelled", "message": "its reader has taken nothing more for 0.3 s (stream_timeout)"}
        assert peer.hear() == {"id": 1, "error": {**said, "started": True}}
        pieces = function.replace("count", "pieces")
        other.send({"id": 2, "function": pieces, "args": [10**6, 100_000], "stream": 1_000_000})  # which nobody reads
        peer.send({"id": 3, "function": function, "args": [3], "stream": 3})
        assert peer.hear_all(4)[-1] == {"id": 3, "result": {"items": 3}}
        wait_until(lambda: is_idle_but_for(impatient, connections=2), "it does not wait for ever")


def test_more_for_a_call_that_is_none_or_no_stream_is_ignored(peer: LineClient) -> None:
    peer.send({"id": 1, "function": "nap", "args": [0.2]}, {"more": 1}, {"more": "nobody"}, {"more": 2, "items": 7})
    assert peer.hear() == {"id": 1, "result": 0.2}
    assert is_usable(peer)


@pytest.mark.parametrize("function", ["count", "count_in_process"])
@pytest.mark.parametrize("items", [3, 4, 5, 40])
def test_a_stream_whose_reader_can_grant_nothing_any_more_is_cancelled_when_it_needs_a_grant(
    server: RunningServer, function: str, items: int
) -> None:
    with server.connect() as peer:
        peer.send({"id": 1, "function": function, "args": [items], "stream": 4})
        peer.end_sending()
        *sent, last = peer.hear_rest()
        assert sent == [{"id": 1, "item": number} for number in range(min(items, 4))]
        if items <= 4:
            assert last == {"id": 1, "result": {"items": items}}
        else:
            assert error_of(last)["type"] == "Cancelled"
    wait_until(lambda: is_idle(server), "nothing is left of it")


@pytest.mark.parametrize("function", ["count", "count_in_process"])
def test_a_stream_whose_reader_is_gone_leaves_nothing_behind(server: RunningServer, function: str) -> None:
    for how in (LineClient.close, LineClient.reset):
        peer = server.connect()
        peer.send({"id": 1, "function": function, "args": [1_000_000], "stream": 4})
        assert peer.hear() == {"id": 1, "item": 0}
        how(peer)
        wait_until(lambda: is_idle(server), "nothing is left of it")


# ---- The server's own functions


def test_ping(peer: LineClient) -> None:
    assert peer.ask({"id": 1, "function": "greentask.ping"}) == {"id": 1, "result": "pong"}


def test_tasks_lists_names_signatures_and_first_lines(peer: LineClient) -> None:
    tasks = {task["name"]: task for task in peer.call("greentask.tasks")}
    assert list(tasks) == sorted(tasks)
    assert tasks["add"] == {
        "name": "add",
        "signature": "add(a: int, b: int = 0) -> int",
        "doc": "Add two numbers.",
        "process": False,
        "timeout": None,
        "max_running": None,
        "stream": False,
    }
    assert tasks["short_nap"]["timeout"] == 0.2
    assert tasks["spin"]["process"] is True
    assert tasks["count"]["stream"] is True
    assert "plain_add" not in tasks, "what is not decorated is served by name only"


def test_status_tells_what_the_server_is_doing(server: RunningServer, peer: LineClient, tmp_path: Path) -> None:
    wait_until(lambda: server.status()["connections"] == 1, "other tests' connections are closed")
    wait_until(lambda: len(server.status()["processes"]["pids"]) == 2, "killed ones are replaced")
    before = server.status()
    assert before["pid"] == server.pid
    assert before["listen"] == server.addresses
    assert before["tasks"] == len(peer.call("greentask.tasks"))
    assert before["draining"] is False
    assert before["processes"]["size"] == 2
    gate = tmp_path / "gate"
    peer.send(*({"id": number, "function": "wait_for_file_in_process", "args": [str(gate)]} for number in range(3)))
    status = wait_until(lambda: (now := server.status())["in_flight"] == 3 and now, "three are in flight")
    assert status["uptime"] >= before["uptime"]
    assert status["processes"]["busy"] == 2
    assert status["processes"]["waiting"] == 1
    assert set(status["processes"]["pids"]) == set(before["processes"]["pids"])
    gate.touch()
    peer.hear_all(3)
    assert server.status()["in_flight"] == 0


def test_own_functions_check_their_arguments(peer: LineClient) -> None:
    for call in (
        {"function": "greentask.ping", "args": [1]},
        {"function": "greentask.status", "args": {"verbose": 1}},
        {"id": 1, "function": "greentask.ping", "batch": [[]]},
        {"id": 1, "function": "greentask.tasks", "stream": True},
    ):
        error = error_of(peer.ask(call))
        assert error["type"] == "InvalidArguments"
        assert str(call["function"]) in error["message"]
    assert is_usable(peer)


@pytest.mark.parametrize("function", ["greentask.nothing", "greentask.", "greentask.results"])
def test_an_own_function_that_is_none_is_an_unknown_task(peer: LineClient, function: str) -> None:
    assert error_of(peer.ask({"function": function}))["type"] == "UnknownTask"


# ---- Limits of one connection


@pytest.fixture(scope="module")
def narrow() -> Iterator[RunningServer]:
    """A server that takes three calls at once from a connection, and five in all."""
    with serving("--max-in-flight", "3", "--max-calls", "5", "--max-connections", "3") as server:
        yield server


def test_a_connection_has_at_most_max_in_flight_calls_running(narrow: RunningServer) -> None:
    with narrow.connect() as peer, narrow.connect() as watcher:
        peer.send(*({"id": number, "function": "nap", "args": [0.2]} for number in range(9)))
        most, answered = 0, 0
        began = time.monotonic()
        peer.socket.setblocking(False)
        while answered < 9:
            most = max(most, watcher.call("greentask.status")["in_flight"] - 1)
            try:
                answered += peer.socket.recv(65536).count(b"\n")
            except BlockingIOError:
                pass
            assert time.monotonic() - began < 10
        assert most == 3
        assert time.monotonic() - began > 0.5, "three rounds of naps"


def test_a_peer_that_a_full_connection_keeps_waiting_gets_signs_of_life() -> None:
    """Empty lines, where it tells lines apart by ids; others may show them to somebody."""
    with (
        serving("--max-in-flight", "2", "--dead-after", "0.5") as full,
        full.connect() as peer,
        full.connect() as simple,
    ):
        for number in range(3):
            peer.send({"id": number, "function": "nap", "args": [0.6]})
            simple.send({"function": "nap", "args": [0.6]})
        lines = [peer.line() for _ in range(3)]
        assert lines[0] == b""
        while len(answers := [json.loads(line) for line in lines if line]) < 3:
            lines.append(peer.line())
        assert {answer["result"] for answer in answers} == {0.6}
        assert simple.hear_all(3) == [{"result": 0.6}] * 3


def test_a_call_s_timeout_counts_while_it_waits_for_max_in_flight(narrow: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    with narrow.connect() as peer:
        naps = [{"id": number, "function": "nap", "args": [0.5]} for number in range(3)]
        peer.send(*naps, {"id": "late", "function": "mark", "args": [str(file)], "timeout": 0.1})
        replies = {reply["id"]: reply for reply in peer.hear_all(4)}
    error = error_of(replies["late"])
    assert (error["type"], error["started"]) == ("DeadlineExceeded", False)
    assert not file.exists()


def test_answers_that_wait_for_their_turn_count_as_in_flight(narrow: RunningServer, tmp_path: Path) -> None:
    """Else a peer whose first call takes long could make the server keep any number of answers."""
    file = tmp_path / "marks"
    calls = [{"function": "echo"} for _ in range(5)]
    last = {"function": "mark", "args": [str(file)]}
    with narrow.connect() as peer:
        peer.send({"id": 1, "function": "nap", "args": [0.4]}, *calls, last)
        assert peer.hear_all(6) == [{"result": None}] * 5 + [{"result": "marked"}]
        assert peer.hear() == {"id": 1, "result": 0.4}
        file.unlink()
        peer.send({"function": "nap", "args": [0.4]}, *calls, last)
        assert select.select([peer.socket], [], [], 0.2)[0] == []
        assert not file.exists()
        assert peer.hear_all(7) == [{"result": 0.4}] + [{"result": None}] * 5 + [{"result": "marked"}]


def test_streams_can_go_on_and_calls_be_cancelled_on_a_connection_that_is_full(narrow: RunningServer) -> None:
    with narrow.connect() as peer:
        peer.send(
            {"id": "a", "function": "count", "args": [3], "stream": 1},
            {"id": "b", "function": "nap", "args": [60]},
            {"id": "c", "function": "nap", "args": [60]},
        )
        assert peer.hear() == {"id": "a", "item": 0}
        assert peer.ask({"id": 1, "function": "greentask.ping"}) == {"id": 1, "result": "pong"}
        peer.send({"more": "a", "items": 1})
        assert peer.hear() == {"id": "a", "item": 1}
        peer.send({"id": 2, "function": "greentask.cancel", "args": ["b"]})
        assert {reply["id"] for reply in peer.hear_all(2)} == {"b", 2}
        peer.send({"more": "a", "items": 2}, {"id": 3, "function": "greentask.cancel", "args": ["c"]})
        assert [json.dumps(reply["id"]) for reply in peer.hear_all(4)].count('"a"') == 2


def test_a_connection_that_is_full_of_streams_refuses_calls_and_reads_on(narrow: RunningServer) -> None:
    """Were it to wait, the lines that let the streams go on would be behind the call."""
    with narrow.connect() as peer:
        peer.send(
            *({"id": number, "function": "count", "args": [2], "stream": 1} for number in range(3)),
            {"id": "late", "function": "add", "args": [1]},
            {"function": "add", "args": [1]},
            *({"more": number} for number in range(3)),
        )
        replies = peer.hear_all(11)
        refused = [reply for reply in replies if "error" in reply]
        assert [(reply.get("id"), reply["error"]["type"]) for reply in refused] == [
            ("late", "Overloaded"),
            (None, "Overloaded"),
        ]
        assert sum(reply.get("result") == {"items": 2} for reply in replies) == 3
        peer.send(*({"id": number, "function": "nap", "args": [0.1]} for number in range(4)))
        assert {reply["id"]: "result" in reply for reply in peer.hear_all(4)} == dict.fromkeys(range(4), True)


def test_a_connection_that_broke_while_it_was_full_of_streams_is_freed(narrow: RunningServer) -> None:
    for leave in (LineClient.close, LineClient.reset):
        peer = narrow.connect()
        peer.send(
            *({"id": number, "function": "count_in_process", "args": [9], "stream": 1} for number in range(2)),
            {"id": 2, "function": "count", "args": [9], "stream": 1},
            {"id": 3, "function": "add", "args": [1]},
        )
        peer.hear_all(4)
        leave(peer)
        wait_until(lambda: is_idle(narrow), "nothing is left of it")


def test_calls_past_max_calls_are_refused_and_those_in_flight_are_unharmed(
    narrow: RunningServer, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    calls = [{"id": number, "function": "wait_for_file", "args": [str(gate)]} for number in range(3)]
    with narrow.connect() as one, narrow.connect() as other:
        one.send(*calls)
        wait_until(lambda: narrow.status()["in_flight"] == 3, "three are in flight")
        other.send(*calls)
        refused = other.hear()
        assert refused["id"] == 2
        error = error_of(refused)
        assert set(error) == {"type", "message"}
        assert error["type"] == "Overloaded"
        assert "5 calls" in error["message"]
        assert other.call("greentask.ping") == "pong", "the server's own functions are answered all the same"
        gate.touch()
        assert [sorted(reply["id"] for reply in peer.hear_all(count)) for peer, count in ((one, 3), (other, 2))] == [
            [0, 1, 2],
            [0, 1],
        ]
        assert is_usable(other)
