"""`TextServer`, in this process: lines in and out over real sockets, which gevent's hub serves meanwhile."""

import logging
import os
import signal
import socket
import ssl
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import gevent
import gevent.socket
import gevent.ssl
import pytest
from gevent.event import Event

from greentask import Limits, TextConnection, TextServer, TLSFiles
from greentask.errors import ConfigurationError, DeadlineExceeded, LineTooLong, Overloaded
from greentask.server import connection as connection_module
from support.certificates import Authority
from support.programs import ROOT, program
from support.servers import PATIENCE, LineClient
from support.text_servers import connect, echo, listening, wait_until

# ---- Lines


def test_lines_come_in_and_go_out() -> None:
    with listening(lambda connection, line: connection.send("hello " + line)) as server, connect(server) as peer:
        peer.send_bytes(b"world\nagain\r\nhalf")
        peer.end_sending()
        assert (peer.line(), peer.line(), peer.line()) == (b"hello world", b"hello again", None)


def test_an_empty_line_is_a_line() -> None:
    with listening(lambda connection, line: connection.send(f"[{line}]")) as server, connect(server) as peer:
        peer.send_bytes(b"\n\r\n\n x \n")
        assert [peer.line() for _ in range(4)] == [b"[]", b"[]", b"[]", b"[ x ]"]


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


def test_another_thread_can_have_a_line_sent() -> None:
    with listening(echo) as server, connect(server) as peer:
        connection = the_one(server)
        loop = gevent.get_hub().loop
        thread = threading.Thread(target=loop.run_callback_threadsafe, args=(connection.send, "from a thread"))
        thread.start()
        assert peer.line() == b"from a thread"
        thread.join()


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


def test_a_peer_that_does_not_read_can_not_keep_a_closed_connection_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection_module, "_FLUSHED_WITHIN", 0.1)
    limits = Limits(max_unsent=60_000_000)
    gone: list[TextConnection] = []
    with (
        listening(lambda one, _: one.send("x" * 30_000_000), limits=limits, on_close=gone.append) as server,
        connect(server) as peer,
    ):
        peer.send_bytes(b"1\n2\n")
        wait_until(lambda: server.connections and the_one(server).is_full, "it does not read")
        the_one(server).close()
        wait_until(lambda: gone and not gone[0].is_open, "it is closed")


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
    errors: list[Exception] = []

    def answer(connection: TextConnection, line: str) -> None:
        while connection.send("x" * 100_000):
            pass

    limits = Limits(max_unsent=1_000_000)
    told: dict[str, Any] = {"on_close": closed.append, "on_error": lambda _, error: errors.append(error)}
    with listening(answer, limits=limits, **told) as server, connect(server) as peer:
        peer.send_bytes(b"more\n")
        wait_until(lambda: closed, "it is cut off")
        assert not closed[0].is_open
    (error,) = errors
    assert isinstance(error, ConnectionError)
    assert "max_unsent" in str(error)


def test_lines_of_a_peer_that_reads_slowly_wait_and_it_is_not_cut_off() -> None:
    limits = Limits(max_unsent=1_000_000)
    with listening(lambda one, _: one.send("x" * 100_000), limits=limits) as server, connect(server) as peer:
        peer.send_bytes(b"more\n" * 200)
        wait_until(lambda: [one for one in server.connections.values() if one.is_full], "its buffer is full")
        assert [len(peer.line() or b"") for _ in range(200)] == [100_000] * 200


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


# ---- What a connection tells, and takes


def the_one(server: TextServer) -> TextConnection:
    wait_until(lambda: len(server.connections) == 1, "it is connected")
    return next(iter(server.connections.values()))


def test_a_connection_says_who_it_is() -> None:
    with listening(echo) as server:
        ids = []
        for _ in range(3):
            with connect(server) as peer:
                connection = the_one(server)
                ids.append(connection.id)
                host, port = peer.socket.getsockname()
                assert (connection.remote_host, connection.remote_port) == (host, port)
                assert connection.peer == f"{host}:{port}"
                assert connection.local == f"127.0.0.1:{server.addresses[0].port}"
                assert repr(connection) == f"<TextConnection {connection.id} from {host}:{port}>"
                assert connection.server is server
            wait_until(lambda: not server.connections, "it has gone")
            assert connection.local == ""
        assert ids == [1, 2, 3]


def test_a_connection_of_a_unix_socket_has_no_address(tmp_path: Path) -> None:
    path = f"{tmp_path}/socket"
    with listening(echo, f"unix://{path}") as server:
        sock = gevent.socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        sock.connect(path)
        with LineClient(sock):
            connection = the_one(server)
            assert (connection.remote_host, connection.remote_port) == ("", 0)
            assert (connection.peer, connection.local) == ("unix socket", path)


