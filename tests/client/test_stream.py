"""``Client.stream``: the items of a generator task, its window, its errors, and its early end."""

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greentask import Client, ConnectionLost, DeadlineExceeded, InvalidArguments, InvalidMessage, UnknownTask
from greentask.client.receivers import Item
from support import server_tasks
from support.peers import peer, silent
from support.servers import LineClient, wait_until


def close(items: Iterator[Any]) -> None:
    items.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("window", [1, 2, 3, 64, 1000])
@pytest.mark.parametrize("function", ["count", "count_in_process"])
def test_the_items_come_in_their_order(client: Client, function: str, window: int) -> None:
    assert list(client.stream(function, 300, window=window)) == list(range(300))


def test_items_come_as_they_are_made(client: Client) -> None:
    items = client.stream("hold_items", "the second item")
    assert next(items) == "before"
    client.call("release", "the second item")
    assert list(items) == ["the second item"]


def test_an_empty_stream_ends(client: Client) -> None:
    assert list(client.stream("count", 0)) == []


def test_arguments_go_as_in_a_call(client: Client) -> None:
    assert list(client.stream("count", to=2)) == [0, 1]
    assert list(client.stream(server_tasks.count, 2, pause=0.0)) == [0, 1]
    with pytest.raises(TypeError, match="either by position or by name"):
        client.stream("count", 2, pause=0.0)


def test_arguments_as_the_wire_has_them(client: Client) -> None:
    assert list(client.stream_args("count", [2])) == [0, 1]
    assert list(client.stream_args("count", {"to": 3}, window=1)) == [0, 1, 2]
    with pytest.raises(DeadlineExceeded):
        list(client.stream_args("count", [1000, 0.05], timeout=0.2))
    with pytest.raises(ValueError, match="window must be at least 1"):
        client.stream_args("count", [2], window=0)


def test_a_generator_that_is_only_called_gives_all_its_items(client: Client) -> None:
    assert client.call("count", 3) == [0, 1, 2]


