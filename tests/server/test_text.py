"""`TextServer`, in this process: lines in and out over real sockets, which gevent's hub serves meanwhile."""

import logging
import socket
import time
from collections.abc import Callable
from typing import Any

import gevent
import gevent.socket
import pytest
from gevent.event import Event

from greentask import Limits, TextConnection, TextServer
from greentask.errors import ConfigurationError
from support.servers import PATIENCE, LineClient
from support.text_servers import connect, echo, listening, wait_until

# ---- Lines


def test_lines_come_in_and_go_out() -> None:
    with listening(lambda connection, line: connection.send("hello " + line)) as server, connect(server) as peer:
        peer.send_bytes(b"world\nagain\r\n\n\r\n")
        peer.end_sending()
        assert (peer.line(), peer.line(), peer.line()) == (b"hello world", b"hello again", None)


def test_a_line_may_come_in_any_pieces() -> None:
    with listening(echo) as server, connect(server) as peer:
        for byte in b"one line\nthe next\n":
            peer.send_bytes(bytes([byte]))
            gevent.sleep(0)
        assert (peer.line(), peer.line()) == (b"one line", b"the next")


def test_what_is_sent_may_be_text_or_bytes() -> None:
    def answer(connection: TextConnection, line: str) -> None:
        connection.send("tâche")
        connection.send("tâche".encode("latin-1"))
        connection.send(b"")

    with listening(answer) as server, connect(server) as peer:
        peer.send_bytes(b"go\n")
        assert (peer.line(), peer.line(), peer.line()) == ("tâche".encode(), b"t\xe2che", b"")


def test_bytes_that_are_not_utf_8_come_back_as_they_went() -> None:
    every = bytes(byte for byte in range(256) if byte not in b"\r\n")
    heard: list[str] = []

    def answer(connection: TextConnection, line: str) -> None:
        heard.append(line)
        connection.send(line)

    with listening(answer) as server, connect(server) as peer:
        peer.send_bytes(every + b"\n" + "漢字".encode() + b"\n")
        assert (peer.line(), peer.line()) == (every, "漢字".encode())
    assert heard[1] == "漢字"


@pytest.mark.parametrize("line", ["two\nlines", b"two\nlines", "\n"])
def test_a_line_with_a_newline_in_it_is_refused(line: str | bytes) -> None:
    def answer(connection: TextConnection, _: str) -> None:
        with pytest.raises(ValueError, match="newline"):
            connection.send(line)
        connection.send("refused")

    with listening(answer) as server, connect(server) as peer:
        peer.send_bytes(b"go\n")
        assert peer.line() == b"refused"


def test_a_peer_that_has_shut_down_its_side_still_gets_its_answers() -> None:
    ended = Event()

    def answer(connection: TextConnection, line: str) -> None:
        ended.wait(PATIENCE)
        connection.send(line)

    with listening(answer) as server, connect(server) as peer:
        peer.send_bytes(b"1\n2\n3\n")
        peer.end_sending()
        ended.set()
        assert [peer.line() for _ in range(4)] == [b"1", b"2", b"3", None]


def test_lines_of_one_connection_come_one_after_another_and_others_go_on_meanwhile() -> None:
    log: list[str] = []
    go_on = Event()

    def answer(connection: TextConnection, line: str) -> None:
        log.append(f"begin {line}")
        if line == "slow":
            go_on.wait(PATIENCE)
        log.append(f"end {line}")
        connection.send(line)

    with listening(answer) as server, connect(server) as one, connect(server) as other:
        one.send_bytes(b"slow\nquick\n")
        wait_until(lambda: log == ["begin slow"], "it is being handled")
        other.send_bytes(b"other\n")
        assert other.line() == b"other"
        assert log == ["begin slow", "begin other", "end other"]
        go_on.set()
        assert (one.line(), one.line()) == (b"slow", b"quick")
        assert log[3:] == ["end slow", "begin quick", "end quick"]


def test_a_connection_can_be_written_to_from_elsewhere() -> None:
    everybody: list[TextConnection] = []
    with listening(echo, on_connect=everybody.append) as server, connect(server) as one, connect(server) as other:
        wait_until(lambda: len(everybody) == 2, "both are connected")
        for connection in everybody:
            connection.send("for all")
        assert (one.line(), other.line()) == (b"for all", b"for all")


def test_a_megabyte_comes_and_goes() -> None:
    with listening(echo) as server, connect(server) as peer:
        data = b"x" * 1_000_000
        reader = gevent.spawn(peer.line)
        peer.send_bytes(data + b"\n")
        assert reader.get(timeout=PATIENCE) == data


# ---- Life of a connection


