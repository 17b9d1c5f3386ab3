"""Who is alive, and how tasks come back from those who are not (D5 and D6 of the faults, step by step)."""

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from greentask.queue import looking, managing
from greentask.queue.beside import Beside
from greentask.queue.holders import TICK, Holders, pause_after_loss
from greentask.queue.interface import Delivery, Ending
from greentask.queue.limits import DEFAULT_MAX_LOST_FRONTS
from greentask.queue.store import Store
from support.queues import LEASE, FakeClock, message, open_store, transact
from support.queues import HolderServer as Server


@pytest.fixture
def servers(path: Path, clock: FakeClock) -> Iterator[tuple[Server, Server]]:
    one, other = Server(path, clock), Server(path, clock)
    one.do(lambda: one.store.enqueue([message(), message()]))
    yield one, other
    for server in (one, other):
        server.die()


def test_what_a_dead_server_had_comes_back_at_once(servers: tuple[Server, Server]) -> None:
    one, other = servers
    assert len(one.take()) == 2
    assert other.look() == 0
    one.die()
    assert other.look() == 2
    assert other.look() == 0
    assert [delivery.attempt for delivery in other.take()] == [2, 2]


def test_a_silent_server_loses_what_it_had(servers: tuple[Server, Server], clock: FakeClock) -> None:
    one, other = servers
    mine = one.take()
    other.look()
    for _ in range(int(LEASE) - 1):
        clock.pass_by(TICK)
        assert other.look() == 0
    clock.pass_by(TICK)
    assert other.look() == 2
    theirs = other.take()
    assert not one.settle(mine[0]), "it wakes, and is late"
    assert other.settle(theirs[0])
    one.store.begin()
    assert not one.holders.beat(), "so it knows"
    one.store.commit()
    one.do(lambda: one.store.enqueue([message()]))
    assert len(one.take()) == 1, "and begins anew"
    assert other.look() == 0


def test_a_server_that_beats_keeps_what_it_has(servers: tuple[Server, Server], clock: FakeClock) -> None:
    one, other = servers
    one.take()
    for _ in range(20):
        clock.pass_by(TICK)
        assert one.holders.is_due()
        one.do(one.holders.beat)
        assert other.look() == 0


def test_a_server_with_nothing_to_do_may_be_silent(servers: tuple[Server, Server], clock: FakeClock) -> None:
    one, other = servers
    for _ in range(20):
        clock.pass_by(TICK)
        assert other.look() == 0
    assert len(one.take()) == 2
    clock.pass_by(TICK)
    assert other.look() == 0


def test_nobody_was_silent_where_everybody_was_stopped(servers: tuple[Server, Server], clock: FakeClock) -> None:
    one, other = servers
    one.take()
    other.look()
    clock.pass_by(3600)
    assert other.look() == 0
    one.do(one.holders.beat)
    clock.pass_by(3600)
    assert other.look() == 0


def test_nobody_was_silent_where_all_waited_for_one_who_was_stopped(path: Path, clock: FakeClock) -> None:
    """He holds the lock; the others come to write after him, one before the other."""
    one, other = Server(path, clock, 2 * TICK), Server(path, clock, 2 * TICK)
    one.do(lambda: one.store.enqueue([message()]))
    one.take()
    other.look()
    clock.pass_by(TICK)
    assert other.look() == 0
    clock.pass_by(20.0)
    assert other.look() == 0
    clock.pass_by(TICK)
    one.do(one.holders.beat)
    assert other.look() == 0
    one.die()
    other.die()


def test_nobody_is_silent_while_nobody_can_write(servers: tuple[Server, Server], clock: FakeClock) -> None:
    one, other = servers
    one.take()
    other.look()
    for _ in range(int(LEASE) - 1):
        clock.pass_by(TICK)
        assert other.look() == 0
    for _ in range(20):  # the disk is full
        clock.pass_by(TICK)
        assert other.look(is_stuck=True) == 0
    clock.pass_by(TICK)
    assert other.look() == 0, "now there is room, and it may be heard"
    one.do(one.holders.beat)
    clock.pass_by(TICK)
    assert other.look() == 0
    one.die()
    assert other.look(is_stuck=True) == 2, "who is dead is dead"


def test_the_wall_clock_does_not_matter(servers: tuple[Server, Server], clock: FakeClock) -> None:
    one, other = servers
    one.take()
    for hours in (5, -10, 100):
        clock.set_by(hours * 3600.0)
        clock.pass_by(TICK)
        one.do(one.holders.beat)
        assert other.look() == 0


def test_who_leaves_in_good_order_leaves_it_to_others(servers: tuple[Server, Server]) -> None:
    one, other = servers
    one.take()
    one.do(one.holders.leave)
    assert [delivery.attempt for delivery in other.take()] == [1, 1]