def test_a_peer_whose_machine_is_gone_is_noticed_within_minutes() -> None:
    with listening(echo) as server, connect(server):
        sock = the_one(server)._lines._socket
        idle, every, times = (
            sock.getsockopt(socket.IPPROTO_TCP, option)
            for option in (socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT)
        )
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        assert idle + every * times == 120


def test_a_connection_counts_lines_and_bytes() -> None:
    with listening(echo) as server, connect(server) as peer:
        connection = the_one(server)
        peer.send_bytes("tâche\r\nab\nhalf".encode())
        assert (peer.line(), peer.line()) == ("tâche".encode(), b"ab")
        assert (connection.lines_read, connection.lines_sent) == (2, 2)
        assert (connection.bytes_read, connection.bytes_written) == (15, 10)
        assert (connection.pending, connection.unsent) == (4, 0)


def test_a_connection_keeps_what_you_want_to_know_of_it() -> None:
    def answer(connection: TextConnection, line: str) -> None:
        if line.startswith("I am "):
            connection.context.name = line[5:]
        connection.send(f"you are {getattr(connection.context, 'name', 'nobody')}")

    with listening(answer) as server, connect(server) as ann, connect(server) as bob:
        ann.send_bytes(b"hello\nI am Ann\n")
        bob.send_bytes(b"I am Bob\n")
        ann.send_bytes(b"who?\n")
        assert [ann.line() for _ in range(3)] == [b"you are nobody", b"you are Ann", b"you are Ann"]
        assert bob.line() == b"you are Bob"


def test_a_connection_may_have_functions_of_its_own() -> None:
    log: list[str] = []

    def first(connection: TextConnection, line: str) -> None:
        connection.on_message = lambda connection, line: connection.send("then " + line)
        connection.on_close = lambda _: log.append("its own")
        connection.send("first " + line)

    with listening(first, on_close=lambda _: log.append("the server's")) as server:
        with connect(server) as peer:
            peer.send_bytes(b"1\n2\n")
            assert (peer.line(), peer.line()) == (b"first 1", b"then 2")
        wait_until(lambda: log, "it has gone")
    assert log == ["its own"]


def test_send_says_whether_it_can_arrive() -> None:
    with listening(echo) as server, connect(server) as peer:
        connection = the_one(server)
        assert connection.send("yes")
        connection.close("bye")
        assert not connection.send("no more after that")
        assert (peer.line(), peer.line(), peer.line()) == (b"yes", b"bye", None)
        wait_until(lambda: not connection.is_open, "it is closed")
        assert not connection.send("no")
        assert connection.lines_sent == 2


def test_destroy_forgets_what_was_not_sent() -> None:
    gone: list[TextConnection] = []
    with listening(echo, on_close=gone.append) as server, connect(server) as peer:
        connection = the_one(server)
        connection.send("x" * 50_000_000)
        connection.destroy()
        assert (connection.is_open, connection.unsent) == (False, 0)
        wait_until(lambda: gone, "it is closed")
        with suppress(ConnectionError):
            assert peer.line() is None


def test_broadcast_reaches_everybody_else() -> None:
    def say(connection: TextConnection, line: str) -> None:
        count = connection.server.broadcast(line, without=connection)
        connection.send(f"heard by {count}")

    with listening(say) as server, connect(server) as one, connect(server) as two, connect(server) as three:
        wait_until(lambda: len(server.connections) == 3, "all are connected")
        one.send_bytes(b"hello\n")
        assert [peer.line() for peer in (one, two, three)] == [b"heard by 2", b"hello", b"hello"]
        assert server.broadcast(b"for all") == 3
        assert [peer.line() for peer in (one, two, three)] == [b"for all"] * 3
        with pytest.raises(ValueError, match="newline"):
            server.broadcast("two\nlines")


# ---- The pace


def test_a_paused_connection_is_not_heard_until_it_is_resumed() -> None:
    heard: list[str] = []

    def answer(connection: TextConnection, line: str) -> None:
        heard.append(line)
        if line == "pause":
            connection.pause()

    with listening(answer) as server, connect(server) as peer, connect(server) as other:
        peer.send_bytes(b"pause\none\ntwo\n")
        wait_until(lambda: heard, "the first is heard")
        other.send_bytes(b"other\n")
        wait_until(lambda: len(heard) > 1, "others go on")
        assert heard == ["pause", "other"]
        (paused,) = [one for one in server.connections.values() if one.is_paused]
        paused.send("still written to")
        assert peer.line() == b"still written to"
        paused.resume()
        wait_until(lambda: len(heard) == 4, "it goes on")
        assert heard[2:] == ["one", "two"]
        assert not paused.is_paused