def test_who_comes_and_goes_is_told() -> None:
    log: list[tuple[str, str]] = []
    with listening(
        lambda connection, line: log.append((line, connection.peer)),
        on_connect=lambda connection: log.append(("came", connection.peer)),
        on_close=lambda connection: log.append(("went", connection.peer)),
    ) as server:
        with connect(server) as peer:
            host, port = peer.socket.getsockname()
            peer.send_bytes(b"hello\n")
            wait_until(lambda: len(log) == 2, "the line has come")
        wait_until(lambda: len(log) == 3, "it has gone")
    assert log == [(what, f"{host}:{port}") for what in ("came", "hello", "went")]


@pytest.mark.parametrize("leave", [LineClient.close, LineClient.reset, LineClient.end_sending])
def test_a_peer_that_leaves_is_noticed_however_it_does(leave: Callable[[LineClient], None]) -> None:
    gone: list[TextConnection] = []
    with listening(echo, on_close=gone.append) as server, connect(server) as peer:
        peer.send_bytes(b"half a line")
        leave(peer)
        wait_until(lambda: gone, "it is noticed")
        wait_until(lambda: not gone[0].is_open, "it is closed")
        gone[0].send("nobody hears this, and nobody minds")


def test_a_greeting_is_the_first_line() -> None:
    with listening(echo, on_connect=lambda connection: connection.send("welcome")) as server, connect(server) as peer:
        assert peer.line() == b"welcome"


def test_close_sends_what_was_sent_and_takes_no_more() -> None:
    heard: list[str] = []

    def answer(connection: TextConnection, line: str) -> None:
        heard.append(line)
        connection.send("x" * 1_000_000)
        connection.send("bye")
        connection.close()

    with listening(answer) as server, connect(server) as peer:
        peer.send_bytes(b"quit\nand\nmore\n")
        peer.send_bytes(b"still more\n" * 10_000)
        assert peer.line() == b"x" * 1_000_000
        assert (peer.line(), peer.line()) == (b"bye", None)
    assert heard == ["quit"]


def test_a_peer_that_sends_on_and_on_can_not_keep_a_closed_connection_open() -> None:
    gone: list[TextConnection] = []

    def flood(peer: LineClient) -> None:
        try:
            while True:
                peer.send_bytes(b"and on\n" * 1000)
        except ConnectionError:
            pass

    with listening(lambda connection, _: connection.close(), on_close=gone.append) as server, connect(server) as peer:
        flooding = gevent.spawn(flood, peer)
        wait_until(lambda: gone and not gone[0].is_open, "it is closed")
        flooding.kill()


def test_close_from_elsewhere_ends_a_connection_that_is_silent() -> None:
    connections: list[TextConnection] = []
    with listening(echo, on_connect=connections.append) as server, connect(server) as peer:
        wait_until(lambda: connections, "it is connected")
        connections[0].send("bye")
        connections[0].close()
        assert (peer.line(), peer.line()) == (b"bye", None)
        wait_until(lambda: not connections[0].is_open, "it is closed")


def test_a_peer_that_is_closed_in_on_connect_is_not_heard() -> None:
    heard: list[str] = []

    def turn_away(connection: TextConnection) -> None:
        connection.send("full")
        connection.close()

    with listening(lambda _, line: heard.append(line), on_connect=turn_away) as server, connect(server) as peer:
        peer.send_bytes(b"let me in\n")
        assert (peer.line(), peer.line()) == (b"full", None)
    assert heard == []


# ---- What goes wrong