def test_the_generator_is_at_most_the_window_ahead(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "at"

    def at() -> int:
        for _ in range(5):  # the server has done all that it had to do, several times
            client.call("add", 1)
        return int(file.read_text())

    items = client.stream("count_and_mark", 100, str(file), window=4)
    assert next(items) == 0
    wait_until(lambda: at() >= 3, "the window is used")
    assert at() <= 4
    for taken in range(1, 40):
        assert next(items) == taken
        assert at() <= taken + 5
    close(items)


def test_an_error_comes_after_the_items_before_it(client: Client) -> None:
    items = client.stream("count_badly", 3)
    assert [next(items), next(items), next(items)] == [0, 1, 2]
    with pytest.raises(ValueError, match="as far as I can count"):
        next(items)
    assert list(items) == []


def test_a_lost_connection_is_an_error_after_the_items_before_it_and_nothing_is_sent_again() -> None:
    heard = []

    def break_off(connection: LineClient) -> None:
        call = connection.hear()
        heard.append(call["function"])
        connection.send({"id": call["id"], "item": 1}, {"id": call["id"], "item": 2})

    with peer(break_off) as server, Client(server.address) as client:
        items = client.using(idempotent=True).stream("count", 3)
        assert [next(items), next(items)] == [1, 2]
        with pytest.raises(ConnectionLost):
            next(items)
        assert heard == ["count"]


@pytest.mark.parametrize(
    ("function", "args", "error"),
    [("counts", (3,), UnknownTask), ("count", (), InvalidArguments), ("add", (1,), InvalidArguments)],
)
def test_what_cannot_be_streamed_says_so(
    client: Client, function: str, args: tuple[int, ...], error: type[Exception]
) -> None:
    with pytest.raises(error):
        next(client.stream(function, *args))


def test_progress_is_reported_between_the_items() -> None:
    """To whoever takes the items, in their order."""

    def report(connection: LineClient) -> None:
        call = connection.hear()
        assert call["progress"] is True
        for number in range(3):
            connection.send({"id": call["id"], "progress": {"done": number}}, {"id": call["id"], "item": number})
        connection.send({"id": call["id"], "result": {"items": 3}})
        silent(connection)

    told: list[Any] = []
    with peer(report) as server, Client(server.address) as client:
        for item in client.using(progress=lambda report: told.append((report, threading.get_ident()))).stream("rows"):
            assert told[-1] == ({"done": item}, threading.get_ident())
    assert len(told) == 3


def test_reports_of_a_reader_who_is_behind_are_no_items_too_many(client: Client) -> None:
    items = client.using(progress=lambda report: None).stream("count_and_report", 2000, window=4)
    assert next(items) == 0
    (sent,) = client._core.router()._calls.values()
    waiting = sent.receiver.mailbox._events  # type: ignore[attr-defined]
    wait_until(lambda: sum(isinstance(event, Item) for event in tuple(waiting)) >= 3, "as many as were granted")
    assert list(items) == list(range(1, 2000))


def test_what_a_callback_raises_ends_the_stream(client: Client) -> None:
    def fail(report: dict[str, Any]) -> None:
        raise ValueError("no place for it")

    items = client.using(progress=fail).stream("count_and_report", 10)
    with pytest.raises(ValueError, match="no place for it"):
        next(items)


def test_an_impossible_window_is_refused_at_once(client: Client) -> None:
    with pytest.raises(ValueError, match="window must be at least 1"):
        client.stream("count", 1, window=0)


def test_the_time_limit_holds_for_the_whole(client: Client) -> None:
    items = client.using(timeout=0.3).stream("count", 1000, 0.05)
    got: list[int] = []
    with pytest.raises(DeadlineExceeded):
        got.extend(items)
    assert got == list(range(len(got)))
    assert 1 <= len(got) <= 6


def test_closing_early_stops_the_generator(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "at"
    items = client.stream("count_and_mark", 10**9, str(file), window=3)
    assert [next(items), next(items)] == [0, 1]
    close(items)
    wait_until(Path(f"{file}.closed").exists, "the generator is closed")
    assert int(file.read_text()) < 10
    assert list(items) == []


def test_leaving_the_loop_stops_the_generator(client: Client, tmp_path: Path) -> None:
    file = tmp_path / "at"
    for item in client.stream("count_and_mark", 10**9, str(file)):
        if item == 100:
            break
    wait_until(Path(f"{file}.closed").exists, "the generator is closed")


def test_nothing_is_sent_before_the_first_item_is_asked_for() -> None:
    with peer(silent) as server, Client(server.address) as client:
        close(client.stream("count", 3))
        assert server.connections == []


def test_who_takes_slowly_grants_slowly() -> None:
    """What the server is told, line by line: grants come only as items are taken, and cover them all."""
    grants: list[int] = []

    def count(connection: LineClient) -> None:
        call = connection.hear()
        assert call["stream"] == 4
        credit, sent = 4, 0
        while sent < 20:
            while credit and sent < 20:
                connection.send({"id": call["id"], "item": sent})
                sent, credit = sent + 1, credit - 1
            if sent < 20:
                more = connection.hear()
                assert more == {"more": call["id"], "items": more["items"]}
                grants.append(more["items"])
                credit += more["items"]
        connection.send({"id": call["id"], "result": {"items": sent}})
        silent(connection)

    with peer(count) as server, Client(server.address) as client:
        items = client.stream("count", window=4)
        assert next(items) == 0
        assert grants == []
        assert list(items) == list(range(1, 20))
    assert 16 <= sum(grants) <= 20


def test_a_server_that_does_not_wait_for_its_reader_is_stopped() -> None:
    sent, cancelled = threading.Event(), threading.Event()

    def flood(connection: LineClient) -> None:
        call = connection.hear()
        for _ in range(100):
            connection.send(*({"id": call["id"], "item": number} for number in range(100)))
        sent.set()
        while connection.hear().get("function") != "greentask.cancel":
            pass
        cancelled.set()
        silent(connection)

    with peer(flood) as server, Client(server.address) as client:
        items = client.stream("rows", window=10)
        assert next(items) == 0
        assert sent.wait(20)
        with pytest.raises(InvalidMessage, match="faster than it was asked to"):
            assert len(list(items)) < 30
        assert cancelled.wait(20)