def test_a_pause_from_elsewhere_holds_what_has_not_arrived_too() -> None:
    heard: list[str] = []
    with listening(lambda _, line: heard.append(line)) as server, connect(server) as peer:
        connection = the_one(server)
        connection.pause()
        connection.pause()
        peer.send_bytes(b"one\n")
        with connect(server) as other:
            other.send_bytes(b"later\n")
            wait_until(lambda: heard, "what came later is heard")
        assert heard == ["later"]
        connection.resume()
        connection.resume()
        wait_until(lambda: heard == ["later", "one"], "it goes on")


@pytest.mark.parametrize("end", [TextConnection.close, TextConnection.destroy])
def test_a_paused_connection_can_be_closed(end: Callable[[TextConnection], None]) -> None:
    gone: list[TextConnection] = []
    heard: list[str] = []
    with (
        listening(lambda _, line: heard.append(line), on_close=gone.append, on_connect=TextConnection.pause) as server,
        connect(server) as peer,
    ):
        peer.send_bytes(b"one\n")
        connection = the_one(server)
        wait_until(lambda: connection.bytes_read, "it has arrived")
        end(connection)
        wait_until(lambda: gone, "it is closed")
        connection.pause()
        assert not connection.is_paused
    assert heard == []


def test_a_full_buffer_and_an_empty_one_are_told() -> None:
    log: list[str] = []

    def feed(connection: TextConnection, line: str) -> None:
        """What a sender with callbacks does: stop when it is full, go on when it is empty."""
        while len(log) < 6 and not connection.is_full:
            connection.send("x" * 99_999)

    def empty(connection: TextConnection) -> None:
        log.append("empty")
        assert connection.unsent == 0
        feed(connection, "")
        if len(log) == 6:
            connection.send("done")

    limits = Limits(max_unsent=4_000_000)
    functions: dict[str, Any] = {"on_buffer_full": lambda _: log.append("full"), "on_buffer_drain": empty}
    with listening(feed, limits=limits, **functions) as server, connect(server, receive_buffer=4096) as peer:
        peer.send_bytes(b"go\n")
        connection = the_one(server)
        wait_until(lambda: log, "it is full")
        assert connection.is_full
        assert connection.unsent > 0
        while (line := peer.line()) != b"done":
            assert len(line or b"") == 99_999
        assert log == ["full", "empty"] * 3


def test_flush_lets_a_sender_wait_for_a_slow_reader() -> None:
    def send_much(connection: TextConnection, line: str) -> None:
        for number in range(200):
            connection.send("x" * 100_000)
            if connection.is_full:
                most.append(connection.unsent)
                if not connection.flush(0.01):
                    waited.append(number)
                assert connection.flush()
        connection.send("done")

    most: list[int] = []
    waited: list[int] = []
    limits = Limits(max_unsent=1_000_000)
    with listening(send_much, limits=limits) as server, connect(server, receive_buffer=4096) as peer:
        peer.send_bytes(b"go\n")
        wait_until(lambda: waited, "it waits for its reader")
        for _ in range(200):
            assert len(peer.line() or b"") == 100_000
        assert peer.line() == b"done"
    assert max(most) < 400_000


def test_flush_ends_when_the_peer_is_gone() -> None:
    ends: list[bool] = []

    def send_much(connection: TextConnection, line: str) -> None:
        connection.send("x" * 50_000_000)
        ends.append(connection.flush())

    with listening(send_much) as server, connect(server) as peer:
        peer.send_bytes(b"go\n")
        wait_until(lambda: server.connections and the_one(server).unsent, "it is being sent")
        peer.reset()
        wait_until(lambda: ends, "it has ended")
    assert ends == [False]


def test_a_connection_can_be_piped_into_another_at_that_ones_pace() -> None:
    def meet(connection: TextConnection) -> None:
        if len(server.connections) == 2:
            (other,) = [one for one in server.connections.values() if one is not connection]
            other.pipe(connection)

    gone: list[TextConnection] = []
    limits = Limits(max_unsent=400_000)
    with (
        listening(echo, on_connect=meet, on_close=gone.append, limits=limits) as server,
        connect(server) as source,
    ):
        the_one(server)
        with connect(server, receive_buffer=4096) as reader:
            wait_until(lambda: len(server.connections) == 2, "they have met")
            first, second = server.connections.values()
            count = 1000
            sending = gevent.spawn(
                source.send_bytes, b"".join(b"%06d" % n + b"x" * 9_994 + b"\n" for n in range(count))
            )
            wait_until(lambda: second.is_full, "its reader is slow")
            gevent.sleep(0.05)  # it doesn't become more
            assert second.unsent < 200_000
            assert first.lines_read < count
            lines = [reader.line() or b"" for _ in range(count)]
            assert [int(line[:6]) for line in lines] == list(range(count))
            sending.get(timeout=PATIENCE)
            source.end_sending()
            assert reader.line() is None, "it is closed when the other one ends"
        wait_until(lambda: len(gone) == 2, "both have gone, and that is told")


