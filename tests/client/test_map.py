"""``Client.map``: order, the window, inputs that are read lazily or fail, errors in their turn, closing."""

import itertools
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from greentask import Client, DeadlineExceeded, InvalidArguments
from support import client_tasks, server_tasks
from support.peers import peer, silent
from support.servers import RunningServer, wait_until

BOTH = pytest.mark.parametrize("unordered", [False, True], ids=["ordered", "unordered"])


def close(results: Iterator[Any]) -> None:
    results.close()  # type: ignore[attr-defined]


# ---- Order


@pytest.mark.parametrize("window", [1, 2, 7, 100, 1000])
@BOTH
def test_it_gives_what_the_builtin_gives(client: Client, window: int, unordered: bool) -> None:
    results = list(client.map("add", range(30), range(100, 130), window=window, unordered=unordered))
    expected = list(map(lambda a, b: a + b, range(30), range(100, 130)))
    assert (sorted(results) if unordered else results) == expected


def test_the_shortest_input_ends_it(client: Client) -> None:
    assert list(client.map("add", [1, 2, 3], [10, 20])) == [11, 22]


@BOTH
def test_no_input_gives_no_results(client: Client, unordered: bool) -> None:
    assert list(client.map("add", [], unordered=unordered)) == []
    assert list(client.map("add", unordered=unordered)) == []


def test_results_keep_the_order_of_their_inputs(client: Client) -> None:
    assert list(client.map("nap", [0.2, 0.1, 0.0])) == [0.2, 0.1, 0.0]


def test_unordered_results_come_as_they_are_ready(client: Client) -> None:
    assert list(client.map("nap", [0.3, 0.15, 0.0], unordered=True)) == [0.0, 0.15, 0.3]


def test_a_task_has_the_same(client: Client) -> None:
    add = server_tasks.add.using(client)
    assert list(server_tasks.count.using(client).stream(3, pause=0.0)) == [0, 1, 2]
    assert list(add.map([1, 2], [10, 20])) == [11, 22]
    assert sorted(add.map([1, 2], unordered=True, window=1)) == [1, 2]
    assert list(add.starmap([(1, 2), {"b": 1, "a": 4}, [5]])) == [3, 5, 5]
    assert list(client_tasks.subtract.using(client).starmap([{"a": 9, "b": 2, "times": 3}])) == [3]


def test_arguments_as_the_wire_has_them(client: Client) -> None:
    assert list(client.map_args("add", [[1, 2], {"a": 3, "b": 4}])) == [3, 7]


# ---- The window, and the input


@BOTH
@pytest.mark.parametrize("window", [1, 3])
def test_no_more_calls_run_at_once_than_the_window_says(client: Client, window: int, unordered: bool) -> None:
    key = f"{window} {unordered}"
    assert len(list(client.map("overlap", [key] * 8, [0.03] * 8, window=window, unordered=unordered))) == 8
    assert client.call("most_at_once", key) == window


@BOTH
def test_the_input_is_read_as_results_are_taken(client: Client, unordered: bool) -> None:
    read: list[int] = []

    def numbers() -> Iterator[int]:
        while True:
            read.append(len(read))
            yield read[-1]

    results = client.map("add", numbers(), window=5, unordered=unordered)
    assert read == [], "nothing is read before the first result is asked for"
    for taken in range(1, 21):
        next(results)
        assert len(read) <= taken + 5
    close(results)
    assert len(read) <= 25


def test_an_input_without_end_is_possible(client: Client) -> None:
    with closing(client.map("add", itertools.count())) as results:  # type: ignore[type-var]
        assert list(itertools.islice(results, 250)) == list(range(250))


def test_nothing_is_sent_before_the_first_result_is_asked_for() -> None:
    with peer(silent) as server, Client(server.address) as client:
        results = client.map("add", [1])
        close(results)
        del results
        assert server.connections == []


@pytest.mark.parametrize("text", ["abc", b"abc"])
def test_text_where_an_iterable_is_meant_is_refused_at_once(client: Client, text: Any) -> None:
    with pytest.raises(TypeError, match="letter by letter"):
        client.map("echo", text)
    with pytest.raises(TypeError, match="letter by letter"):
        server_tasks.add.using(client).map([1], text)


@pytest.mark.parametrize("window", [0, -1])
def test_an_impossible_window_is_refused_at_once(client: Client, window: int) -> None:
    with pytest.raises(ValueError, match="window must be at least 1"):
        client.map("add", [1], window=window)


