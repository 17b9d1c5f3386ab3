"""The outlet: everything leaves, in order, together where it fits; and a slow or dead reader holds up nobody."""

import fcntl
import os
import random
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice

import gevent
import pytest
from gevent.hub import Hub, get_hub

from greentask.hub import outlet as outlet_module
from greentask.hub.outlet import Outlet
from support.interrupting import at_each_moment
from support.waiting import wait_until

LARGE = 1024 * 1024  # more than fits into a socket


@contextmanager
def outlet_to(
    reader_and_writer: tuple[socket.socket, socket.socket], failed: Callable[[OSError], None] | None = None
) -> Iterator[tuple[Outlet, socket.socket]]:
    reader, writer = reader_and_writer
    with reader, writer:
        reader.setblocking(False)
        writer.setblocking(False)
        outlet = Outlet(get_hub().loop, writer.fileno(), failed or unexpected)
        try:
            yield outlet, reader
        finally:
            outlet.close()


def unexpected(error: OSError) -> None:
    raise AssertionError(f"the other end is not gone: {error}")


def small_buffers() -> tuple[socket.socket, socket.socket]:
    reader, writer = socket.socketpair()
    for end in (reader, writer):
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)  # the kernel makes of it the least that it allows
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    return reader, writer


def packets() -> tuple[socket.socket, socket.socket]:
    """A pair that keeps the borders between writes."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def read_now(reader: socket.socket, size: int = 65536) -> bytes | None:
    """What there is; None for nothing yet."""
    try:
        return reader.recv(size)
    except BlockingIOError:
        return None


def read_all(reader: socket.socket, length: int, chunk: Callable[[], int] = lambda: 65536) -> bytes:
    """Read so many bytes, bit by bit."""
    data = bytearray()

    def more() -> bool:
        while len(data) < length and (piece := read_now(reader, min(chunk(), length - len(data)))):
            data.extend(piece)
        return len(data) == length

    wait_until(more, 30, f"byte {length}")
    return bytes(data)


# ---- What leaves, and when


def test_what_is_written_arrives() -> None:
    with outlet_to(socket.socketpair()) as (outlet, reader):
        outlet.write(b"hello ", b"", b"world")
        assert outlet.unsent == 11
        assert read_all(reader, 11) == b"hello world"
        assert outlet.unsent == 0


def test_writes_of_one_turn_leave_in_one_packet() -> None:
    with outlet_to(packets()) as (outlet, reader):
        outlet.write(b"one ")
        outlet.write(b"two ", b"three ")
        gevent.spawn(outlet.write, b"four")  # its turn comes before the loop's callbacks end, or after
        assert read_now(reader) is None  # nothing leaves before the turn is over
        first = wait_until(lambda: read_now(reader))
        assert first.startswith(b"one two three ")
        outlet.write(b"and five")
        rest = first.removeprefix(b"one two three ")
        while b"five" not in rest:
            rest += wait_until(lambda: read_now(reader))
        assert rest == b"fourand five"


def test_writes_of_different_turns_do_not_wait_for_each_other() -> None:
    with outlet_to(packets()) as (outlet, reader):
        for number in range(5):
            outlet.write(str(number).encode())
            assert wait_until(lambda: read_now(reader)) == str(number).encode()


def test_more_pieces_than_the_kernel_takes_at_once_leave_too() -> None:
    pieces = [f"{number},".encode() for number in range(5000)]
    with outlet_to(socket.socketpair()) as (outlet, reader):
        outlet.write(*pieces)
        assert read_all(reader, outlet.unsent) == b"".join(pieces)


def test_a_slow_reader_gets_everything_in_order() -> None:
    seed = random.getrandbits(32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    written = bytearray()
    with outlet_to(small_buffers()) as (outlet, reader):

        def write() -> None:
            for _ in range(300):
                pieces = [
                    chance.randbytes(chance.choice([0, 1, 10, 1000, 20_000])) for _ in range(chance.randint(1, 4))
                ]
                outlet.write(*pieces)
                written.extend(b"".join(pieces))
                if chance.random() < 0.3:
                    gevent.sleep(0)

        writer = gevent.spawn(write)
        wait_until(writer.ready)
        assert outlet.unsent > 0  # else nothing was ever in the way
        assert read_all(reader, len(written), lambda: chance.randint(1, 5000)) == written
        assert outlet.unsent == 0


def test_unsent_is_what_the_reader_has_not_taken() -> None:
    with outlet_to(small_buffers()) as (outlet, reader):
        outlet.write(b"x" * LARGE)
        wait_until(lambda: outlet.unsent < LARGE, what="a partial write")
        left = outlet.unsent
        assert left > LARGE // 2
        read_all(reader, LARGE // 8)
        wait_until(lambda: outlet.unsent < left, what="another partial write")


def test_other_greenlets_run_while_a_reader_does_not_read() -> None:
    with outlet_to(small_buffers()) as (outlet, _):
        outlet.write(b"x" * LARGE)
        turns = 0

        def take_turns() -> None:
            nonlocal turns
            for _ in range(100):
                gevent.sleep(0)
                turns += 1

        wait_until(gevent.spawn(take_turns).ready)
        assert turns == 100


# ---- Waiting


def test_wait_below_returns_when_the_reader_has_read() -> None:
    with outlet_to(small_buffers()) as (outlet, reader):
        assert outlet.wait_below(0)  # nothing is waiting
        outlet.write(b"x" * LARGE)
        waiting = [gevent.spawn(outlet.wait_below, limit) for limit in (LARGE // 2, LARGE // 2, 0)]
        read_all(reader, LARGE // 4)
        assert not any(greenlet.ready() for greenlet in waiting)
        read_all(reader, LARGE // 2)
        wait_until(lambda: waiting[0].ready() and waiting[1].ready())
        assert not waiting[2].ready()
        read_all(reader, LARGE // 4)
        wait_until(waiting[2].ready)
        assert [greenlet.get() for greenlet in waiting] == [True, True, True]


def test_wait_below_gives_up_after_its_timeout() -> None:
    with outlet_to(small_buffers()) as (outlet, _):
        outlet.write(b"x" * LARGE)
        assert outlet.wait_below(0, 0.02) is False
        assert outlet.wait_below(LARGE, 0.02) is True


def test_a_reader_that_takes_a_little_now_and_then_does_not_prolong_the_timeout() -> None:
    with outlet_to(small_buffers()) as (outlet, reader):
        outlet.write(b"x" * LARGE)
        waiting = gevent.spawn(outlet.wait_below, 0, 0.2)
        reads = 0

        def read_a_little() -> bool:
            nonlocal reads
            reads += read_now(reader, 4096) is not None
            gevent.sleep(0.01)
            return waiting.ready()

        wait_until(read_a_little, 5, "the timeout")
        assert waiting.get() is False
        assert reads > 3
        assert outlet.unsent > 0


# ---- The end


def test_failed_is_called_once_when_the_reader_is_gone() -> None:
    heard: list[OSError] = []
    with outlet_to(socket.socketpair(), heard.append) as (outlet, reader):
        reader.close()
        outlet.write(b"nobody reads this")
        outlet.write(b"nor this")
        wait_until(lambda: heard)
        outlet.write(b"nor anything else")
        gevent.sleep(0)
        gevent.sleep(0)
        assert [type(error) for error in heard] == [BrokenPipeError]
        assert outlet.unsent == 0


def test_failed_is_called_when_the_reader_goes_while_it_is_behind() -> None:
    heard: list[OSError] = []
    with outlet_to(small_buffers(), heard.append) as (outlet, reader):
        outlet.write(b"x" * LARGE)
        waiting = gevent.spawn(outlet.wait_below, 0)
        wait_until(lambda: outlet.unsent < LARGE)
        reader.close()
        wait_until(waiting.ready)
        assert waiting.get() is True
        assert len(heard) == 1
        assert isinstance(heard[0], BrokenPipeError | ConnectionResetError)


def test_who_hears_of_the_failure_may_write_and_close() -> None:
    heard: list[OSError] = []

    def failed(error: OSError) -> None:
        heard.append(error)
        outlet.write(b"too late")
        outlet.close()

    with outlet_to(socket.socketpair(), failed) as (outlet, reader):
        reader.close()
        outlet.write(b"x")
        wait_until(lambda: heard)
        assert outlet.unsent == 0


def test_close_forgets_what_is_waiting_and_wakes_who_waits() -> None:
    with outlet_to(small_buffers()) as (outlet, reader):
        outlet.write(b"x" * LARGE)
        waiting = gevent.spawn(outlet.wait_below, 0)
        wait_until(lambda: outlet.unsent < LARGE)
        outlet.close()
        outlet.close()
        wait_until(waiting.ready)
        assert waiting.get() is True
        outlet.write(b"after the end")
        assert outlet.unsent == 0
        data = b""
        while (more := read_now(reader)) is not None:
            data += more
        assert set(data) == {ord("x")}


def test_close_in_the_turn_of_the_write_sends_nothing() -> None:
    with outlet_to(socket.socketpair()) as (outlet, reader):
        outlet.write(b"x")
        outlet.close()
        gevent.sleep(0)
        gevent.sleep(0)
        assert read_now(reader) is None


def test_the_descriptor_stays_its_owners() -> None:
    reader, writer = socket.socketpair()
    with outlet_to((reader, writer)) as (outlet, _):
        outlet.close()
        writer.send(b"x")
        assert read_now(reader) == b"x"


@pytest.mark.parametrize("written", [b"x", b"x" * LARGE])
def test_an_abandoned_outlet_writes_nothing_more(written: bytes) -> None:
    """As in a forked child, where the number of the descriptor may soon be another file's."""
    with outlet_to(small_buffers()) as (outlet, reader):
        outlet.write(written)
        if len(written) > 1:
            wait_until(lambda: outlet.unsent < LARGE)
            while read_now(reader) is not None:
                pass
        outlet.abandon()
        outlet.write(b"y")
        gevent.sleep(0)
        gevent.sleep(0)
        assert read_now(reader) is None


