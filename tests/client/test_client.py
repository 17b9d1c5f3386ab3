"""``Client``: calling and submitting; what comes back, what is refused here, time limits, progress, cancelling.

test_programs.py runs all of this in a monkey-patched program too, and in a greenlet of one that isn't.
"""

import concurrent.futures
import copy
import itertools
import logging
import math
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import gevent
import pytest

from greentask import (
    CallError,
    Cancelled,
    Client,
    ConfigurationError,
    ConnectionLost,
    DeadlineExceeded,
    Draining,
    InvalidArguments,
    InvalidResult,
    LineTooLong,
    Overloaded,
    TaskError,
    UnknownTask,
    WorkerLost,
)
from support import client_tasks, server_tasks
from support.peers import echoing, peer, silent
from support.servers import LineClient, RunningServer, serving, wait_until

CIRCLE: list[Any] = []
CIRCLE.append(CIRCLE)


def ways_to_call(client: Client) -> list[Callable[[], object]]:
    """Each waits for an answer, and some wait in another way than the others."""
    return [
        lambda: client.call("add", 1),
        lambda: client.submit("add", 1).result(20),
        lambda: client.using(progress=print).call("add", 1),
        lambda: list(client.map("add", [1])),
        lambda: list(client.stream("count", 3)),
    ]


def lines_of(file: Path) -> list[str]:
    return file.read_text().split() if file.exists() else []


def wait_until_alone(server: RunningServer) -> None:
    wait_until(lambda: server.status()["connections"] == 1, "only the observer is connected")


# ---- Results


@pytest.mark.parametrize(
    "value",
    [
        None,
        True,
        False,
        0,
        -7,
        2**53 + 1,
        2**64,
        -(10**30),
        0.1,
        -1e-9,
        1.7976931348623157e308,
        "",
        'é\u2028\x00\n\t"\\ 😀',
        [],
        {},
        [[], {}, [None, [False]]],
        {"": {"a b": [1, {"c": None}]}, "é": ""},
    ],
    ids=repr,
)
def test_every_kind_of_json_comes_back_as_it_was(client: Client, value: Any) -> None:
    result = client.call("echo", value)
    assert result == value
    assert type(result) is type(value)


def test_a_tuple_comes_back_as_a_list(client: Client) -> None:
    assert client.call("echo", (1, (2, 3))) == [1, [2, 3]]


def test_a_large_result_and_a_large_argument_arrive_whole(client: Client) -> None:
    assert client.call("large", 3_000_000) == "x" * 3_000_000
    assert client.call("length", "é" * 3_000_000) == 3_000_000


def test_nesting_is_carried_as_deep_as_the_wire_allows(client: Client) -> None:
    value: list[Any] = []
    for _ in range(190):
        value = [value]
    assert client.call("echo", value) == value


def test_a_future_has_the_result(client: Client) -> None:
    future = client.submit("add", 1, 2)
    assert future.result(20) == 3
    assert future.done()
    assert not future.cancelled()
    assert future.exception() is None


def test_futures_work_with_wait_and_as_completed(client: Client) -> None:
    futures = [client.submit("nap", seconds) for seconds in (0.2, 0.1, 0.0)]
    assert [future.result() for future in concurrent.futures.as_completed(futures, 20)] == [0.0, 0.1, 0.2]
    futures = [client.submit("nap", 0.05) for _ in range(3)] + [client.submit("fail")]
    assert concurrent.futures.wait(futures, 20).not_done == set()


def test_a_future_that_is_not_done_in_time_says_so_and_goes_on(client: Client) -> None:
    future = client.submit("nap", 0.3)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(0.01)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.exception(0)
    assert future.result(20) == 0.3


