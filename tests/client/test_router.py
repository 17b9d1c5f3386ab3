"""``Router``: servers that answer what wasn't asked, break off, aren't there; closing, coming back."""

import contextlib
import gc
import json
import os
import socket
import threading
import time
import weakref
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import pytest

from greentask import Client, ConnectionLost, DeadlineExceeded, Draining, TaskError, Unauthenticated
from greentask.client.balance import Balance
from greentask.client.receivers import CallFuture, EventReceiver, Item, Progress
from greentask.client.router import LinkOptions, Router
from greentask.hub.bell import Bell
from greentask.hub.home import find_home
from greentask.wire.address import parse_addresses
from greentask.wire.message import Call, encode_call
from greentask.wire.text import DEFAULT_MAX_LINE
from support.peers import Peer, deaf, echoing, peer, silent
from support.servers import LineClient, RunningServer, serving, wait_until

# ---- A router by itself


def router_to(server: Peer, max_line: int = DEFAULT_MAX_LINE) -> Router:
    return Router(
        find_home(), Balance(parse_addresses(server.address)), LinkOptions(5.0, max_line, 15.0, 60.0, 5.0, 30.0)
    )


def ask(router: Router, id: int, timeout: float | None = None) -> CallFuture:
    future = CallFuture(router, id)
    router.home.run(router.start, id, encode_call(Call("f", None, id)), future, timeout)
    return future


def close(router: Router) -> None:
    closed = Bell()
    router.home.run(router.finish, closed)
    assert closed.wait(20)


@pytest.mark.parametrize(
    "stray",
    [
        {"id": 99, "result": "stray"},
        {"id": 99, "error": {"type": "ValueError", "message": "stray"}},
        {"id": 99, "progress": {"done": 1}},
        {"id": 99, "item": "stray"},
        {"id": "1", "result": "stray"},
        {"id": 1, "index": 0, "result": "stray"},
        {"id": 1, "index": 0, "error": {"type": "ValueError", "message": "stray"}},
        {"id": 1, "index": 3, "progress": {"done": 1}},
        {"id": None, "result": "stray"},
        {"result": "stray"},
        {"item": "stray"},
    ],
    ids=str,
)
def test_a_line_that_nobody_waits_for_is_dropped_and_counted(stray: dict[str, Any]) -> None:
    def answer(connection: LineClient) -> None:
        connection.hear()
        connection.send(stray, {"id": 1, "result": "mine"}, stray)
        connection.hear()
        connection.send(stray, {"id": 2, "result": "mine too"})
        silent(connection)

    with peer(answer) as server:
        router = router_to(server)
        assert ask(router, 1).result(20) == "mine"
        assert ask(router, 2).result(20) == "mine too"
        assert router.dropped == 3
        close(router)


@pytest.mark.parametrize(
    "stray",
    [
        {"id": True, "result": "stray"},
        {"id": 1.0, "result": "stray"},
        {"id": [1], "result": "stray"},
        {"id": {}, "error": {}},
        {"id": [], "progress": {"done": 1}},
        {"id": {}, "item": "stray"},
    ],
    ids=str,
)
def test_a_line_whose_id_can_be_nobodys_is_given_to_nobody(stray: dict[str, Any]) -> None:
    """True and 1.0 are 1, to Python."""

    def answer(connection: LineClient) -> None:
        connection.hear()
        connection.send(stray)
        silent(connection)

    with peer(answer) as server:
        router = router_to(server)
        error = ask(router, 1).exception(20)
        assert isinstance(error, ConnectionLost)
        assert "no reply of a greentask server" in str(error)


def test_a_second_answer_is_dropped_and_counted() -> None:
    def answer(connection: LineClient) -> None:
        connection.hear_all(2)
        connection.send({"id": 1, "result": "first"}, {"id": 1, "result": "second"}, {"id": 1, "error": {}})
        connection.send({"id": 1, "progress": {}}, {"id": 1, "item": 1}, {"id": 2, "result": "other"})
        silent(connection)

    with peer(answer) as server:
        router = router_to(server)
        first, other = ask(router, 1), ask(router, 2)
        assert other.result(20) == "other"
        assert first.result(20) == "first"
        assert router.dropped == 4
        close(router)