# ---- At once


def test_what_is_written_now_leaves_before_the_turn_ends() -> None:
    with outlet_to(packets()) as (outlet, reader):
        outlet.write_now(b"first")
        assert read_now(reader) == b"first"


def test_what_is_written_now_does_not_overtake_what_waits() -> None:
    with outlet_to(packets()) as (outlet, reader):
        outlet.write(b"first ")
        outlet.write_now(b"second")
        assert read_now(reader) is None
        gevent.sleep(0)
        assert read_now(reader) == b"first second"


def test_what_does_not_fit_now_leaves_later() -> None:
    with outlet_to(small_buffers()) as (outlet, reader):
        data = random.randbytes(LARGE)
        outlet.write_now(data)
        assert 0 < outlet.unsent < LARGE
        outlet.write_now(b"more")
        assert read_all(reader, LARGE + 4) == data + b"more"


def test_an_end_that_is_gone_is_told_in_the_loop_and_not_to_who_writes_now() -> None:
    errors: list[OSError] = []
    with outlet_to(packets(), errors.append) as (outlet, reader):
        reader.close()
        outlet.write_now(b"lost")
        assert errors == []
        gevent.sleep(0)
        assert len(errors) == 1
        outlet.write_now(b"nobody hears it")
        assert outlet.unsent == 0