def test_several_may_wait_for_one_future(client: Client) -> None:
    future = client.submit("nap", 0.1)
    results: list[float] = []
    threads = [threading.Thread(target=lambda: results.append(future.result(20))) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert results == [0.1] * 5


def test_calls_run_at_once_on_one_connection(server: RunningServer, client: Client) -> None:
    wait_until_alone(server)
    began = time.monotonic()
    futures = [client.submit("nap", 0.2) for _ in range(50)]
    assert [future.result(20) for future in futures] == [0.2] * 50
    assert time.monotonic() - began < 5, "one after another they take 10 s"
    assert server.status()["connections"] == 2, "one, and the observer's"


# ---- Arguments


@pytest.mark.parametrize(
    ("args", "kwargs", "result"),
    [
        ((5,), {}, 5),
        ((5, 2), {}, 3),
        ((), {"a": 5}, 5),
        ((), {"b": 2, "a": 5}, 3),
        ((), {"b": 2, "a": 5, "times": 3}, -1),
    ],
)
def test_arguments_go_by_position_or_by_name(
    client: Client, args: tuple[int, ...], kwargs: dict[str, int], result: int
) -> None:
    assert client.call("subtract", *args, **kwargs) == result
    assert client.submit("subtract", *args, **kwargs).result(20) == result
    assert client_tasks.subtract.using(client).call(*args, **kwargs) == result
    assert client_tasks.subtract(*args, **kwargs) == result


def test_a_decorated_task_takes_them_mixed(client: Client) -> None:
    subtract = client_tasks.subtract
    assert client.call(subtract, 5, b=2) == 3
    assert client.submit(subtract, 5, times=2, b=2).result(20) == 1
    assert subtract.using(client).call(5, b=2, times=2) == 1
    assert subtract.using(client).submit(5, 1, times=2).result(20) == 3


def test_mixed_arguments_of_a_task_that_is_only_named_are_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="either by position or by name"):
        client.call("subtract", 5, b=2)
    with pytest.raises(TypeError, match="either by position or by name"):
        client.submit("subtract", 5, b=2)
    with pytest.raises(TypeError, match="either by position or by name"):
        client.call(client_tasks.total, 1, 2, 3, extra=4)  # 2 and 3 have no names


def test_a_function_that_is_no_task_is_refused_with_what_would_do(client: Client) -> None:
    with pytest.raises(TypeError, match="what is called is a @task or the name of one, not <function lines_of"):
        client.call(lines_of, 1)  # type: ignore[call-overload]


def test_an_argument_that_is_given_twice_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="'a' is given by position and by name"):
        client_tasks.subtract.using(client).call(5, a=1)  # type: ignore[misc]


def test_arguments_may_be_named_like_pythons_own_words(client: Client) -> None:
    sent = client.call("send_mail", **{"from": "a", "to": "b", "class": "c"})
    assert sent == {"from": "a", "to": "b", "rest": {"class": "c"}}
    assert client.call(server_tasks.send_mail, "a", "b", subject="s")["rest"] == {"subject": "s"}


def test_arguments_may_be_named_like_ours(client: Client) -> None:
    """``function`` is positional only, so that a task may have one of that name."""
    assert client.call("send_mail", from_="a", to="b", function="f", self="s", timeout=1)["rest"] == {
        "function": "f",
        "self": "s",
        "timeout": 1,
    }


def test_arguments_as_the_wire_has_them(client: Client) -> None:
    assert client.call_args("subtract", [5, 2]) == 3
    assert client.call_args("subtract", {"b": 2, "a": 5}) == 3
    assert client.submit_args("subtract", [5]).result(20) == 5


