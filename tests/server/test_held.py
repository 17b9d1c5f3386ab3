"""What all connections together hold is bounded: unfinished lines, unread answers, and lines of calls in flight."""

import json
import select
import socket
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import gevent
import pytest

from greentask.hub.steps import run_in_turns
from greentask.server.held import Room, weigh
from greentask.server.limits import Limits
from support.programs import greentask
from support.servers import LineClient, RunningServer, serving, wait_until

pytestmark = pytest.mark.once

MB = 1_000_000
MOST = 40 * MB


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    options = ("--max-held", str(MOST), "--max-line", str(4 * MB), "--max-unsent", str(8 * MB))
    with serving(*options) as server:
        yield server
        assert "Traceback" not in server.output()


@pytest.fixture
def peers(server: RunningServer) -> Iterator[Callable[[], LineClient]]:
    opened: list[LineClient] = []

    def open_one() -> LineClient:
        opened.append(server.connect(receive_buffer=4096))
        return opened[-1]

    yield open_one
    for peer in opened:
        peer.close()
    wait_until(lambda: not (server.status()["connections"] or server.status()["in_flight"]), "they have gone")


def sent_away(server: RunningServer) -> int:
    count: int = server.status()["refused"]["max_held"]
    return count


# ---- Lines that don't end


def test_unfinished_lines_of_all_connections_are_bounded(
    server: RunningServer, peers: Callable[[], LineClient]
) -> None:
    before, memory = sent_away(server), server.memory()
    sent = []
    for _ in range(15):
        sent.append(peers())
        sent[-1].send({"id": 1, "function": "nap", "args": [1.0]})
        sent[-1].send_bytes(b'{"function": "length", "args": ["' + b"x" * 3 * MB)
        assert server.memory() < memory + MOST
    replies = [peer.hear() for peer in sent]
    answers = [peer.hear() if "error" in reply else reply for peer, reply in zip(sent, replies)]
    assert answers == [{"id": 1, "result": 1.0}] * len(sent), "what was in flight is answered"
    count = sent_away(server) - before
    assert 5 <= count <= 13, "no more than it takes"
    told = 0
    for peer, reply in zip(sent, replies):
        try:
            if "error" not in reply:  # else it was sent away before its call in flight was answered
                peer.send_bytes(b'x"]}\n')
                reply = peer.hear()
        except ConnectionError:
            continue  # it was closed before this
        if "error" in reply:
            told += 1
            assert (reply["error"]["type"], peer.line()) == ("Overloaded", None)
            assert "max_held" in reply["error"]["message"]
        else:
            assert reply == {"result": 3 * MB + 1}
    assert told, "who is sent away is told why"
    assert server.call("length", "x" * 3 * MB) == 3 * MB


def test_who_is_sent_away_and_says_nothing_more_is_told_and_closed(
    server: RunningServer, peers: Callable[[], LineClient]
) -> None:
    before, sent = sent_away(server), dict[socket.socket, LineClient]()
    while sent_away(server) == before:
        peer = peers()
        sent[peer.socket] = peer
        peer.send_bytes(b'{"function": "length", "args": ["' + b"x" * 3 * MB)
    told, _, _ = select.select([*sent], [], [], 20)
    for sock in told:
        assert sent[sock].hear()["error"]["type"] == "Overloaded"
        assert sent[sock].line() is None
    assert told


def test_who_holds_little_is_left_alone(server: RunningServer, peers: Callable[[], LineClient]) -> None:
    small = peers()
    small.send_bytes(b'{"function": "length", "args": ["')
    before = sent_away(server)
    for _ in range(12):
        peers().send_bytes(b'{"function": "length", "args": ["' + b"x" * 3 * MB)
    wait_until(lambda: sent_away(server) > before)
    small.send_bytes(b'x"]}\n')
    assert small.hear() == {"result": 1}


# ---- Answers that nobody reads