@pytest.mark.parametrize("window", [1.5, float("nan"), "3", True])
def test_a_window_that_is_no_number_of_calls_is_refused_at_once(client: Client, window: Any) -> None:
    for use in (
        lambda: client.map("add", [1], window=window),
        lambda: client.stream("count", 1, window=window),
        lambda: client.executor(window=window),
    ):
        with pytest.raises(TypeError, match="window must be a whole number, not "):
            use()


# ---- Errors


def test_an_error_has_its_turn_and_ends_it(client: Client) -> None:
    results = client.map("length", ["a", "bb", 3, "dddd"])
    assert [next(results), next(results)] == [1, 2]
    with pytest.raises(TypeError, match="has no len"):
        next(results)
    assert list(results) == []


def test_an_unordered_error_ends_it_too(client: Client) -> None:
    results = client.map("length", [3, "a", "bb"], unordered=True, window=1)
    with pytest.raises(TypeError, match="has no len"):
        next(results)
    assert list(results) == []


@BOTH
def test_errors_may_be_had_like_results(client: Client, unordered: bool) -> None:
    results = list(client.map("length", ["a", 2, "ccc"], return_exceptions=True, unordered=unordered))
    assert sorted(result for result in results if isinstance(result, int)) == [1, 3]
    assert [type(result) for result in results if not isinstance(result, int)] == [TypeError]
    if not unordered:
        assert results[0] == 1
        assert results[2] == 3


@BOTH
def test_what_json_cannot_carry_has_its_turn_like_any_error(client: Client, unordered: bool) -> None:
    inputs: list[Any] = ["a", object(), "ccc"]
    results = client.map("echo", inputs, unordered=unordered, window=1)
    assert next(results) == "a"
    with pytest.raises(InvalidArguments, match=r"args\[0\] is an object"):
        next(results)
    assert list(results) == []
    results = client.map("echo", inputs, unordered=unordered, window=1, return_exceptions=True)
    assert [type(result) for result in results] == [str, InvalidArguments, str]


@pytest.mark.parametrize("return_exceptions", [False, True])
@pytest.mark.parametrize("window", [1, 3, 100])
@BOTH
def test_an_input_that_fails_gives_first_what_came_before(
    client: Client, window: int, unordered: bool, return_exceptions: bool
) -> None:
    def inputs() -> Iterator[int]:
        yield from range(5)
        raise OSError("the file ended badly")

    results = client.map("add", inputs(), window=window, unordered=unordered, return_exceptions=return_exceptions)
    got: list[int] = []
    with pytest.raises(OSError, match="the file ended badly"):
        got.extend(results)
    assert sorted(got) == list(range(5))


@BOTH
def test_the_time_limit_holds_for_each_call(client: Client, unordered: bool) -> None:
    results = client.using(timeout=0.2).map("nap", [0.0, 30], unordered=unordered)
    assert next(results) == 0.0
    with pytest.raises(DeadlineExceeded):
        next(results)
    task = server_tasks.nap.using(client, timeout=0.2)
    with pytest.raises(DeadlineExceeded):
        list(task.map([30], unordered=unordered))


# ---- Its end


@BOTH
def test_closing_it_cancels_what_runs(server: RunningServer, client: Client, tmp_path: Path, unordered: bool) -> None:
    files = [tmp_path / str(number) for number in range(4)]
    results = client.map("mark", map(str, files), [0, 30, 30, 30], window=3, unordered=unordered)
    assert next(results) == "marked"
    wait_until(lambda: all(file.exists() for file in files[:3]), "three have begun")
    close(results)
    for file in files[1:3]:
        wait_until(lambda file=file: file.read_text().split() == ["started", "CancelRequest"], "it is cancelled")  # type: ignore[misc]
    assert not files[3].exists(), "the window was full: this one was never sent"
    assert list(results) == []


@BOTH
def test_an_error_cancels_the_others(client: Client, unordered: bool) -> None:
    began = time.monotonic()
    results = client.map("nap", ["no number", 30, 30], unordered=unordered)
    with pytest.raises(TypeError):
        next(results)
    wait_until(lambda: client.call("greentask.status")["in_flight"] == 1, "only the question is in flight")
    assert time.monotonic() - began < 10


@BOTH
def test_leaving_the_loop_cancels_the_others(client: Client, unordered: bool) -> None:
    for result in client.map("nap", [0.0, 30, 30], unordered=unordered):
        assert result == 0.0
        break
    wait_until(lambda: client.call("greentask.status")["in_flight"] == 1, "only the question is in flight")