@pytest.mark.parametrize(
    ("argument", "where"),
    [
        ({"rows": [1, object()]}, "args[0]['rows'][1] is an object"),
        ([1.0, math.nan], "args[0][1] is nan"),
        (math.inf, "args[0] is inf"),
        (b"x", "args[0] is a bytes"),
        ({1, 2}, "args[0] is a set"),
        ("\ud800", "args[0] is '\\ud800'"),
        (CIRCLE, "args[0][0] contains itself"),
    ],
    ids=["object", "nan", "inf", "bytes", "set", "surrogate", "circle"],
)
def test_an_argument_that_json_cannot_carry_is_refused_here_naming_where(argument: Any, where: str) -> None:
    with peer(silent) as nobody, Client(nobody.address) as client:
        with pytest.raises(InvalidArguments) as caught:
            client.call("echo", argument)
        assert "echo: " in str(caught.value)
        assert where in str(caught.value)
        assert caught.value.started is False
        with pytest.raises(InvalidArguments):
            client.submit("echo", argument)
        with pytest.raises(InvalidArguments):
            client.using(progress=print).call("echo", value=argument)
        assert nobody.connections == []


def test_a_call_that_is_too_long_is_refused_here_and_the_others_go_on() -> None:
    with peer(echoing) as server, Client(server.address, max_line=1000) as client:
        before = client.submit("echo", "before")
        with pytest.raises(LineTooLong, match=r"the call of echo is \d+ bytes long, and max_line is 1000"):
            client.call("echo", "x" * 1000)
        assert before.result(20) == "before"
        assert client.call("echo", "after") == "after"
        assert len(server.connections) == 1


# ---- Errors


def test_a_builtin_error_comes_back_as_itself(client: Client) -> None:
    with pytest.raises(ValueError, match="no stock") as caught:
        client.call("fail")
    assert caught.value.args == ("no stock",)
    error = client.submit("fail", "sold out").exception(20)
    assert type(error) is ValueError
    assert error.args == ("sold out",)


def test_a_builtin_error_says_that_it_was_not_raised_here(server: RunningServer, client: Client) -> None:
    error = client.submit("fail").exception(20)
    told = [f"raised by the task, on {server.address}"] if sys.version_info >= (3, 11) else []  # there are no notes
    assert getattr(error, "__notes__", []) == told


@pytest.mark.parametrize("key", ["missing", "", "it's", "'quoted'", "é"])
def test_a_key_error_comes_back_with_its_key(client: Client, key: str) -> None:
    with pytest.raises(KeyError) as caught:
        client.call("lose", key)
    assert caught.value.args == (key,)


@pytest.mark.parametrize(
    ("how", "type", "message"),
    [
        ("unheard", "Unheard", "of here only"),
        ("exit", "SystemExit", "3"),
        ("interrupt", "KeyboardInterrupt", ""),
        ("base", "BaseException", "at the bottom"),
        ("stop", "StopIteration", "7"),
    ],
)
def test_an_error_whose_class_is_not_known_or_not_safe_is_a_task_error(
    client: Client, how: str, type: str, message: str
) -> None:
    with pytest.raises(TaskError) as caught:
        client.call("misbehave", how)
    assert caught.value.type == type
    assert caught.value.args == (message,)
    assert caught.value.started is True


@pytest.mark.parametrize(
    ("function", "args", "error", "part", "started"),
    [
        ("ad", [1], UnknownTask, "did you mean add", False),
        ("add", {"a": 1, "c": 2}, InvalidArguments, "c", False),
        ("add", [1, 2, 3], InvalidArguments, "too many positional", False),
        ("misbehave", ["object"], InvalidResult, "['rows'][1]", True),
        ("misbehave", ["nan"], InvalidResult, "nan", True),
        ("misbehave", ["circle"], InvalidResult, "contains itself", True),
        ("die", [], WorkerLost, "SIGKILL", True),
        ("short_nap", [5], DeadlineExceeded, "while the task ran", True),
    ],
)
def test_the_protocols_errors_come_as_their_classes(
    client: Client, function: str, args: Any, error: type[CallError], part: str, started: bool
) -> None:
    with pytest.raises(error) as caught:
        client.call_args(function, args)
    assert type(caught.value) is error
    assert part in str(caught.value)
    assert caught.value.started is started
    failed = client.submit_args(function, args).exception(20)
    assert type(failed) is error