@pytest.mark.parametrize("in_order", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_unread_answers_of_all_connections_are_bounded(
    server: RunningServer, peers: Callable[[], LineClient], in_order: bool
) -> None:
    """Also those that wait for their turn behind another one."""
    before, memory = sent_away(server), server.memory()
    for _ in range(15):
        peer = peers()
        calls = [{"function": "large", "args": [MB]}] * 6
        if in_order:
            calls.insert(0, {"function": "nap", "args": [1.5]})
        peer.send(*calls)
        assert server.call("greentask.ping") == "pong"
        assert server.memory() < memory + 2 * MOST
    wait_until(lambda: sent_away(server) > before)
    # Which of them don't read is known after a while, and nobody may have as much as this before.
    wait_until(lambda: is_let_in(server), "an honest call is let in")


def is_let_in(server: RunningServer) -> bool:
    with server.connect() as peer, suppress(ConnectionError):
        return peer.ask({"function": "length", "args": ["x" * 3 * MB]}) == {"result": 3 * MB}
    return False


# ---- Lines whose calls are in flight


def heavy(**about: Any) -> bytes:
    """A line of 600,000 bytes with 200,000 values in it, which takes 20 MB."""
    text = json.dumps(about).replace('"HEAVY"', "[" + ",".join(["[]"] * 200_000) + "]")
    return text.encode() + b"\n"


@pytest.mark.parametrize("is_rpc", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_lines_of_calls_in_flight_are_bounded(
    server: RunningServer, peers: Callable[[], LineClient], is_rpc: bool
) -> None:
    call = {"function": "keep", "args": ["HEAVY", 60]}
    if is_rpc:
        call = {"jsonrpc": "2.0", "method": "keep", "params": ["HEAVY", 60]}
    first, second = peers(), peers()
    first.send_bytes(heavy(id=1, **call))
    wait_until(lambda: server.status()["in_flight"] == 1)
    second.send_bytes(heavy(id=2, **call))
    refused = second.hear()
    assert refused["id"] == 2
    assert "max_held" in json.dumps(refused)
    assert "Overloaded" in json.dumps(refused)
    assert second.ask({"id": 3, "function": "add", "args": [1, 2]}) == {"id": 3, "result": 3}
    assert first.ask({"id": 9, "function": "greentask.cancel", "args": [1]})["id"] in (1, 9)
    wait_until(lambda: server.status()["in_flight"] == 0)
    second.send_bytes(heavy(id=4, function="keep", args=["HEAVY", 0]))
    assert second.hear() == {"id": 4, "result": True}


def test_a_line_that_is_only_carried_takes_up_its_bytes(server: RunningServer, peers: Callable[[], LineClient]) -> None:
    """Its values are in the task process, and not here."""
    for id in range(4):
        peers().send_bytes(heavy(id=id, function="echo_in_process", args=["HEAVY"]))
    wait_until(lambda: server.status()["in_flight"] == 0, patience=30)
    assert server.call("greentask.status")["calls"].get("refused", 0) <= 2, "those of the test before"


def test_what_is_no_call_takes_up_nothing(server: RunningServer, peers: Callable[[], LineClient]) -> None:
    peer = peers()
    for line in (
        heavy(id=1, function="keep", argz=["HEAVY"]),
        heavy(more=1, items="HEAVY"),
        heavy(jsonrpc="2.0", id=1, method="keep", argz=["HEAVY"]),
        heavy(id=1, function="none", args=["HEAVY"]),
        heavy(id=1, function="greentask.ping", args=["HEAVY"]),
        b"[" + heavy(x="HEAVY")[:-3] + b"\n",
    ):
        peer.send_bytes(line)
        assert "max_held" not in json.dumps(peer.hear())
    peer.send_bytes(heavy(id=4, function="keep", args=["HEAVY", 0]))
    assert peer.hear() == {"id": 4, "result": True}


# ---- The parts


@pytest.mark.parametrize(
    "value", [[[]] * 20_000, [{"key": number} for number in range(10_000)], list(range(20_000)), "x" * 100_000]
)
def test_what_a_line_weighs_is_about_what_it_takes(value: Any) -> None:
    text = json.dumps(value, separators=(",", ":")).encode()
    tracemalloc.start()
    read = json.loads(text)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert read == value
    assert taken / 3 < run_in_turns(weigh(text)) < 4 * taken + 1000


def test_a_long_line_is_weighed_in_steps() -> None:
    assert sum(1 for _ in weigh(b"[]," * 1_000_000)) > 10


def test_lines_that_do_not_fit_are_read_one_after_another() -> None:
    room = Room(Limits(max_held=200, max_line=10, max_unsent=10))
    read = []

    def take(name: str, size: int) -> None:
        room.enter(size)
        read.append(name)

    room.enter(90)
    waiting = [gevent.spawn(take, "large", 80), gevent.spawn(take, "small", 5)]
    gevent.sleep(0)
    assert read == ["small"], "it fits"
    room.was_read()
    room.was_read()
    gevent.joinall(waiting, timeout=5)
    assert read == ["small", "large"], "when nobody reads, one more is read"
    assert room.is_full
    room.leave(90)
    assert not room.is_full
    room.leave(5)
    room.was_read()
    room.enter(500)
    room.leave(80)
    assert not room.is_full, "one alone is never too much"


def test_it_must_leave_room_for_a_line_and_for_an_answer() -> None:
    with pytest.raises(ValueError, match=r"max_held must be at least twice max_unsent \(1000\), not 1999"):
        Limits(max_held=1999, max_unsent=1000, max_line=500)
    done = greentask("serve", "support.server_tasks:add", "--max-line", "1000000000")
    assert done.returncode == 2
    assert "--max-held must be at least twice --max-line (1000000000), not 1073741824" in done.stderr