def test_a_pipe_ends_when_its_reader_has_gone() -> None:
    with listening(echo) as server, connect(server) as source:
        first = the_one(server)
        with connect(server):
            wait_until(lambda: len(server.connections) == 2, "both are connected")
            first.pipe(server.connections[2])
        wait_until(lambda: len(server.connections) == 1, "it has gone")
        source.send_bytes(b"for nobody\n")
        assert source.line() is None


# ---- Errors that are told


def test_what_a_function_raises_is_told_to_on_error_and_closes(caplog: pytest.LogCaptureFixture) -> None:
    log: list[Any] = []
    error = ValueError("a defect")

    def fail(connection: TextConnection, line: str) -> None:
        connection.send("before")
        raise error

    def told(connection: TextConnection, error: Exception) -> None:
        log.append(error)
        connection.send("sorry")

    with listening(fail, on_error=told, on_close=lambda _: log.append("gone")) as server, connect(server) as peer:
        peer.send_bytes(b"1\n2\n")
        assert (peer.line(), peer.line(), peer.line()) == (b"before", b"sorry", None)
    assert log == [error, "gone"]
    assert caplog.messages == []


@pytest.mark.parametrize("where", ["on_connect", "on_close", "on_buffer_full"])
def test_what_any_function_raises_is_told(where: str) -> None:
    errors: list[Exception] = []

    def fail(_: TextConnection) -> None:
        raise ValueError(where)

    functions: dict[str, Any] = {where: fail, "on_error": lambda _, error: errors.append(error)}
    limits = Limits(max_unsent=4_000_000)
    with listening(lambda one, _: one.send("x" * 3_000_000), limits=limits, **functions) as server:
        with connect(server) as peer:
            peer.send_bytes(b"go\n")
            peer.end_sending()
            while peer.line():
                pass
        wait_until(lambda: not server.connections, "it is closed")
    assert [str(error) for error in errors] == [where]


def test_an_on_error_that_fails_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(*_: object) -> None:
        raise ValueError("a defect")

    with listening(fail, on_error=fail) as server, connect(server) as peer:
        peer.send_bytes(b"1\n")
        assert peer.line() is None
    assert len(caplog.records) == 1


def test_what_a_peer_did_is_told_too() -> None:
    errors: list[Exception] = []
    limits = Limits(max_line=1000, line_timeout=0.1)
    with listening(echo, on_error=lambda _, error: errors.append(error), limits=limits) as server:
        with connect(server) as peer:
            peer.send_bytes(b"x" * 2000)
            assert peer.line() is None
        with connect(server) as peer:
            peer.send_bytes(b"half")
            assert peer.line() is None
        with connect(server) as peer:
            the_one(server)
            peer.reset()
            wait_until(lambda: not server.connections, "it is gone")
        with connect(server) as peer:
            peer.send_bytes(b"hello\n")
            assert peer.line() == b"hello"
        wait_until(lambda: not server.connections, "it is gone")
    assert [type(error) for error in errors] == [LineTooLong, DeadlineExceeded, ConnectionResetError]


def test_what_connections_hold_together_is_bounded() -> None:
    errors: list[Exception] = []
    limits = Limits(max_line=100_000, max_unsent=100_000, max_held=200_000, line_timeout=2)
    with (
        listening(echo, on_error=lambda _, error: errors.append(error), limits=limits) as server,
        connect(server) as first,
        connect(server) as second,
        connect(server) as third,
    ):
        first.send_bytes(b"x" * 80_000)
        wait_until(lambda: any(one.pending for one in server.connections.values()), "half a line is there")
        second.send_bytes(b"x" * 80_000)
        wait_until(lambda: errors, "one is sent away")
        assert [type(error) for error in errors] == [Overloaded]
        third.send_bytes(b"hello\n")
        assert third.line() == b"hello"


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