def test_answers_in_any_order_find_their_calls() -> None:
    def answer(connection: LineClient) -> None:
        calls = connection.hear_all(50)
        connection.send(*({"id": call["id"], "result": call["id"] * 10} for call in reversed(calls)))
        silent(connection)

    with peer(answer) as server:
        router = router_to(server)
        futures = [ask(router, id) for id in range(1, 51)]
        assert [future.result(20) for future in futures] == [id * 10 for id in range(1, 51)]
        assert router.dropped == 0
        close(router)


def test_what_is_heard_of_a_call_reaches_its_receiver() -> None:
    def answer(connection: LineClient) -> None:
        connection.hear()
        connection.send({"id": 1, "progress": {"done": 1}}, {"id": 1, "item": [1]}, {"id": 1, "progress": "half"})
        connection.send({"id": 1, "error": {"type": "Odd", "message": "so it is"}})
        silent(connection)

    with peer(answer) as server:
        router, receiver = router_to(server), EventReceiver(window=64)
        router.home.run(router.start, 1, encode_call(Call("f", None, 1)), receiver, None)
        first, second, third, last = (receiver.mailbox.take() for _ in range(4))
        assert isinstance(first, Progress)
        assert isinstance(second, Item)
        assert isinstance(third, Progress)
        assert (first.report, second.item, third.report) == ({"done": 1}, [1], {"note": "half"})
        with pytest.raises(TaskError, match="Odd: so it is"):
            last.result()  # type: ignore[union-attr]
        close(router)


@pytest.mark.parametrize("pieces", [1, 2, 7])
def test_a_line_may_come_in_pieces(pieces: int) -> None:
    def answer(connection: LineClient) -> None:
        connection.hear()
        line = b'{"id":1,"result":"\xc3\xa9"}\r\n'
        for at in range(0, len(line), pieces):
            connection.send_bytes(line[at : at + pieces])
        silent(connection)

    with peer(answer) as server:
        router = router_to(server)
        assert ask(router, 1).result(20) == "é"
        close(router)


@pytest.mark.parametrize(
    ("garbage", "part"),
    [
        (b"hello\n", "not JSON"),
        (b"\xff\xff\n", "not UTF-8"),
        (b"[1]\n", "a reply is an object"),
        (b'{"id":1}\n', "one of result"),
        (b'{"id":1,"error":"text"}\n', "error must be an object"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "not JSON"),
        (b"[" * 5000 + b"]" * 5000 + b"\n", "nested deeper"),
        (b"x" * 5000, "longer than max_line"),
    ],
)
def test_what_is_no_reply_ends_the_connection_saying_so(garbage: bytes, part: str) -> None:
    def answer(connection: LineClient) -> None:
        connection.hear_all(2)
        connection.send({"id": 1, "result": "before it"})
        connection.send_bytes(garbage)
        silent(connection)

    with peer(answer) as server:
        router = router_to(server, max_line=2000 if b"x" in garbage else DEFAULT_MAX_LINE)
        first, second = ask(router, 1), ask(router, 2)
        error = second.exception(20)
        assert isinstance(error, ConnectionLost)
        assert "no reply of a greentask server" in str(error)
        assert part in str(error)
        assert error.sent is True
        assert first.result(20) == "before it"


def test_whole_lines_before_one_that_is_too_long_count() -> None:
    def answer(connection: LineClient) -> None:
        connection.hear_all(2)
        connection.send_bytes(b'{"id":1,"result":"whole"}\n' + b"x" * 100)
        silent(connection)

    with peer(answer) as server:
        router = router_to(server, max_line=50)
        first, second = ask(router, 1), ask(router, 2)
        assert isinstance(second.exception(20), ConnectionLost)
        assert first.result(20) == "whole"