def test_a_server_that_has_enough_to_do_says_so() -> None:
    with serving("--max-calls", "1") as server, Client(server.address) as client:
        first = client.submit("nap", 0.3)
        with pytest.raises(Overloaded) as caught:
            client.call("add", 1)
        assert caught.value.started is False
        assert first.result(20) == 0.3
        assert client.call("add", 1) == 1


def test_a_server_that_goes_away_answers_what_is_in_flight_and_starts_nothing_new() -> None:
    with serving() as server, Client(server.address, gone_after=0) as client:
        first = client.submit("nap", 0.5)
        assert client.call("add", 1) == 1
        server.signal(signal.SIGTERM)
        wait_until(lambda: client.call("greentask.status")["draining"], "it is going away")
        with pytest.raises(Draining) as caught:
            client.call("add", 1)
        assert caught.value.started is False
        assert first.result(20) == 0.5


def test_a_call_that_the_server_was_told_to_cancel_says_so(client: Client) -> None:
    future = client.submit("overlap", "to be cancelled", 30)
    wait_until(lambda: client.call("running_now", "to be cancelled"), "it runs")
    assert client.call("greentask.cancel", id=future._id) is True  # type: ignore[attr-defined]
    error = future.exception(20)
    assert type(error) is Cancelled
    assert error.started is True


def test_the_connection_outlives_every_error(server: RunningServer, client: Client) -> None:
    wait_until_alone(server)
    assert client.call("add", 1) == 1
    for how in ("unheard", "exit", "object", "surrogate", "stop"):
        with pytest.raises(Exception):  # noqa: B017 - each has its own
            client.call("misbehave", how)
    assert client.call("add", 1) == 1
    assert server.status()["connections"] == 2, "one, and the observer's"


def test_the_traceback_comes_along_where_the_server_sends_it() -> None:
    with serving("--debug") as server, Client(server.address) as client:
        with pytest.raises(ValueError, match="no stock") as caught:
            client.call("fail")
        assert isinstance(caught.value.__cause__, TaskError)
        assert "raise ValueError(text)" in str(caught.value.__cause__)
        with pytest.raises(TaskError) as unheard:
            client.call("misbehave", "unheard")
        assert "Unheard: of here only" in (unheard.value.traceback or "")


# ---- Time limits


def test_the_server_stops_what_takes_too_long(client: Client, tmp_path: Path) -> None:
    file, began = tmp_path / "marks", time.monotonic()
    with pytest.raises(DeadlineExceeded) as caught:
        client.using(timeout=0.3).call("mark", str(file), 30)
    assert caught.value.started is True
    assert isinstance(caught.value, TimeoutError)
    assert time.monotonic() - began < 5
    wait_until(lambda: lines_of(file) == ["started", "TimeLimit"], "the task sees its end")


def test_the_nearest_word_about_a_timeout_wins(server: RunningServer) -> None:
    with Client(server.address, timeout=30) as client:
        assert client.call("who")["remaining"] == 30
        assert client.using(timeout=20).call("who")["remaining"] == 20
        assert client.using(timeout=20).using(progress=print).call("who")["remaining"] == 20
        assert client.using(timeout=20).call_args("who", {}, timeout=10)["remaining"] == 10
        assert client.using(timeout=20).submit_args("who", {}, timeout=10).result(20)["remaining"] == 10
        assert server_tasks.who.using(client).call()["remaining"] == 30
        assert server_tasks.who.using(client, timeout=10).call()["remaining"] == 10
        assert server_tasks.who.using(client, timeout=10).submit().result(20)["remaining"] == 10


def test_without_a_timeout_there_is_none(client: Client) -> None:
    assert client.call("who")["remaining"] is None


@pytest.mark.parametrize("timeout", [0, -1, math.nan, math.inf, 10**400])
def test_an_impossible_timeout_is_refused(client: Client, timeout: float) -> None:
    for use in (
        lambda: Client("127.0.0.1:1", timeout=timeout),
        lambda: client.using(timeout=timeout),
        lambda: client.call_args("echo", [], timeout=timeout),
        lambda: client.submit_args("echo", [], timeout=timeout),
    ):
        with pytest.raises(ValueError, match="timeout is in seconds above 0"):
            use()


