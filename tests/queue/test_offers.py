"""What waits for a server that nobody has started."""

import logging
from pathlib import Path

import pytest

from greentask.queue import managing
from greentask.queue.byhand import QueueFile
from greentask.queue.offers import Unoffered, not_offered
from greentask.queue.store import Store
from support.durable_tasks import marks
from support.programs import greentask
from support.queue_calls import enqueue
from support.queues import FakeClock, HolderServer, message, open_store, transact
from support.servers import serving, wait_until


def offer(server: HolderServer, *tasks: str) -> None:
    server.holders.offer(frozenset(tasks))
    assert server.holders.has_news
    server.do(server.holders.tell)
    assert not server.holders.has_news


def put(store: Store, *names: str) -> None:
    transact(store, lambda: store.enqueue([message(name) for name in names]))


def test_a_name_is_offered_while_a_server_lives_that_has_it(path: Path, clock: FakeClock) -> None:
    one, other = HolderServer(path, clock), HolderServer(path, clock)
    offer(one, "add", "both")
    offer(other, "both", "mul")
    put(one.store, "add", "both", "both", "mul", "old")
    assert not_offered(one.store.db) == ["old"]
    offer(other, "both", "old")
    assert not_offered(one.store.db) == ["mul"]
    one.do(one.holders.leave)
    assert not_offered(one.store.db) == ["add", "mul"]
    other.die()
    assert not_offered(one.store.db) == ["add", "mul"], "nobody has looked"
    assert managing.stats(one.store, one.beside.is_held)["not_offered"] == ["add", "both", "mul", "old"]
    one.do(one.holders.me)
    one.look()
    assert not_offered(one.store.db) == ["add", "both", "mul", "old"]
    one.die()


def test_what_is_offered_is_written_again_where_that_failed_or_the_server_was_given_up(
    path: Path, clock: FakeClock
) -> None:
    one, other = HolderServer(path, clock), HolderServer(path, clock)
    put(one.store, "add")
    one.holders.offer(frozenset({"add"}))
    one.store.begin()
    one.holders.tell()
    one.holders.rolled_back()
    one.store.rollback()
    assert one.holders.has_news
    one.do(one.holders.tell)
    assert not_offered(one.store.db) == []
    (mine,) = one.store.db.execute("SELECT id FROM holder WHERE id = ?", (one.holders.mine,)).fetchone()
    other.do(lambda: other.holders.take_back(mine, None))
    assert not_offered(one.store.db) == ["add"]
    one.store.begin()
    assert not one.holders.beat(), "others have given it up"
    one.holders.me()
    one.store.commit()
    assert one.holders.has_news
    one.do(one.holders.tell)
    assert not_offered(one.store.db) == []
    for server in (one, other):
        server.die()


def test_it_is_told_once_and_by_one(path: Path, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    servers = [HolderServer(path, clock) for _ in range(2)]
    watchers = [(server.holders.mine or 0, Unoffered(server.store.db)) for server in servers]
    offer(servers[0], "add")
    put(servers[0].store, "add", "a name", "other")

    def pass_by(seconds: float) -> list[str]:
        caplog.clear()
        for _ in range(int(seconds)):
            clock.pass_by(1)
            for mine, watcher in watchers:
                watcher.look(clock.steady, mine)
        assert {record.levelno for record in caplog.records} <= {logging.WARNING}
        return [record.getMessage() for record in caplog.records]

    assert pass_by(1) == [], "a server that has it may just be starting"
    offer(servers[1], "other")
    (told,) = pass_by(10)
    assert "'a name' wait in the queue" in told
    assert "greentask queue revoke --task 'a name'" in told
    assert pass_by(60) == []
    for server in servers:
        server.die()


def test_who_looks_costs_little_however_many_wait(path: Path, clock: FakeClock) -> None:
    store = open_store(path, clock.as_clock())
    put(store, *(f"name {number % 10}" for number in range(20_000)))
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1

    store.db.set_progress_handler(count, 100)
    assert len(not_offered(store.db)) == 10
    assert steps < 20, "it doesn't look at each"


@pytest.mark.slow
def test_who_asks_or_reads_the_log_learns_which_names_wait_for_nobody(tmp_path: Path) -> None:
    queue, file = str(tmp_path / "tasks.db"), tmp_path / "marks"
    with QueueFile(queue, make=True) as byhand:
        byhand.enqueue(message("misspelt"))
    with (
        serving("--queue", queue, "--fronts", "2", apps=("support.durable_tasks",)) as server,
        server.connect() as peer,
    ):
        enqueue(peer, "note", str(file), 1)
        wait_until(lambda: marks(file) == ["1"])
        for where in (("--queue", queue), ("--server", server.address)):
            shown = greentask("queue", "stats", *where).stdout
            assert "no server has" in shown
            assert "misspelt" in shown
        assert peer.call("greentask.queue")["not_offered"] == ["misspelt"]
        wait_until(lambda: "'misspelt' wait in the queue, and no server of it offers" in server.output())
    shown = greentask("queue", "stats", "--queue", queue).stdout
    assert "no server has" not in shown
    assert [line.split() for line in shown.splitlines() if line.startswith("servers")] == [["servers", "none"]]