@pytest.mark.parametrize(
    ("line", "told"),
    [(b"", "before it answered"), (b'{"id":1,"res', "in the middle of an answer: it died, or its log")],
)
def test_a_connection_that_ends_before_the_answer_is_lost(line: bytes, told: str) -> None:
    def answer(connection: LineClient) -> None:
        connection.hear()
        connection.send_bytes(line)

    with peer(answer) as server:
        router = router_to(server)
        error = ask(router, 1).exception(20)
        assert isinstance(error, ConnectionLost)
        assert str(error).startswith(f"tcp://{server.address} closed the connection {told}")
        assert error.sent is True


def test_a_connection_that_is_reset_is_lost() -> None:
    def answer(connection: LineClient) -> None:
        connection.hear()
        connection.reset()

    with peer(answer) as server:
        router = router_to(server)
        error = ask(router, 1).exception(20)
        assert isinstance(error, ConnectionLost)
        assert "Connection reset" in str(error)
        assert error.sent is True


def test_an_error_about_the_connection_is_told_when_it_ends() -> None:
    def refuse(connection: LineClient) -> None:
        connection.hear()
        connection.send({"error": {"type": "Overloaded", "message": "not today"}})

    with peer(refuse) as server:
        router = router_to(server)
        error = ask(router, 1).exception(20)
        assert isinstance(error, ConnectionLost)
        assert str(error) == "Overloaded: not today"


def test_a_server_that_wants_to_know_who_calls_has_run_nothing() -> None:
    def refuse(connection: LineClient) -> None:
        connection.hear()
        connection.send({"error": {"type": "Unauthenticated", "message": "a secret is required"}})
        silent(connection)

    with peer(refuse) as server:
        router = router_to(server)
        errors = [future.exception(20) for future in (ask(router, 1), ask(router, 2))]
        for error in errors:
            assert isinstance(error, Unauthenticated)
            assert str(error) == f"tcp://{server.address}: a secret is required"
            assert error.started is False
        assert errors[0] is not errors[1]


def test_what_the_server_says_to_a_line_that_is_too_long_is_told() -> None:
    with serving("--max-line", "1000") as server, Client(server.address) as client:
        with pytest.raises(ConnectionLost, match="LineTooLong: a line is longer than max_line") as caught:
            client.call("echo", "x" * 2000)
        assert caught.value.sent is True
        assert client.call("echo", "x") == "x"


@pytest.mark.slow
def test_what_is_written_to_a_peer_that_is_gone_does_no_harm() -> None:
    def vanish(connection: LineClient) -> None:
        connection.hear()
        connection.reset()

    with peer(vanish) as server, Client(server.address) as client:
        for _ in range(20):  # some find the connection gone before they are sent, some after
            futures = [client.submit("f", "x" * 100_000) for _ in range(5)]
            assert {type(future.exception(20)) for future in futures} == {ConnectionLost}


# ---- Coming back


def test_the_next_call_connects_again() -> None:
    def answer_once(connection: LineClient) -> None:
        call = connection.hear()
        connection.send({"id": call["id"], "result": call["args"]})

    with peer(answer_once) as server, Client(server.address) as client:
        for number in range(5):
            assert client.call("f", number) == [number]
            wait_until(lambda: client._core.router()._links.all == [], "the end is noticed")
        assert len(server.connections) == 5


def test_it_comes_back_after_a_server_that_was_away() -> None:
    with peer(echoing) as server, Client(server.address, gone_after=0) as client:
        assert client.call("f", 1) == 1
        port = server.port
    with pytest.raises(ConnectionLost):
        client.call("f", 2)
    with peer(echoing, port) as server:
        assert client.call("f", 3) == 3
        client.close()


def test_calls_that_cannot_be_sent_say_so(unused_port: int) -> None:
    client = Client(f"127.0.0.1:{unused_port}")
    errors = [future.exception(20) for future in [client.submit("f") for _ in range(10)]]
    assert [error.sent for error in errors if isinstance(error, ConnectionLost)] == [False] * 10