@pytest.mark.parametrize("timeout", ["3", True, [3], 1j])
def test_a_timeout_that_is_no_number_is_refused_in_the_same_words(client: Client, timeout: Any) -> None:
    for use in (
        lambda: Client("127.0.0.1:1", timeout=timeout),
        lambda: client.using(timeout=timeout),
        lambda: server_tasks.add.using(client, timeout=timeout).call(1, 2),
    ):
        with pytest.raises(TypeError, match="timeout is in seconds above 0, not "):
            use()


def test_a_timeout_is_any_kind_of_number(client: Client) -> None:
    for timeout in (5, 5.5, Decimal("5.5"), 1e308):
        assert client.using(timeout=timeout).call("add", 1, 2) == 3


@pytest.mark.parametrize(
    ("option", "value", "told"),
    [
        *((name, 0, "in seconds above 0") for name in ("connect_timeout", "dead_after", "idle_after", "resolve_after")),
        ("connect_timeout", -1, "in seconds above 0, not -1"),
        ("connect_timeout", math.nan, "in seconds above 0, not nan"),
        ("connect_timeout", "3", "in seconds above 0, not '3'"),
        ("gone_after", -1, "in seconds from 0 on, not -1"),
        ("max_line", 0, "at least 1, not 0"),
        ("max_line", math.nan, "whole number, not nan"),
        ("max_line", "3", "whole number, not '3'"),
    ],
)
def test_an_impossible_option_is_refused_by_its_name(option: str, value: Any, told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=f"^{option} (is|must be) .*{told}"):
        Client("127.0.0.1:1", **{option: value})


def test_a_progress_that_is_no_function_is_refused(client: Client) -> None:
    with pytest.raises(TypeError, match="progress is a function that takes reports, or True for a bar, not 5"):
        client.using(progress=5)  # type: ignore[arg-type]


def test_a_server_that_hangs_is_not_waited_for() -> None:
    """Stopped by a signal, its kernel goes on accepting and acknowledging; only the client's own clock helps."""
    with serving() as server, Client(server.address, timeout=0.3) as client:
        assert client.call("add", 1) == 1
        told: list[BaseException] = []

        def give_up(way: Callable[[], object]) -> None:
            began = time.monotonic()
            with pytest.raises(DeadlineExceeded, match=r"no answer from the server within 0\.3 s") as caught:
                way()
            assert 0.3 <= time.monotonic() - began < 3
            told.append(caught.value)

        threads = [threading.Thread(target=give_up, args=(way,)) for way in ways_to_call(client)]
        server.signal_all(signal.SIGSTOP)
        try:
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
        finally:
            server.signal_all(signal.SIGCONT)
        assert [error.started for error in told if isinstance(error, DeadlineExceeded)] == [None] * 5, "nobody knows"
        assert client.using(timeout=20).call("add", 2) == 2, "what comes late is nobody else's"


def test_an_answer_that_comes_when_nobody_waits_is_dropped_and_counted() -> None:
    def answer_late(connection: LineClient) -> None:
        first = connection.hear()
        cancel = connection.hear()
        assert (cancel["function"], cancel["args"]) == ("greentask.cancel", {"id": first["id"]})
        connection.send({"id": first["id"], "result": "late"}, {"id": cancel["id"], "result": False})
        echoing(connection)

    with peer(answer_late) as server, Client(server.address) as client:
        with pytest.raises(DeadlineExceeded):
            client.using(timeout=0.1).call("echo", "first")
        assert client.call("echo", "second") == "second"
        assert client._core.router().dropped == 1


# ---- Progress