def test_start_and_stop_are_told() -> None:
    log: list[Any] = []

    def started(server: TextServer) -> None:
        log.append(str(server.addresses[0]))

    server = TextServer(
        "127.0.0.1:0",
        echo,
        on_start=started,
        on_connect=lambda _: log.append("came"),
        on_close=lambda _: log.append("went"),
        on_stop=lambda server: log.append(len(server.connections)),
    )
    server.start()
    address = str(server.addresses[0])
    with connect(server):
        wait_until(lambda: server.connections, "it is connected")
        server.stop()
    server.stop()
    assert log == [address, "came", "went", 0]


def test_a_server_that_can_not_start_listens_nowhere(tmp_path: Path) -> None:
    def fail(_: TextServer) -> None:
        raise ValueError("a defect")

    server = TextServer(f"unix://{tmp_path}/socket", echo, on_start=fail)
    with pytest.raises(ValueError, match="a defect"):
        server.start()
    assert server.addresses == []
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("where", ["on_message", "on_connect", "on_close", "on_error"])
def test_stop_in_one_of_the_functions_does_not_wait_for_itself(where: str) -> None:
    def stop(connection: TextConnection, *_: object) -> None:
        began = time.monotonic()
        connection.server.stop()
        assert time.monotonic() - began < 1
        connection.send("as you wish")

    def fail(connection: TextConnection, line: str) -> None:
        raise ValueError("a defect")

    functions: dict[str, Any] = {} if where == "on_message" else {where: stop}
    handler = stop if where == "on_message" else fail if where == "on_error" else echo
    server = TextServer("127.0.0.1:0", handler, **functions)
    serving = gevent.spawn(server.serve_forever)
    wait_until(lambda: server.addresses, "it listens")
    began = time.monotonic()
    with connect(server) as peer:
        peer.send_bytes(b"stop\n")
        peer.end_sending()
        while (line := peer.line()) is not None:
            assert line in (b"as you wish", b"stop")
        serving.get(timeout=PATIENCE)
    assert time.monotonic() - began < 5


def test_serve_forever_goes_on_where_start_has_begun_and_ends_where_stop_has_ended() -> None:
    server = TextServer("127.0.0.1:0", echo)
    server.start()
    (address,) = server.addresses
    serving = gevent.spawn(server.serve_forever)
    gevent.sleep(0)
    assert server.addresses == [address]
    server.stop()
    serving.get(timeout=PATIENCE)
    server.serve_forever()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_it(number: int) -> None:
    source = """if True:
        from greentask import TextServer
        server = TextServer("127.0.0.1:0", lambda connection, line: connection.send(line),
            on_start=lambda server: print(server.addresses[0].port, flush=True),
            on_stop=lambda server: print("stopped", flush=True))
        server.serve_forever()
    """
    with program("-c", source, stop_with=number, PYTHONPATH=str(ROOT)) as (line, started):
        with LineClient(socket.create_connection(("127.0.0.1", int(line)))) as peer:
            peer.send_bytes(b"hello\n")
            assert peer.line() == b"hello"
            started.send_signal(number)
            assert peer.line() is None
        assert started.stdout is not None
        assert started.stdout.read() == "stopped\n"
        assert started.wait(PATIENCE) == 0


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


def test_it_speaks_tls(tmp_path: Path) -> None:
    ours = Authority(tmp_path)
    with pytest.raises(ConfigurationError, match="tls="):
        TextServer("tls://127.0.0.1:0", echo).start()
    with listening(echo, "tls://127.0.0.1:0", tls=TLSFiles(*ours.server)) as server:
        assert server.addresses[0].scheme == "tls"
        context = gevent.ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.load_verify_locations(ours.ca)
        sock = gevent.socket.create_connection(("127.0.0.1", server.addresses[0].port))
        with LineClient(context.wrap_socket(sock, server_hostname="localhost")) as peer:
            peer.send_bytes(b"hello\n")
            assert peer.line() == b"hello"


def test_only_allowed_networks_can_connect() -> None:
    with listening(echo, allow=["10.0.0.0/8"]) as server, connect(server) as peer:
        assert peer.line() is None
    with listening(echo, allow=["127.0.0.0/8"]) as server, connect(server) as peer:
        peer.send_bytes(b"hello\n")
        assert peer.line() == b"hello"


def test_the_file_of_its_socket_has_the_mode_that_is_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening(echo, f"unix://{path}", socket_mode=0o620, socket_owner=f":{os.getegid()}"):
        assert stat.S_IMODE(path.stat().st_mode) == 0o620


def test_it_refuses_to_be_reached_from_elsewhere() -> None:
    with pytest.raises(ConfigurationError, match="insecure"):
        TextServer("0.0.0.0:0", echo).start()
    with listening(echo, "0.0.0.0:0", insecure=True) as server:
        assert server.addresses[0].port > 0
