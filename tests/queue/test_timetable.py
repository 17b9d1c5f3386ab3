"""What runs by itself: once at each tick, whichever servers share the file, and whoever sets the clock."""

import random
from itertools import pairwise
from pathlib import Path

from greentask.queue.interface import Repeat
from greentask.queue.pausing import pause, resume
from greentask.queue.sqlite import SQLiteQueue
from greentask.queue.store import Store
from greentask.tasks.schedules import make_schedule
from support.queues import FakeClock, Taker, message, open_store, transact
from support.waiting import wait_until

HOUR = 3600.0
WITHIN = 10.0


def repeat(every: str | float, *, catch_up: bool = True, task: str = "add") -> Repeat:
    schedule = make_schedule(task, every, "Europe/Paris" if isinstance(every, str) else None)
    assert schedule is not None
    return Repeat(message(task, "{}"), schedule, catch_up)


def open_server(path: Path, clock: FakeClock, *repeats: Repeat, boot: str = "this one") -> Store:
    store = open_store(path, clock.as_clock(boot))
    store.ticks.set(repeats)
    look(store)
    return store


def look(store: Store) -> None:
    """As a server's thread does, once a second."""
    store.ticks.look()
    if store.ticks.is_due():
        transact(store, store.ticks.turn)


def enqueued(store: Store) -> int:
    count: int = store.db.execute("SELECT count(*) FROM task").fetchone()[0]
    return count


def test_each_tick_comes_once_however_many_servers_there_are(path: Path, clock: FakeClock) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    clock.wall = 1_800_000_000.0 - 1_800_000_000.0 % HOUR + 1
    servers = [open_server(path, clock, repeat("*/5 * * * *")) for _ in range(4)]
    for _ in range(3600 * 6 // 30):
        clock.pass_by(30)
        for server in chance.sample(servers, chance.randint(1, 4)):
            look(server)
    for server in servers:
        look(server)
    assert enqueued(servers[0]) == 6 * 12


def test_an_interval_goes_on_whoever_sets_the_clock(path: Path, clock: FakeClock) -> None:
    store = open_server(path, clock, repeat(30))
    for jump in (5, -10, 300, -2000, 0, 0):
        clock.set_by(jump * HOUR)
        for _ in range(60):
            clock.pass_by(1)
            look(store)
    assert enqueued(store) == 12


def test_what_was_missed_while_nobody_was_there_comes_once(path: Path, clock: FakeClock) -> None:
    store = open_server(path, clock, repeat("0 * * * *"), repeat("0 * * * *", catch_up=False, task="other"))
    store.db.close()
    clock.wall, clock.steady = clock.wall + 10.3 * HOUR, 5.0
    store = open_server(
        path, clock, repeat("0 * * * *"), repeat("0 * * * *", catch_up=False, task="other"), boot="the next one"
    )
    assert (enqueued(store), store.lane("add")) == (1, store.db.execute("SELECT lane FROM task").fetchone()[0])


def test_a_new_schedule_takes_the_place_of_an_old_one_and_not_the_other_way_round(path: Path, clock: FakeClock) -> None:
    old = open_server(path, clock, repeat(1000))
    new = open_server(path, clock, repeat(100))
    for _ in range(100):
        clock.pass_by(10)
        look(old)
        look(new)
    assert enqueued(old) == 10
    assert old.ticks.moment() is None, "it has nothing to wait for"


def test_ticks_of_a_paused_task_come_to_one(path: Path, clock: FakeClock) -> None:
    late = repeat(30, catch_up=False, task="other")
    servers = [open_server(path, clock, repeat(30), late) for _ in range(2)]
    store = servers[0]

    def pass_by(ticks: int) -> list[str]:
        """What waits then."""
        for _ in range(ticks):
            clock.pass_by(30)
            for server in servers:
                look(server)
        return [store.name(lane) for (lane,) in store.db.execute("SELECT lane FROM ready")]

    transact(store, lambda: pause(store.db, None))
    assert pass_by(10) == ["add"], "what is not caught up with is left out"
    transact(store, lambda: (resume(store.db, None), pause(store.db, "add")))
    assert sorted(pass_by(2)) == ["add", "other", "other"], "others don't matter"
    transact(store, lambda: store.enqueue([message("add", "[5]")]))
    assert pass_by(10).count("add") == 3, "those that somebody enqueues are not theirs"
    transact(store, lambda: resume(store.db, "add"))
    assert pass_by(3).count("add") == 6


def test_a_transaction_that_was_not_to_be_is_done_again(path: Path, clock: FakeClock) -> None:
    store = open_server(path, clock, repeat(30))
    clock.pass_by(31)
    store.begin()
    store.ticks.turn()
    store.rollback()
    assert store.ticks.is_due(), "and not when it looks at what others have written"
    look(store)
    assert enqueued(store) == 1


def test_servers_wake_for_a_tick(path: Path) -> None:
    queues = [SQLiteQueue(path) for _ in range(3)]
    takers = []
    for queue in queues:
        queue.open()
        takers.append(Taker(queue))
        takers[-1].want(10)
        queue.repeat([repeat(1)])
    try:
        wait_until(lambda: sum(len(taker.got) for taker in takers) >= 3, WITHIN)
        found = [queues[0].find(one.id).result(WITHIN) for taker in takers for one in taker.got]
        moments = sorted(one.enqueued or 0.0 for one in found if one is not None)
        assert all(later - one > 0.5 for one, later in pairwise(moments)), moments
    finally:
        for queue in queues:
            queue.close()


def test_a_server_that_goes_enqueues_nothing_more(path: Path, clock: FakeClock) -> None:
    queue = SQLiteQueue(path, clock=clock.as_clock())
    queue.open()
    try:
        queue.repeat([repeat(30)])
        queue.count().result(WITHIN)
        queue.repeat([])
        clock.pass_by(100)
        wait_until(lambda: queue.count().result(WITHIN))
        queue.enqueue([message("other")]).result(WITHIN)
        assert queue.count().result(WITHIN)["waiting"] == 1
    finally:
        queue.close()