@pytest.mark.parametrize(
    ("address", "part"),
    [
        ("unix:///nowhere/at/all", "unix:///nowhere/at/all: No such file or directory"),
        ("unix:///" + "x" * 200, "path too long"),
        ("x" * 70 + ":1", "too long"),
        ("a..b:1", "tcp://a..b:1: "),
    ],
)
def test_an_address_that_leads_nowhere_is_said(address: str, part: str) -> None:
    client = Client(address)
    for _ in range(2):
        with pytest.raises(ConnectionLost, match="can't connect to") as caught:
            client.call("f")
        assert part in str(caught.value)
        assert caught.value.sent is False


def test_unix_sockets_work(tmp_path: Path) -> None:
    address = f"unix://{tmp_path}/socket"
    with serving(listen=[address]) as server, Client(address, gone_after=0) as client:
        assert client.call("add", 1, 2) == 3
        server.signal_all(9)
        server.wait()
        wait_until(lambda: client._core.router()._links.all == [], "the end is noticed")
        with pytest.raises(ConnectionLost, match="Connection refused"):
            client.call("add", 1, 2)


def test_while_nobody_accepts_the_connect_timeout_holds() -> None:
    """The queue of connections is full: the kernel drops what comes, as a firewall does."""
    with deaf() as address:
        client = Client(address, connect_timeout=0.3)
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match="timed out") as caught:
            client.call("f")
        assert 0.25 < time.monotonic() - began < 5
        assert caught.value.sent is False


def test_a_time_limit_also_holds_while_connecting() -> None:
    with deaf() as address:
        client = Client(address, connect_timeout=20, timeout=0.1)
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded, match=r"no answer and no connection within 0\.1 s") as caught:
            client.call("f")
        assert time.monotonic() - began < 0.4, "there is no server that could say more"
        assert caught.value.started is False
        client.close()


