"""Accepting, and the limits of connections that every server has: how many, from where, and for how long."""

import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import pytest

from greentask import Limits, TextConnection
from greentask.server import acceptor
from support.servers import PATIENCE, LineClient
from support.text_servers import connect, echo, listening, wait_until

SHORT = 0.1  # seconds that a limit is set to
WELL_PAST = 4 * SHORT  # for what must not happen: a turn of the ageing is a twentieth of a second


def is_served(peer: LineClient) -> bool:
    peer.send_bytes(b"hello\n")
    return peer.line() == b"hello"


def is_refused(peer: LineClient) -> bool:
    try:
        return peer.line() is None
    except ConnectionError:
        return True


# ---- From one address


def test_connections_past_the_limit_of_their_address_are_closed_at_once(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(max_connections_per_address=2)
    with listening(echo, limits=limits) as server, connect(server) as one, connect(server) as two:
        assert is_served(one)
        assert is_served(two)
        for _ in range(3):
            with connect(server) as another:
                assert is_refused(another)
        with connect(server, source="127.0.0.2") as stranger:
            assert is_served(stranger)
        one.close()
        wait_until(lambda: len(server.connections) == 1, "it and the stranger have gone")
        with connect(server) as third:
            assert is_served(third)
            assert is_served(two)
    (told,) = caplog.messages
    assert told == (
        "connections from 127.0.0.1 are refused: it has 2, and more are not taken (max_connections_per_address)"
    )


def test_by_default_any_number_may_come_from_one_address() -> None:
    assert Limits().max_connections_per_address == 0


def test_unix_sockets_have_no_address(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    with listening(echo, f"unix://{path}", limits=Limits(max_connections_per_address=1)):
        peers = []
        for _ in range(3):
            sock = gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            sock.connect(path)
            peers.append(LineClient(sock))
        for peer in peers:
            assert is_served(peer)
            peer.close()


# ---- The time of a line


def test_a_line_that_does_not_end_closes_its_connection(caplog: pytest.LogCaptureFixture) -> None:
    with listening(echo, limits=Limits(line_timeout=SHORT)) as server, connect(server) as quiet:
        began = time.monotonic()
        with connect(server) as peer:
            peer.send_bytes(b"whole\nhalf")
            assert (peer.line(), peer.line()) == (b"whole", None)
        assert time.monotonic() - began >= SHORT
        assert is_served(quiet), "who is in no line has time"
    assert [message for message in caplog.messages if "line_timeout" in message]


def test_bytes_one_at_a_time_do_not_buy_time() -> None:
    with listening(echo, limits=Limits(line_timeout=SHORT)) as server, connect(server) as peer:
        wait_until(lambda: server.connections, "it is connected")
        give_up = time.monotonic() + PATIENCE
        while server.connections and time.monotonic() < give_up:
            with suppress(ConnectionError):
                peer.send_bytes(b"x")
            gevent.sleep(0.01)
        assert not server.connections


def test_lines_that_end_do() -> None:
    with listening(echo, limits=Limits(line_timeout=SHORT)) as server, connect(server) as peer:
        began = time.monotonic()
        while time.monotonic() - began < WELL_PAST:
            peer.send_bytes(b"end\nof one, begin")
            assert (peer.line() or b"").endswith(b"end")
            gevent.sleep(0.02)


def test_a_long_line_has_more_time() -> None:
    piece = b"x" * 16 * 1024  # a second for each four of them
    with listening(echo, limits=Limits(line_timeout=SHORT)) as server, connect(server) as peer:
        began = time.monotonic()
        size = 0
        while time.monotonic() - began < WELL_PAST:
            peer.send_bytes(piece)
            size += len(piece)
            gevent.sleep(0.05)
        peer.send_bytes(b"\n")
        assert len(peer.line() or b"") == size


def test_the_time_in_which_the_server_does_not_read_does_not_count() -> None:
    def slow(connection: TextConnection, line: str) -> None:
        gevent.sleep(WELL_PAST if line == "first" else 0)
        connection.send(line)

    with listening(slow, limits=Limits(line_timeout=SHORT)) as server, connect(server) as peer:
        peer.send_bytes(b"first\nsec")
        gevent.sleep(2 * SHORT)
        peer.send_bytes(b"ond\n")
        assert (peer.line(), peer.line()) == (b"first", b"second")


def test_0_gives_a_line_any_time() -> None:
    # Looked at each tenth of a second, a tenth of the limit of silence, which a busy machine keeps all the same.
    with listening(echo, limits=Limits(line_timeout=0, idle_timeout=1)) as server, connect(server) as peer:
        for byte in b"a slow line\n":
            peer.send_bytes(bytes([byte]))
            gevent.sleep(0.02)
        assert peer.line() == b"a slow line"


# ---- Idle ones


def test_an_idle_connection_is_closed() -> None:
    with listening(echo, limits=Limits(idle_timeout=SHORT)) as server, connect(server) as peer:
        began = time.monotonic()
        assert is_served(peer)
        assert peer.line() is None
        assert time.monotonic() - began >= SHORT
        wait_until(lambda: not server.connections, "it is gone")


@pytest.mark.parametrize("sign", [b"\n", b"\r\n", b"hello\n"])
def test_any_byte_is_a_sign_of_life(sign: bytes) -> None:
    with listening(echo, limits=Limits(idle_timeout=SHORT)) as server, connect(server) as peer:
        began = time.monotonic()
        while time.monotonic() - began < WELL_PAST:
            peer.send_bytes(sign)
            gevent.sleep(0.02)
        peer.send_bytes(b"still here\n")
        while (line := peer.line()) != b"still here":
            assert line == sign.strip()


def test_who_is_told_something_now_and_then_is_not_idle() -> None:
    with listening(echo, limits=Limits(idle_timeout=SHORT)) as server, connect(server) as peer:
        wait_until(lambda: server.connections, "it is connected")
        (connection,) = server.connections.values()
        began = time.monotonic()
        while time.monotonic() - began < WELL_PAST:
            connection.send("news")
            assert peer.line() == b"news"
            gevent.sleep(0.02)


def test_a_connection_whose_line_is_being_handled_is_not_idle() -> None:
    def slow(connection: TextConnection, line: str) -> None:
        gevent.sleep(WELL_PAST)
        connection.send(line)

    with listening(slow, limits=Limits(idle_timeout=SHORT)) as server, connect(server) as peer:
        assert is_served(peer)


def test_a_peer_that_does_not_read_is_idle() -> None:
    def answer(connection: TextConnection, line: str) -> None:
        connection.send("x" * 50_000_000)

    gone: list[TextConnection] = []
    limits = Limits(idle_timeout=SHORT)
    with listening(answer, limits=limits, on_close=gone.append) as server, connect(server) as peer:
        peer.send_bytes(b"more\n")
        wait_until(lambda: gone and not gone[0].is_open, "it is cut off")


def test_a_peer_that_is_well_and_does_not_read_is_not_taken_for_dead() -> None:
    """Its kernel answers for it."""
    sent = "x" * 12_000_000

    def answer(connection: TextConnection, line: str) -> None:
        connection.send(sent)

    with listening(answer, limits=Limits(dead_after=SHORT)) as server, connect(server) as peer:
        peer.send_bytes(b"more\n")
        gevent.sleep(4 * SHORT)
        (connection,) = server.connections.values()
        assert connection.is_open
        assert peer.line() == sent.encode()


# ---- Places


@pytest.fixture
def spared_for_a_moment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(acceptor, "_SPARED", SHORT)


@pytest.mark.usefixtures("spared_for_a_moment")
def test_idle_connections_make_room_for_those_that_wait(caplog: pytest.LogCaptureFixture) -> None:
    limits = Limits(max_connections=3, line_timeout=SHORT * 100)
    with listening(echo, limits=limits) as server, connect(server) as oldest, connect(server) as younger:
        server._acceptor._turn = SHORT / 10
        wait_until(lambda: len(server.connections) == 2, "they are connected")
        with connect(server) as busy:
            began = time.monotonic()
            while time.monotonic() - began < WELL_PAST:
                assert is_served(busy)
                gevent.sleep(0.02)
            assert is_served(younger), "as long as nobody waits, they stay"
            with connect(server) as newcomer:
                assert is_served(newcomer)
                assert oldest.line() is None
                assert is_served(younger)
                assert is_served(busy)
    assert [message for message in caplog.messages if "wait for a place" in message]


@pytest.mark.usefixtures("spared_for_a_moment")
def test_who_is_not_idle_keeps_its_place() -> None:
    def slow(connection: TextConnection, line: str) -> None:
        gevent.sleep(WELL_PAST)
        connection.send(line)

    with listening(slow, limits=Limits(max_connections=1)) as server, connect(server) as busy:
        server._acceptor._turn = SHORT / 10
        busy.send_bytes(b"hello\n")
        with connect(server) as newcomer:
            newcomer.send_bytes(b"me too\n")
            assert busy.line() == b"hello"
            assert newcomer.line() == b"me too", "it gets the place when the other one is idle"


# ---- All of it


def test_nothing_runs_where_nobody_is_connected() -> None:
    with listening(echo, limits=Limits(line_timeout=SHORT)) as server:
        for _ in range(2):
            with connect(server) as peer:
                assert is_served(peer)
                assert server._acceptor._ageing is not None
            wait_until(lambda: server._acceptor._ageing is None, "it has ended")


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"max_connections": 0}, "max_connections must be at least 1, not 0"),
        ({"max_connections_per_address": -1}, "max_connections_per_address must be at least 1, not -1"),
        ({"line_timeout": -0.5}, "line_timeout is in seconds above 0, not -0.5"),
        ({"idle_timeout": float("nan")}, "idle_timeout is in seconds above 0, not nan"),
    ],
)
def test_a_limit_that_can_not_be(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError) as caught:
        Limits(**wrong)
    assert str(caught.value) == said