@pytest.mark.parametrize("error", [ValueError("a defect"), OSError("a file that isn't there"), KeyError("x")])
def test_an_exception_in_on_message_costs_only_that_connection(
    caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    gone: list[TextConnection] = []

    def answer(connection: TextConnection, line: str) -> None:
        connection.send(line)
        if line == "bad":
            raise error

    with (
        listening(answer, on_close=gone.append) as server,
        connect(server) as good,
        connect(server) as bad,
        caplog.at_level(logging.ERROR, "greentask"),
    ):
        bad.send_bytes(b"bad\nnever\n")
        assert (bad.line(), bad.line()) == (b"bad", None)
        assert len(gone) == 1
        good.send_bytes(b"good\n")
        assert good.line() == b"good"
        with connect(server) as another:
            another.send_bytes(b"welcome\n")
            assert another.line() == b"welcome"
    (record,) = caplog.records
    assert record.exc_info is not None
    assert record.exc_info[1] is error, "the log has its traceback"


@pytest.mark.parametrize("where", ["on_connect", "on_close"])
def test_an_exception_in_the_other_functions_does_not_either(caplog: pytest.LogCaptureFixture, where: str) -> None:
    def fail(_: TextConnection) -> None:
        raise ValueError("a defect")

    functions: dict[str, Any] = {where: fail}
    with listening(echo, **functions) as server:
        for _ in range(2):
            with connect(server) as peer:
                peer.end_sending()
                assert peer.line() is None
    assert len(caplog.records) == 2


@pytest.mark.parametrize("ended", [True, False])
def test_a_line_that_is_too_long_closes_the_connection_after_what_came_before(ended: bool) -> None:
    heard: list[str] = []

    def answer(connection: TextConnection, line: str) -> None:
        heard.append(line)
        connection.send(line)

    with listening(answer, limits=Limits(max_line=1000)) as server, connect(server) as peer:
        peer.send_bytes(b"before\n" + b"y" * 1000 + b"\n" + b"x" * 1100 + b"\n" * ended)
        peer.send_bytes(b"x" * 200_000 + b"\n")
        assert (peer.line(), peer.line(), peer.line()) == (b"before", b"y" * 1000, None)
    assert heard == ["before", "y" * 1000]


def test_a_peer_that_never_reads_is_cut_off() -> None:
    closed: list[TextConnection] = []

    def answer(connection: TextConnection, line: str) -> None:
        connection.send("x" * 100_000)

    limits = Limits(max_unsent=1_000_000)
    with listening(answer, limits=limits, on_close=closed.append) as server, connect(server) as peer:
        peer.send_bytes(b"more\n" * 200)
        wait_until(lambda: closed, "it is cut off")
        assert not closed[0].is_open


def test_connections_past_the_limit_wait() -> None:
    with (
        listening(echo, limits=Limits(max_connections=1)) as server,
        connect(server) as one,
        connect(server, 0.2) as two,
    ):
        one.send_bytes(b"1\n")
        assert one.line() == b"1"
        two.send_bytes(b"2\n")
        with pytest.raises(TimeoutError):
            two.line()
        one.close()
        two.socket.settimeout(PATIENCE)
        assert two.line() == b"2"


# ---- Life of the server


def test_stop_lets_every_connection_finish_what_has_arrived() -> None:
    handled: list[str] = []
    stopping = Event()

    def answer(connection: TextConnection, line: str) -> None:
        if line == "2":
            stopping.wait(PATIENCE)
        handled.append(line)
        connection.send(line)

    server = TextServer("127.0.0.1:0", answer)
    server.start()
    with connect(server) as busy, connect(server) as idle:
        idle.send_bytes(b"0\n")
        assert idle.line() == b"0"
        busy.send_bytes(b"1\n2\n")
        wait_until(lambda: len(handled) == 2, "the first is handled")
        stop = gevent.spawn(server.stop)
        wait_until(lambda: not server.addresses, "it stops")
        stopping.set()
        stop.get(timeout=PATIENCE)
        assert (busy.line(), busy.line(), busy.line()) == (b"1", b"2", None)
        assert idle.line() is None
        assert server.addresses == []


def test_what_was_sent_before_stop_still_arrives() -> None:
    with listening(echo) as server, connect(server) as peer:
        wait_until(lambda: server.connections, "it is connected")
        (connection,) = server.connections.values()
        connection.send("x" * 8_000_000)
        stop = gevent.spawn(server.stop)
        wait_until(lambda: not server.addresses, "it stops")
        assert len(peer.line() or b"") == 8_000_000
        assert peer.line() is None
        stop.get(timeout=PATIENCE)


def test_stop_cuts_off_what_does_not_end_in_time() -> None:
    begun = Event()

    def answer(connection: TextConnection, line: str) -> None:
        begun.set()
        gevent.sleep(60)

    server = TextServer("127.0.0.1:0", answer)
    server.start()
    with connect(server) as peer:
        peer.send_bytes(b"wait\n")
        assert begun.wait(PATIENCE)
        began = time.monotonic()
        server.stop(0.2)
        assert time.monotonic() - began < 3
        assert peer.line() is None


def test_nobody_gets_in_after_stop() -> None:
    with listening(echo) as server:
        address = server.addresses[0]
        server.stop()
        with pytest.raises(ConnectionRefusedError):
            gevent.socket.create_connection((address.host, address.port))


def test_serve_forever_ends_with_stop() -> None:
    server = TextServer("127.0.0.1:0", echo)
    serving = gevent.spawn(server.serve_forever)
    wait_until(lambda: server.addresses, "it listens")
    with connect(server) as peer:
        peer.send_bytes(b"hello\n")
        assert peer.line() == b"hello"
        server.stop()
    serving.get(timeout=PATIENCE)


def test_it_listens_where_it_is_told(tmp_path: Any) -> None:
    with listening(echo, f"127.0.0.1:0,unix://{tmp_path}/socket") as server:
        tcp, unix = server.addresses
        assert (tcp.scheme, unix.scheme) == ("tcp", "unix")
        sock = gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(unix.path)
        with LineClient(sock) as peer:
            peer.send_bytes(b"hello\n")
            assert peer.line() == b"hello"
    assert list(tmp_path.iterdir()) == [], "a clean stop leaves no file of a socket behind"


def test_it_refuses_to_be_reached_from_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="insecure"):
        TextServer("0.0.0.0:0", echo).start()
    with listening(echo, "0.0.0.0:0", insecure=True) as server:
        assert server.addresses[0].port > 0
