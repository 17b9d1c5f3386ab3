"""``map`` and executors where a server has no room for all of their calls: they slow down, and nothing fails."""

import json
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from gevent.hub import get_hub

from greentask import Client, DeadlineExceeded, Overloaded
from greentask.client import pacing
from greentask.client.pacing import Pacing
from greentask.client.sent import Sent
from support.interrupting import at_each_moment
from support.peers import peer
from support.servers import LineClient, RunningServer, serving, wait_until

COUNT = 150


def through_map(client: Client, seconds: list[float]) -> list[Any]:
    return list(client.map("keep_apart", seconds))


def through_unordered_map(client: Client, seconds: list[float]) -> list[Any]:
    return list(client.map("keep_apart", seconds, unordered=True))


def through_executor(client: Client, seconds: list[float]) -> list[Any]:
    with client.executor() as executor:
        return [future.result() for future in [executor.submit("keep_apart", one) for one in seconds]]


def through_its_map(client: Client, seconds: list[float]) -> list[Any]:
    with client.executor() as executor:
        return list(executor.map("keep_apart", seconds, chunksize=16))


@pytest.mark.parametrize("way", [through_map, through_unordered_map, through_executor, through_its_map])
def test_a_server_gets_as_many_as_it_takes(client: Client, way: Callable[[Client, list[float]], list[Any]]) -> None:
    assert way(client, [0.0] * COUNT) == [0.0] * COUNT
    assert not client._core.router()._pacing.lines


@pytest.fixture(scope="module")
def narrow() -> Iterator[RunningServer]:
    with serving("--max-calls", "2", apps=["support.server_tasks"]) as server:
        yield server


def test_so_it_is_where_the_whole_server_is_full(narrow: RunningServer) -> None:
    with Client(narrow.address) as client:
        assert list(client.map("add", range(COUNT), range(COUNT))) == [*range(0, 2 * COUNT, 2)]


def test_a_single_call_is_refused_at_once(client: Client) -> None:
    held = [client.submit("keep_apart", 60.0) for _ in range(2)]
    with pytest.raises(Overloaded):
        client.call("keep_apart", 0.0)
    assert isinstance(client.submit("keep_apart", 0.0).exception(20), Overloaded)
    assert all(one.cancel() for one in held)


def test_what_finds_no_room_in_its_time_has_not_begun(client: Client) -> None:
    held = client.submit("keep_apart", 60.0)
    waiting = client.submit("keep_apart", 60.0)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded, match=r"no room within 0\.5 s: keep_apart runs 1 at a time") as caught:
        list(client.using(timeout=0.5).map("keep_apart", [0.0] * 3))
    assert caught.value.started is False
    assert 0.4 < time.monotonic() - began < 2
    assert waiting.cancel()
    assert held.cancel()


def test_a_map_that_is_closed_leaves_nothing_that_waits(client: Client) -> None:
    held = [client.submit("keep_apart", 60.0) for _ in range(2)]
    with client.executor() as executor:
        futures = [executor.submit("keep_apart", 0.0) for _ in range(10)]
        pacing = client._core.router()._pacing
        wait_until(lambda: any(line.calls for line in pacing.lines.values()), "they wait")
        assert all(future.cancel() for future in futures)
    wait_until(lambda: not any(line.calls for line in pacing.lines.values()), "nothing waits")
    assert all(one.cancel() for one in held)


def test_a_server_that_has_no_room_is_seldom_asked() -> None:
    asked: list[float] = []

    def refuse(connection: LineClient) -> None:
        for line in connection.socket.makefile("rb"):
            asked.append(time.monotonic())
            error = {"type": "Overloaded", "message": "full"}
            connection.send({"id": json.loads(line)["id"], "error": error})

    with peer(refuse) as full, Client(full.address, timeout=2.5) as client:
        with pytest.raises(DeadlineExceeded, match=r"no room within 2\.5 s: full"):
            list(client.map("f", range(100), window=20))
        pauses = asked[20:]
    assert 2 <= len(pauses) <= 40, "20 at first, and then one after another, after a longer and longer pause"


def test_one_that_is_refused_before_it_has_left_waits_on() -> None:
    """The only server that it did not avoid has gone from its name meanwhile."""
    home: Any = SimpleNamespace(hub=get_hub())
    sent: list[int] = []

    def send(id: int, call: Any) -> None:
        sent.append(id)
        if len(sent) == 1:
            pace.refused(id, call)
        else:
            call.link = "one"

    pace = Pacing(home, send)
    receiver: Any = None
    calls = [Sent(b'{"function":"f","id":1}', receiver, 1, False) for _ in range(2)]
    pace.begin(calls[0].task)
    assert all(pace.join(number, call) for number, call in enumerate(calls))
    for _ in range(3):
        pace.has_room(calls[0].task)
    assert sent == [0, 0, 1]
    assert not pace.lines


def test_the_refusal_of_a_single_call_makes_no_room() -> None:
    asked: list[str] = []

    def refuse(connection: LineClient) -> None:
        for line in connection.socket.makefile("rb"):
            call = json.loads(line)
            asked.append(call["args"][0])
            connection.send({"id": call["id"], "error": {"type": "Overloaded", "message": "full"}})

    with peer(refuse) as full, Client(full.address, timeout=30) as client, client.executor() as executor:
        waiting = executor.submit("f", "waits")
        wait_until(lambda: client._core.router()._pacing.lines, "it waits")
        for _ in range(100):
            assert isinstance(client.submit("f", "single").exception(20), Overloaded)
        assert asked.count("single") == 100
        assert asked.count("waits") < 50
        assert waiting.cancel()


def test_a_ctrl_c_keeps_none_from_being_sent() -> None:
    for run in at_each_moment(pacing):
        home: Any = SimpleNamespace(hub=get_hub())
        sent: list[int] = []

        def send(id: int, call: Any, sent: list[int] = sent) -> None:
            call.link = "one"
            sent.append(id)

        pace = Pacing(home, send)
        receiver: Any = None
        calls = [Sent(b'{"function":"f","id":1}', receiver, 1, False) for _ in range(4)]
        task = calls[0].task
        pace.begin(task)
        assert all(pace.join(number, call) for number, call in enumerate(calls))
        run(partial(pace._try, task))
        run(partial(pace.has_room, task))
        pace.mend()
        assert all(line.timer.active for line in pace.lines.values())
        while pace.lines:
            pace.has_room(task)
        assert sent == [0, 1, 2, 3]
