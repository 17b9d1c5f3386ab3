"""The file by which servers know of each other: removed while they have it."""

import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from greentask.queue.beside import Beside
from greentask.queue.holders import TICK
from greentask.queue.sqlite import SQLiteQueue
from support.queues import FakeClock, HolderServer, Taker, message
from support.waiting import wait_until


@pytest.fixture
def servers(path: Path, clock: FakeClock) -> Iterator[list[HolderServer]]:
    """Two that have a task each."""
    servers = [HolderServer(path, clock) for _ in range(2)]
    for server in servers:
        server.do(lambda server=server: server.store.enqueue([message()]))  # type: ignore[misc]
        assert len(server.take()) == 1
    yield servers
    for server in servers:
        server.die()


def remove(path: Path) -> None:
    os.unlink(f"{path}-servers")


def test_who_is_alive_is_known_whichever_sees_first_that_the_file_was_removed(
    servers: list[HolderServer], path: Path, clock: FakeClock
) -> None:
    one, other = servers
    for _ in range(5):  # more files than are kept
        remove(path)
        one.holders.renew()
        assert [one.look(), other.look()] == [0, 0]
        other.holders.renew()
        clock.pass_by(TICK)
        for server in servers:
            server.do(server.holders.beat)
        assert [one.look(), other.look()] == [0, 0]
    for _ in range(4):
        clock.pass_by(TICK)
        one.do(one.holders.beat)
        one.look()
    other.die()
    assert one.look() == 1, "and who dies is known, too"


def test_who_comes_while_it_is_not_there_takes_nothing_from_those_who_are(
    servers: list[HolderServer], path: Path, clock: FakeClock
) -> None:
    one, other = servers
    remove(path)
    new = HolderServer(path, clock)
    assert new.look() == 0, "it can't know"
    one.holders.renew()
    newer = HolderServer(path, clock)
    assert newer.look() == 0, "nor can one that finds a file again, in which not all are"
    other.die()
    taken = 0
    for _ in range(4):
        clock.pass_by(TICK)
        for server in (one, new, newer):
            server.do(server.holders.beat)
        taken += new.look() + newer.look()
    assert taken == 1, "when all have had time, who is not there is gone"
    new.die()
    newer.die()


def test_what_was_left_behind_by_the_dead_is_taken_up_where_the_file_is_gone(path: Path, clock: FakeClock) -> None:
    dead = HolderServer(path, clock)
    dead.do(lambda: dead.store.enqueue([message()]))
    dead.take()
    dead.die()
    remove(path)
    new = HolderServer(path, clock)
    assert new.look() == 0
    clock.pass_by(3 * TICK)
    assert new.look() == 1
    new.die()


def test_servers_go_on_knowing_each_other(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    one, other = SQLiteQueue(path), SQLiteQueue(path)
    one.open()
    other.open()
    try:
        remove(path)
        wait_until(lambda: caplog.text.count("it is made anew") == 2, 10.0, "both have seen it")
        assert {record.levelno for record in caplog.records} == {logging.WARNING}
        taker = Taker(other)
        taker.want(2)
        one.enqueue([message()]).result(10)
        taker.wait_for(1)
        assert one.counters()["taken_back"] == other.counters()["taken_back"] == 0
    finally:
        one.close()
        other.close()


def test_the_file_may_have_been_there(path: Path) -> None:
    path.touch()
    beside = Beside(str(path))
    again = Beside(str(path))
    assert (beside.is_new, again.is_new) == (True, False)
    remove(path)
    assert not beside.is_there()
    assert (beside.renew(), again.renew()) == (True, False)
    assert beside.is_there()
    again.hear_knocks()
    beside.knock()
    assert again.hear_knocks()
    beside.close()
    again.close()
