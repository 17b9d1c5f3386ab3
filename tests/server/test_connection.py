"""A connection by itself, as time passes for it: who reads, be it slowly, is told from who doesn't."""

import gc
import socket
from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent import socket as green

from greentask import Limits
from greentask.server import connection as connection_module
from greentask.server.connection import LineConnection
from greentask.server.silence import on_its_way
from support.waiting import wait_until

MOST = 16_000_000  # bytes that the peer may have unread: much more than the kernel takes of it
LIMITS = Limits(max_unsent=MOST, read_timeout=5)


@pytest.fixture
def pair() -> Iterator[tuple[Any, Any]]:
    """Ours, and the peer's, which takes little at once."""
    with green.socket() as listener, green.socket() as peer:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        peer.connect(listener.getsockname())
        ours, _ = listener.accept()
        with ours:
            yield ours, peer


def read(peer: Any, size: int) -> None:
    """Have the peer read so many bytes."""
    while size:
        size -= len(peer.recv(size))


def write(connection: LineConnection, size: int) -> None:
    """Send so many bytes, and let the kernel take of them what it takes."""
    connection.send(bytes(size))
    gevent.sleep(0.01)
    assert connection.unsent < size


def wait_for_a_peer_that_reads(connection: LineConnection, ours: Any, peer: Any, size: int) -> None:
    """Until what it has read is seen on our side, where more may be written meanwhile."""
    before = connection.bytes_written - on_its_way(ours)
    read(peer, size)
    wait_until(lambda: connection.bytes_written - on_its_way(ours) > before)


@pytest.mark.parametrize("size", [MOST // 2, 3 * MOST // 2])
def test_who_reads_less_than_the_kernel_writes_at_once_is_not_cut_off(pair: tuple[Any, Any], size: int) -> None:
    ours, peer = pair
    connection, begun = LineConnection(ours, None, LIMITS), []
    connection.is_patient = True
    write(connection, size)
    connection.hold(lambda: begun.append(1))
    connection.grow_older(1)
    written = connection.bytes_written
    for _ in range(7):  # longer than read_timeout
        wait_for_a_peer_that_reads(connection, ours, peer, 80_000)
        connection.grow_older(1)
    assert connection.bytes_written == written, "the kernel has taken nothing more in all that time"
    assert not connection.gone
    for _ in range(5):
        assert not connection.gone
        connection.grow_older(1)
    assert connection.gone
    assert "(read_timeout)" in str(connection.error)
    wait_until(lambda: begun)


def test_what_waits_begins_as_soon_as_others_would(pair: tuple[Any, Any]) -> None:
    """Or whoever sends a call for each answer has those begin, and none of them, for ever."""
    ours, peer = pair
    connection, begun = LineConnection(ours, None, LIMITS), []
    write(connection, MOST // 2)
    connection.hold(lambda: begun.append(connection.unsent))
    while connection.is_behind:
        read(peer, 100_000)
        gevent.sleep(0)
    assert MOST // 8 < connection.unsent < MOST // 4
    wait_until(lambda: begun)


def test_a_connection_with_calls_that_wait_is_gone_when_it_is_closed(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    gc.collect()
    gc.disable()
    try:
        before = alive()
        connection, begun = LineConnection(ours, None, LIMITS), []
        write(connection, MOST // 2)
        connection.hold(lambda: begun.append(1))
        gevent.sleep(0)
        connection.close()
        wait_until(lambda: begun)
        del connection
        wait_until(lambda: alive() == before)
    finally:
        gc.enable()


def alive() -> int:
    return sum(type(one) is LineConnection for one in gc.get_objects())


class Busy:
    """An owner with a call in flight."""

    held = 0
    is_full = False

    def is_busy(self) -> bool:
        return True

    def went_idle(self) -> None:
        raise AssertionError("it is not idle")


def test_who_does_not_read_is_stuck_though_calls_are_in_flight(pair: tuple[Any, Any]) -> None:
    ours, _ = pair
    connection = LineConnection(ours, None, LIMITS)
    connection.owner = Busy()
    write(connection, MOST // 2)
    connection.hold(lambda: None)
    for _ in range(3):
        connection.grow_older(1)
    assert connection.stuck >= 2


def test_the_last_answers_take_their_time_where_the_peer_reads(
    pair: tuple[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection_module, "_FLUSHED_WITHIN", 0.3)
    ours, peer = pair
    connection = LineConnection(ours, None, Limits())
    connection.send(bytes(MOST))
    peer.shutdown(socket.SHUT_WR)
    assert connection.read() is None
    finishing = gevent.spawn(connection.finish)
    for _ in range(9):
        read(peer, 100_000)
        gevent.sleep(0.1)
    assert not finishing.dead, "three times as long"
    finishing.join(3)
    assert finishing.dead, "it reads no more"
    connection.close()