def test_a_call_whose_time_is_over_is_not_sent_again() -> None:
    heard = []

    def refuse_late(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            call = json.loads(line)
            heard.append(call["function"])
            time.sleep(0.2)
            connection.send({"id": call["id"], "error": {"type": "Draining", "message": "going away"}})

    with peer(refuse_late) as server, Client(server.address) as client:
        with pytest.raises(DeadlineExceeded) as caught:
            client.using(timeout=0.1).call("f")
        assert caught.value.started is False
        assert heard == ["f"]


def test_a_call_that_is_refused_for_now_is_sent_again_and_again() -> None:
    heard: list[float] = []

    def refuse_at_first(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            call = json.loads(line)
            heard.append(time.monotonic())
            if len(heard) < 4:
                connection.send({"id": call["id"], "error": {"type": "Draining", "message": "going away"}})
            else:
                connection.send({"id": call["id"], "result": "at last"})

    with peer(refuse_at_first) as server, Client(server.address, timeout=20) as client:
        assert client.call("f") == "at last"
    assert len(heard) == 4


# ---- Closing


def test_a_link_whose_greenlet_never_begins_holds_up_nobody() -> None:
    """A Ctrl-C comes before its first instruction."""
    with peer(echoing) as server:
        router = router_to(server)
        future = CallFuture(router, 1)

        def start_and_hit() -> None:
            router.start(1, encode_call(Call("f", None, 1)), future, None)
            greenlet = router._links.all[0].greenlet
            assert greenlet is not None
            greenlet.kill(KeyboardInterrupt, block=False)

        router.home.run(start_and_hit)
        assert isinstance(future.exception(20), ConnectionLost)
        assert ask(router, 2).result(20) is None
        close(router)


@pytest.mark.parametrize("with_id", [True, False], ids=["the call is refused", "the connection is"])
def test_what_has_begun_does_not_begin_again_whatever_the_server_says(with_id: bool) -> None:
    calls: list[Any] = []

    def begin_and_refuse(connection: LineClient) -> None:
        calls.append(connection.hear())
        id = calls[-1]["id"]
        draining = {"error": {"type": "Draining", "message": "going away"}}
        connection.send({"id": id, "item": 1}, {"id": id, **draining} if with_id else draining)

    with peer(begin_and_refuse) as server, Client(server.address) as client:
        items = client.stream("rows")
        assert next(items) == 1
        with pytest.raises(Draining if with_id else ConnectionLost):
            next(items)
    assert len(calls) == 1


def test_closing_sends_first_what_is_to_be_sent(server: RunningServer, tmp_path: Path) -> None:
    file = tmp_path / "marks"
    client = Client(server.address)
    future = client.submit("mark", str(file), 0.1)  # not even connected yet
    client.close()
    error = future.exception(20)
    assert isinstance(error, ConnectionLost)
    assert str(error) == "the client was closed"
    assert error.sent is True
    wait_until(lambda: file.exists() and file.read_text().split() == ["started", "ended"], "the task runs")


def test_closing_sends_all_of_a_large_call() -> None:
    lines: list[int] = []

    def read_slowly(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            lines.append(len(line))

    with peer(read_slowly) as server, Client(server.address) as client:
        futures = [client.submit("f", "x" * 1_000_000) for _ in range(5)]
        client.close()
        assert {type(future.exception(20)) for future in futures} == {ConnectionLost}
        wait_until(lambda: len(lines) == 5, "all five arrive")


def test_closing_does_not_wait_for_a_server_that_does_not_read() -> None:
    done = threading.Event()

    def ignore(_: LineClient) -> None:
        done.wait(20)

    with peer(ignore) as server:
        client = Client(server.address)
        future = client.submit("f", "x" * 15_000_000)
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < 3
        error = future.exception(20)
        done.set()
        assert isinstance(error, ConnectionLost)


def test_closing_ends_whoever_waits(client: Client) -> None:
    futures = [client.submit("nap", 0.4) for _ in range(3)]
    caught: list[ConnectionLost] = []

    def call() -> None:
        with pytest.raises(ConnectionLost, match="the client was closed") as error:
            client.call("nap", 0.4)
        caught.append(error.value)

    caller = threading.Thread(target=call)
    caller.start()
    wait_until(lambda: len(client._core.router()._calls) == 4, "all are in flight")
    client.close()
    caller.join(20)
    errors = [*caught, *(future.exception(20) for future in futures)]
    assert [error.sent for error in errors if isinstance(error, ConnectionLost)] == [True] * 4


def test_a_closed_client_connects_again_when_it_is_used() -> None:
    def open_connections() -> int:
        return sum(connection.socket.fileno() >= 0 for connection in server.connections)

    with peer(echoing) as server:
        with Client(server.address) as client:
            assert client.call("f", 1) == 1
        assert client.call("f", 2) == 2
        client.close()
        client.close()
        assert len(server.connections) == 2
        wait_until(lambda: open_connections() == 0, "both are closed")


def test_closing_one_that_was_never_used_does_nothing() -> None:
    client = Client("127.0.0.1:1")
    client.close()
    assert client._core._router is None


@pytest.mark.slow
def test_closing_while_it_connects_leaves_no_connection_behind() -> None:
    with deaf() as nobody:
        client = Client(nobody, connect_timeout=1.1)
        future = client.submit("f")
        router = client._core.router()
        connecting = wait_until(lambda: router._links.all and router._links.all[0].greenlet, "it connects")
        began = time.monotonic()
        client.close()
        assert time.monotonic() - began < 2
        error = future.exception(20)
        assert isinstance(error, ConnectionLost)
        assert error.sent is False
        wait_until(lambda: connecting.dead, "it has given up")
        assert router._links.all == []


def test_closing_sends_to_another_server_what_waits_for_one_that_does_not_answer() -> None:
    with deaf() as nobody, peer(echoing) as second:
        client = Client([nobody, second.address], weights=[2, 1])  # else chance says who is first
        future = client.submit("f")
        client.close()
        assert future.exception(20) is None
        assert client._core.router()._links.all == []


def test_a_connection_that_the_server_has_closed_for_being_idle_costs_no_call() -> None:
    with serving("--idle-timeout", "0.2") as server, Client(server.address) as client:
        for number in range(3):
            assert client.call("add", number, 1) == number + 1
            wait_until(lambda: server.status()["connections"] == 0, "it is closed")


@pytest.mark.slow
def test_a_call_at_the_moment_in_which_an_idle_connection_is_closed_runs_once() -> None:
    with serving("--idle-timeout", "0.05") as server, Client(server.address) as client:
        for number in range(100):
            assert client.call("add", number, 1) == number + 1
            time.sleep(0.1 + number % 20 * 0.005)  # it is closed 0.1 to 0.2 s after the last call


def test_a_client_that_is_forgotten_closes_its_connection() -> None:
    with peer(echoing) as server:
        for number in range(20):
            assert Client(server.address).call("f", number) == number
        gc.collect()
        wait_until(lambda: all(connection.socket.fileno() < 0 for connection in server.connections), "all are closed")


def test_a_client_that_is_forgotten_with_calls_in_flight_lets_them_end() -> None:
    go = threading.Event()

    def answer_later(connection: LineClient) -> None:
        calls = connection.hear_all(2)
        assert go.wait(20)
        connection.send(*({"id": call["id"], "result": call["id"]} for call in calls))
        assert connection.line() is None

    with peer(answer_later) as server:
        futures: list[Future[Any]] = submit_two(Client(server.address))
        gc.collect()
        go.set()
        assert [future.result(20) for future in futures] == [1, 2]
        del futures  # which could call on, with `then`
        wait_until(lambda: server.connections[0].socket.fileno() < 0, "it is closed")


def submit_two(client: Client) -> list["Future[Any]"]:
    return [client.submit("f"), client.submit("f")]


def test_garbage_that_is_collected_in_the_midst_of_its_work_changes_nothing_there() -> None:
    """Iterators cancel their calls when they are garbage, in whichever thread and wherever that comes upon it."""
    with peer(silent) as server, Client(server.address) as client:
        futures = [client.submit("f") for _ in range(3)]
        router = client._core.router()

        def look_through() -> list[bool]:
            left = Garbage(client)
            left.itself = left
            gone = weakref.ref(left)
            del left
            return [gc.collect() >= 0 and gone() is None for _ in router._calls.items()]

        gc.disable()
        try:
            looked: list[list[bool]] = []
            done = Bell()
            router.home.run(lambda: (looked.append(look_through()), done.ring()))
            assert done.wait(20)
        finally:
            gc.enable()
        assert looked == [[True] * len(looked[0])], "at the first one, and the others came all the same"
        assert len(looked[0]) >= len(futures)
        wait_until(lambda: len(router._calls) == len(futures), "its call was cancelled")


class Garbage:
    """Has a call in flight, and cancels it when it is collected."""

    def __init__(self, client: Client) -> None:
        self.itself: Garbage | None = None
        self._future = client.submit("g")

    def __del__(self) -> None:
        self._future.cancel()


def test_many_clients_leave_no_descriptor_open(server: RunningServer) -> None:
    def use_some() -> None:
        for _ in range(20):
            with Client(server.address) as client:
                assert client.call("add", 1) == 1
                assert client.submit("nap", 30).cancel()

    def count() -> int:
        return len(os.listdir("/proc/self/fd"))

    use_some()
    before = count()
    use_some()
    wait_until(lambda: count() <= before, "they are closed")


@pytest.mark.parametrize("chatter", [b'{"id":999999,"result":1}\n' * 500, b"\n" * 5000])
def test_a_server_that_never_pauses_does_not_keep_a_call_past_its_timeout(chatter: bytes) -> None:
    stop = threading.Event()

    def talk(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer, contextlib.suppress(OSError):
            while not stop.is_set():
                peer.sendall(chatter)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        talker = threading.Thread(target=talk, args=(listener,))
        talker.start()
        try:
            with Client(f"127.0.0.1:{listener.getsockname()[1]}", timeout=0.2) as client:
                began = time.monotonic()
                with pytest.raises(DeadlineExceeded):
                    client.call("nobody_answers")
                assert time.monotonic() - began < 5
        finally:
            stop.set()
            talker.join()