def test_a_flush_whose_turn_is_lost_is_made_up_for_by_the_next_write() -> None:
    """A Ctrl-C comes before the first instruction of what the loop calls."""
    with outlet_to(packets()) as (outlet, reader):
        outlet.write(b"first ")
        outlet._callback.stop()
        gevent.sleep(0)
        assert read_now(reader) is None
        outlet.write(b"second")
        gevent.sleep(0)
        assert read_now(reader) == b"first second"


@pytest.mark.parametrize("pieces", [[b"abc"], [b"ab", b"c"]], ids=["one piece", "several"])
def test_a_ctrl_c_in_the_very_moment_of_writing_loses_nothing(
    pieces: list[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel signals as soon as the reader's end has something: while we are still in the call that writes."""
    monkeypatch.setattr(Hub, "NOT_ERROR", (*Hub.NOT_ERROR, KeyboardInterrupt))
    before = signal.signal(signal.SIGIO, signal.default_int_handler)
    try:
        with outlet_to(socket.socketpair()) as (outlet, reader):
            flags = fcntl.fcntl(reader, fcntl.F_GETFL)
            fcntl.fcntl(reader, fcntl.F_SETOWN, os.getpid())
            fcntl.fcntl(reader, fcntl.F_SETFL, flags | os.O_ASYNC)
            outlet.write(*pieces)
            with pytest.raises(KeyboardInterrupt):
                gevent.sleep(5)
            fcntl.fcntl(reader, fcntl.F_SETFL, flags)
            assert outlet.unsent == 0
            outlet.write(b"def")
            assert read_all(reader, 6) == b"abcdef"
            assert read_now(reader) is None
    finally:
        signal.signal(signal.SIGIO, before)


# ---- A Ctrl-C at each moment


@pytest.mark.parametrize("pieces", [[b"a" * 18_000], [b"b" * 300] * 60], ids=["one piece", "many"])
def test_a_ctrl_c_at_any_moment_of_writing_loses_nothing_and_repeats_nothing(pieces: list[bytes]) -> None:
    moments = 0
    for run in at_each_moment(outlet_module):
        moments += 1
        with outlet_to(small_buffers()) as (outlet, reader):
            outlet.write(*pieces)
            outlet._callback.stop()
            run(outlet._flush)
            outlet.write(b"more")
            outlet.mend()
            sent = b"".join(pieces) + b"more"
            assert read_all(reader, len(sent)) == sent
            wait_until(lambda: outlet.unsent == 0, what="all has left")
            assert read_now(reader) is None
            assert outlet.written == len(sent)
    assert moments > 3


@pytest.mark.parametrize("way", ["write", "write_now"])
def test_what_a_ctrl_c_keeps_from_being_written_is_missing_as_a_whole(way: str) -> None:
    moments = 0
    for run in at_each_moment(outlet_module):
        moments += 1
        with outlet_to(packets()) as (outlet, reader):
            if way == "write":
                outlet.write(b"first ")
                run(lambda: outlet.write(b"sec", b"ond "))
            else:
                run(lambda: outlet.write_now(b"first second "))
            outlet.write(b"third")
            outlet.mend()
            wait_until(lambda: outlet.unsent == 0, what="all has left")
            left = b""
            while (data := read_now(reader)) is not None:
                left += data
            assert left in (b"first second third", b"first third" if way == "write" else b"third")
    assert moments > 3


# ---- A signal handler that writes


@pytest.mark.parametrize("of_handler", ["write", "write_now"])
@pytest.mark.parametrize("way", ["write", "write_now", "_flush"])
@pytest.mark.parametrize("size", [5, 18_000], ids=["all of it leaves", "half of it leaves"])
def test_what_a_signal_handler_writes_at_any_moment_comes_between_lines_and_not_into_one(
    size: int, way: str, of_handler: str
) -> None:
    line, of_handlers = b"a" * size + b"\n", b"of the handler\n"
    orders: set[bytes] = set()
    moments = 0

    def handler() -> None:
        getattr(outlet, of_handler)(of_handlers)

    for run in at_each_moment(outlet_module, handler=handler):
        moments += 1
        with outlet_to(small_buffers()) as (outlet, reader):
            if way == "_flush":
                outlet.write(line)
                run(outlet._flush)
            else:
                run(lambda: getattr(outlet, way)(line))
            outlet.write(b"third\n")
            expected = outlet.written + outlet.unsent
            read = read_all(reader, expected)
            wait_until(lambda: outlet.unsent == 0, what="all has left")
            assert read_now(reader) is None
            assert outlet.written == expected
            orders.add(b"".join(piece[:1] for piece in read.splitlines(keepends=True)))
            assert read.replace(line, b"", 1).replace(b"third\n", b"", 1) in (of_handlers, b""), read
    assert moments > 3
    assert orders <= {b"aot", b"oat", b"at"}
    assert orders & {b"aot", b"oat"}


def test_many_that_wait_behind_half_a_line_leave_in_time_and_in_order() -> None:
    with outlet_to(small_buffers()) as (outlet, reader):
        outlet.write_now(b"a" * 18_000)
        assert outlet.unsent
        assert isinstance(outlet._pending, deque)  # of whose begin one can be taken without moving all the others
        outlet.write(b"b" * 18_000)
        assert read_all(reader, 36_000) == b"a" * 18_000 + b"b" * 18_000


def test_what_a_ctrl_c_took_the_place_of_is_mended() -> None:
    with outlet_to(packets()) as (outlet, reader):
        outlet.write(b"first")
        outlet._callback.stop()
        outlet.mend()
        gevent.sleep(0)
        assert read_now(reader) == b"first"
        outlet.mend()  # of no effect now
        gevent.sleep(0)
        assert read_now(reader) is None


def test_a_signal_handler_may_write_while_what_waits_is_gathered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The interpreter runs one between any two calls."""
    complaints: list[object] = []
    monkeypatch.setattr(Hub, "handle_error", lambda *told: complaints.append(told))
    with outlet_to(packets()) as (outlet, reader):

        def interrupted(pieces: deque[bytes], most: int) -> Iterator[bytes]:
            monkeypatch.setattr(outlet_module, "islice", islice)
            gathered = islice(pieces, most)
            outlet.write(b"c")
            return gathered

        monkeypatch.setattr(outlet_module, "islice", interrupted)
        outlet.write(b"a", b"b")
        wait_until(lambda: not outlet.unsent)
        assert read_now(reader) == b"abc"
    assert not complaints