def test_what_was_there_when_many_servers_died_is_a_dead_letter(
    path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    watcher = Server(path, clock)
    watcher.do(lambda: watcher.store.enqueue([message()]))
    for died in range(DEFAULT_MAX_LOST_FRONTS):
        poisoned = Server(path, clock)
        (delivery,) = poisoned.take()
        assert delivery.attempt == died + 1
        poisoned.die()
        assert watcher.look() == 1
        clock.pass_by(100)
    assert watcher.take() == []
    (letter,) = looking.dead(watcher.store, 10)
    for number, (attempt, _, error) in enumerate(letter["errors"], 1):
        told = json.loads(error)
        assert (attempt, told["type"]) == (number, "WorkerLost")
        assert told["message"].startswith(f"its server (pid {os.getpid()}) died while it ran it, or had it")
    assert told["message"].endswith(", and it was the last of 10 (max_lost_fronts)")
    assert caplog.messages == [f"task add {letter['task']} has lost 10 servers: a dead letter"]
    watcher.die()


def test_processes_that_died_are_no_servers_and_the_other_way_round(path: Path, clock: FakeClock) -> None:
    watcher = Server(path, clock)
    watcher.do(lambda: watcher.store.enqueue([message()]))

    def attempt(server: Server, how: str) -> Delivery:
        (delivery,) = server.take()
        ending = Ending(how, b'{"type":"WorkerLost","message":""}')  # type: ignore[arg-type]
        assert transact(server.store, lambda: server.store.settle([(delivery, ending)])) == [True]
        return delivery

    for died in range(DEFAULT_MAX_LOST_FRONTS):
        assert looking.dead(watcher.store, 10) == [], f"{died} servers have died, though there were more losses"
        poisoned = Server(path, clock)
        if died < 4:
            assert attempt(poisoned, "lost").lost_processes == died
            assert attempt(poisoned, "retry").lost_processes == died + 1
        (delivery,) = poisoned.take()
        assert delivery[3:5] == (min(died + 1, 4), died + min(died + 1, 4)), "failures, and losses of both kinds"
        assert delivery.lost_processes == min(died + 1, 4)
        poisoned.die()
        assert watcher.look() == 1
        clock.pass_by(100)
    (letter,) = looking.dead(watcher.store, 10)
    assert b"it was the last of 10" in letter["errors"][-1][2]
    watcher.die()


def errors(store: Store, id: str) -> list[tuple[int, str]]:
    found = managing.show(store, id)
    assert found is not None
    assert {error["type"] for error in found["errors"]} <= {"WorkerLost"}
    return [(error["attempt"], error["message"]) for error in found["errors"]]


def test_an_attempt_that_was_lost_with_its_server_is_told_with_the_others(path: Path, clock: FakeClock) -> None:
    watcher = Server(path, clock)
    watcher.do(lambda: watcher.store.enqueue([message()]))
    killed = Server(path, clock)
    (delivery,) = killed.take()
    killed.die()
    watcher.look()
    silent = Server(path, clock)
    assert len(silent.take()) == 1
    for _ in range(int(LEASE) + 1):
        watcher.look()
        clock.pass_by(TICK)
    assert errors(watcher.store, delivery.id) == [
        (1, f"its server (pid {os.getpid()}) died while it ran it, or had it"),
        (2, f"its server (pid {os.getpid()}) was silent for too long while it ran it, or had it"),
    ]
    found = looking.find(watcher.store, delivery.id)
    assert found is not None
    assert found.attempts == 2
    for server in (silent, watcher):
        server.die()


def test_what_was_lost_with_the_machine_says_so(path: Path, clock: FakeClock) -> None:
    before = Server(path, clock)
    before.do(lambda: before.store.enqueue([message()]))
    (delivery,) = before.take()
    before.die()
    store = open_store(path, clock.as_clock("another start"))
    holders = Holders(store, beside := Beside(str(path)), LEASE, lambda: clock.steady)
    transact(store, lambda: [holders.take_back(*one) for one in holders.overdue()])
    ((_, told),) = errors(store, delivery.id)
    assert told == f"its server (pid {os.getpid()}, before the machine's last start) died while it ran it, or had it"
    beside.close()


def test_how_many_servers_may_die_can_be_said(path: Path, clock: FakeClock) -> None:
    watcher = Server(path, clock)
    watcher.holders = Holders(watcher.store, watcher.beside, LEASE, lambda: clock.steady, max_lost_fronts=1)
    watcher.do(lambda: watcher.store.enqueue([message()]))
    poisoned = Server(path, clock)
    poisoned.take()
    poisoned.die()
    watcher.look()
    assert len(looking.dead(watcher.store, 10)) == 1
    watcher.die()


def test_the_first_losses_cost_no_time() -> None:
    assert pause_after_loss(1) == pause_after_loss(2) == 0
    assert 0 < pause_after_loss(3) < pause_after_loss(6) < pause_after_loss(12) <= 45


def test_writers_take_turns(path: Path) -> None:
    one, other = Beside(str(path)), Beside(str(path))
    with one.turn():
        assert other.is_held(0)
    assert not other.is_held(0)
    other.knock()
    assert one.hear_knocks()
    assert not one.hear_knocks()
    one.close()
    other.close()