def test_progress_is_reported_where_the_call_is_made(client: Client) -> None:
    reports: list[dict[str, Any]] = []
    places: set[tuple[int, int]] = set()

    def here() -> tuple[int, int]:
        return threading.get_native_id(), id(gevent.getcurrent())

    def report(progress: dict[str, Any]) -> None:
        reports.append(progress)
        places.add(here())

    assert client.using(progress=report).call("advance", 5, 0.01, "x") == 5
    assert reports == [{"done": done, "total": 5, "note": "x"} for done in range(1, 6)]
    assert places == {here()}


def test_progress_comes_from_task_processes_and_for_decorated_tasks(client: Client) -> None:
    reports: list[dict[str, Any]] = []
    task = server_tasks.advance_in_process.using(client, progress=reports.append)
    assert task.call(3, 0.01) == 3
    assert [report["done"] for report in reports] == [1, 2, 3]


def test_progress_of_a_future_is_reported_before_its_end(client: Client) -> None:
    reports: list[dict[str, Any]] = []
    future = client.using(progress=reports.append).submit("advance", 5, 0.01)
    assert future.result(20) == 5
    assert [report["done"] for report in reports] == [1, 2, 3, 4, 5]


def test_nobody_is_told_of_progress_who_did_not_ask(client: Client) -> None:
    assert client.call("advance", 3) == 3
    assert client.submit("advance", 3).result(20) == 3


def test_an_error_in_a_callback_ends_its_call_and_cancels_it(client: Client) -> None:
    def report(_: dict[str, Any]) -> None:
        raise RuntimeError("the bar broke")

    with pytest.raises(RuntimeError, match="the bar broke"):
        client.using(progress=report).call("advance", 3000, 0.01)  # the fixture sees whether it is left running


def test_an_error_in_the_callback_of_a_future_is_told_and_does_no_harm(
    client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    def report(_: dict[str, Any]) -> None:
        raise RuntimeError("the bar broke")

    other = client.submit("nap", 0.3)
    assert client.using(progress=report).submit("advance", 2).result(20) == 2
    assert other.result(20) == 0.3
    assert [record.exc_info[0] for record in caplog.records if record.exc_info] == [RuntimeError] * 2
    assert {record.levelno for record in caplog.records} == {logging.ERROR}


def test_a_slow_listener_hears_of_the_newest_and_keeps_no_heap_of_the_old(client: Client) -> None:
    heard: list[int] = []

    def report(progress: dict[str, Any]) -> None:
        time.sleep(0.02 if len(heard) < 10 else 0)
        heard.append(progress["done"])

    assert client.using(progress=report).call("advance", 5000) == 5000
    assert heard == sorted(set(heard))
    assert heard[-1] == 5000
    assert len(heard) < 2500


# ---- Cancelling


def test_cancelling_the_future_cancels_the_task(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    future = client.submit("mark", str(file), 30)
    wait_until(lambda: lines_of(file), "the task starts")
    assert future.cancel()
    assert future.cancelled()
    assert future.done()
    with pytest.raises(concurrent.futures.CancelledError):
        future.result()
    wait_until(lambda: lines_of(file) == ["started", "CancelRequest"], "the task sees its end")
    assert client.call("add", 1) == 1
    assert client._core.router().dropped == 1, "the answer to the call; that to the cancellation is expected"


def test_cancelling_ends_a_task_in_a_process(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    future = client.submit("mark_in_process", str(file), 30)
    wait_until(lambda: lines_of(file), "the task starts")
    future.cancel()
    wait_until(lambda: lines_of(file)[1:] == ["CancelRequest"], "the task sees its end")


def test_what_is_cancelled_before_it_could_be_sent_is_never_sent() -> None:
    heard: list[Any] = []

    def note(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            heard.append(line)
            connection.send({"id": 3, "result": "third"})

    with peer(note) as server, Client(server.address) as client:
        first, second = client.submit("first"), client.submit("second")
        first.cancel()
        second.cancel()
        assert client.call("third") == "third"
        assert [b"third" in line for line in heard] == [True]


def test_a_cancelled_call_that_waits_its_turn_never_runs(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    client.call("add", 1)  # it is connected
    running = [client.submit("nap_in_process", 0.5) for _ in range(2)]  # all the processes there are
    waiting = client.submit("mark_in_process", str(file))
    assert waiting.cancel()
    assert [future.result(20) for future in running] == [0.5, 0.5]
    assert client.call("add_in_process", 1) == 1
    assert lines_of(file) == []


def test_what_has_ended_cannot_be_cancelled(client: Client) -> None:
    future = client.submit("add", 1)
    assert future.result(20) == 1
    assert not future.cancel()
    assert future.result() == 1


def test_cancelling_again_changes_nothing(client: Client) -> None:
    ended: list[object] = []
    future = client.submit("nap", 30)
    future.add_done_callback(ended.append)
    future.add_done_callback(lambda future: ended.append(future.cancel()))
    assert future.cancel()
    assert future.cancel()
    assert ended == [future, True]
    assert concurrent.futures.wait([future], 1).done == {future}


def test_many_threads_may_cancel_at_once(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    failed: list[BaseException] = []
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for _ in range(30):
            future, ready = client.submit("nap", 30), threading.Barrier(4)
            threads = [threading.Thread(target=cancel_when, args=(ready, future, failed)) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(20)
    finally:
        sys.setswitchinterval(interval)
    assert failed == []
    assert caplog.records == []


def cancel_when(
    ready: threading.Barrier, future: "concurrent.futures.Future[Any]", failed: list[BaseException]
) -> None:
    ready.wait(20)
    try:
        assert future.cancel()
    except BaseException as error:
        failed.append(error)


def test_who_waits_for_a_future_hears_that_it_was_cancelled(client: Client) -> None:
    future = client.submit("nap", 30)
    caught: list[BaseException] = []

    def wait() -> None:
        try:
            future.result(20)
        except concurrent.futures.CancelledError as error:
            caught.append(error)

    waiting = threading.Thread(target=wait)
    waiting.start()
    wait_until(lambda: future._condition.bell and future._condition.bell.wakes, "somebody waits")  # type: ignore[attr-defined]
    future.cancel()
    waiting.join(20)
    assert len(caught) == 1


# ---- Callbacks


def test_a_callback_that_would_wait_for_its_own_connection_is_told_so(client: Client) -> None:
    """It runs where answers are read: waiting for one there would stop them all, for ever."""
    told: list[str] = []

    def again(_: "concurrent.futures.Future[Any]") -> None:
        ways: list[Callable[[], object]] = [
            lambda: client.call("add", 1),
            lambda: client.submit("add", 1).result(),
            lambda: client.using(progress=print).call("add", 1),
            lambda: next(client.stream("count", 1)),
        ]
        for way in ways:
            try:
                way()
            except RuntimeError as error:
                told.append(str(error))

    future = client.submit("nap", 0.1)
    future.add_done_callback(again)
    assert future.result(20) == 0.1
    wait_until(lambda: len(told) == 4, "all have been told")
    assert all("can't wait" in text for text in told)
    assert client.call("add", 2) == 2


def test_a_callback_that_runs_in_the_hub_is_told_so_too() -> None:
    """There are timers, besides the greenlet that reads."""
    told: list[str] = []

    def again(_: "concurrent.futures.Future[Any]") -> None:
        try:
            client.call("add", 1)
        except RuntimeError as error:
            told.append(str(error))

    with peer(silent) as server, Client(server.address, timeout=0.01) as client:
        future = client.submit("f")
        future.add_done_callback(again)
        assert type(future.exception(20)) is DeadlineExceeded
        wait_until(lambda: told, "it has been told")
    assert "can't wait" in told[0]


def test_a_callback_may_submit(client: Client) -> None:
    futures: list[concurrent.futures.Future[Any]] = []
    first = client.submit("nap", 0.1)
    first.add_done_callback(lambda _: futures.append(client.submit("add", 2)))
    wait_until(lambda: futures, "the callback runs")
    assert futures[0].result(20) == 2


# ---- Many at once


def test_a_thousand_calls_from_eight_threads_get_each_its_own_answer(client: Client) -> None:
    wrong: list[object] = []
    done = itertools.count()

    def caller(thread: int) -> None:
        for number in range(125):
            value = [thread, number]
            if client.call("echo", value) != value:
                wrong.append(value)
            next(done)

    threads = [threading.Thread(target=caller, args=(thread,)) for thread in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert next(done) == 1000
    assert wrong == []


def test_calls_of_every_kind_do_not_mix(client: Client) -> None:
    reports: list[int] = []
    stream = client.stream("count", 100, window=3)
    futures = [client.submit("echo", number) for number in range(200)]
    mapped = client.map("echo", range(200), window=7)
    for number in range(100):
        assert next(stream) == number
        assert next(mapped) == number
        if number % 25 == 0:
            reporting = client.using(progress=lambda progress: reports.append(progress["done"]))
            assert reporting.call("advance", 3) == 3
    assert list(stream) == []
    assert list(mapped) == list(range(100, 200))
    assert [future.result(20) for future in futures] == list(range(200))
    assert reports == [1, 2, 3] * 4


# ---- The client itself


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy])
def test_a_copy_shares_the_connections(client: Client, copied: Callable[[Client], Client]) -> None:
    other = copied(client.using(timeout=20))
    assert other.call("add", 1, 2) == 3
    assert other._core is client._core


def test_it_is_not_sent_to_another_process_but_says_what_would_do(client: Client) -> None:
    for value in (client, client.executor()):
        with pytest.raises(TypeError, match="make a client there, or let tasks be called on the default one"):
            pickle.dumps(value)


def test_it_says_where_it_calls() -> None:
    assert repr(Client("localhost:1, unix:///run/x")) == "<Client of tcp://localhost:1, unix:///run/x>"
    assert repr(Client(["Text://127.0.0.1:2"]).using(timeout=1)) == "<Client of tcp://127.0.0.1:2>"


@pytest.mark.parametrize("address", ["", "nowhere", "http://x:1", "127.0.0.1:99999", [], "unix://relative"])
def test_an_address_that_is_none_is_refused_at_once(address: Any) -> None:
    with pytest.raises(ConfigurationError):
        Client(address)


def test_using_shares_the_connection_and_changes_no_other(server: RunningServer, client: Client) -> None:
    wait_until_alone(server)
    hurried = client.using(timeout=10)
    assert hurried.call("who")["remaining"] == 10
    assert client.call("who")["remaining"] is None
    assert server.status()["connections"] == 2, "one, and the observer's"


def test_the_lines_are_as_the_protocol_says() -> None:
    lines: list[Any] = []

    def note(connection: LineClient) -> None:
        for _ in range(4):
            lines.append(message := connection.hear())
            connection.send({"id": message["id"], "result": None})
        silent(connection)

    with peer(note) as server, Client(server.address) as client:
        client.call("f")
        client.using(timeout=5).call("f", 1)
        client.using(progress=print).call("f", a=1)
        list(client.stream("f", window=3))
    assert lines == [
        {"function": "f", "args": {}, "id": 1},
        {"function": "f", "args": [1], "id": 2, "timeout": 5},
        {"function": "f", "args": {"a": 1}, "id": 3, "progress": True},
        {"function": "f", "args": {}, "id": 4, "stream": 3},
    ]


def test_nobody_listens(unused_port: int) -> None:
    client = Client(f"127.0.0.1:{unused_port}")
    for way in ways_to_call(client):
        with pytest.raises(ConnectionLost, match=f"can't connect to tcp://127.0.0.1:{unused_port}") as caught:
            way()
        assert caught.value.sent is False
        assert isinstance(caught.value, ConnectionError)
