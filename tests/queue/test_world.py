"""Servers of one file that come, die, are silent and leave, people who revoke and purge, and a clock that is set.

Whatever happens in whatever order, each task is in one place, ends, and is forgotten, and nothing is left of it.
"""

import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greentask.errors import QueueError
from greentask.queue import looking, pausing
from greentask.queue.clock import Clock
from greentask.queue.expiring import expire
from greentask.queue.ids import id_text
from greentask.queue.interface import Delivery, Ending, Fan, Limit, Message, Step, Want
from greentask.queue.store import Store
from greentask.tasks.rates import Rate
from support.queues import FakeClock, HolderServer, message, transact

LIMITS = {"rated": Limit(Rate(3, 10.0)), "limited": Limit(None, 2)}
WANTS = [
    Want(frozenset({"add", "single"}), 3),
    Want(frozenset({"rated"}), 2),
    Want(frozenset({"limited"}), 2),
]
ERROR = b'{"type":"ValueError","message":"no"}'
MOST_SERVERS = 3


class Server(HolderServer):
    """One that keeps what it was handed, as long as it may."""

    def __init__(self, path: Path, clock: FakeClock) -> None:
        super().__init__(path, clock, result_ttl=30.0, key_ttl=5.0, dead_limit=6)
        self.store.allowances.limits = LIMITS
        self.held: list[Delivery] = []
        self.is_stopped = False

    def take_some(self) -> list[Delivery]:
        taken = transact(self.store, lambda: (self.store.ripen() and []) or self.store.take(WANTS, self.holders.me()))
        self.holders.committed()
        return taken

    def beat(self) -> None:
        if not transact(self.store, self.holders.beat):
            self.held.clear()
        self.holders.committed()


class World:
    """All of it. What a server that was stopped had, others may run: it may hear of that late."""

    def __init__(self, path: Path, chance: random.Random) -> None:
        self.path, self.chance, self.clock = path, chance, FakeClock()
        self.servers = [Server(path, self.clock)]
        self.boots = 0
        self.done: set[str] = set()
        self.ids: set[int] = set()  # of those that are known
        self.newest = 0

    def step(self) -> None:
        """Anything happens, to any server."""
        awake = [server for server in self.servers if not server.is_stopped]
        if not awake:
            awake = [Server(self.path, self.clock)]
            self.servers += awake
        what = self.chance.choice(_HAPPENINGS)
        what(self, self.chance.choice(awake))
        self.check()

    def any_id(self, store: Store) -> str:
        ids = [id for (id,) in store.db.execute("SELECT id FROM task ORDER BY id")]
        if not ids:
            return ""
        return id_text(ids[-1] if self.chance.random() < 0.3 else self.chance.choice(ids))

    # ---- What may happen

    def enqueue(self, server: Server) -> None:
        pick = self.chance.choice
        messages = []
        for _ in range(self.chance.randint(1, 4)):
            name, when = (
                pick(("add", "single", "rated", "limited")),
                pick(({}, {}, {"delay": 3}, {"at": self.clock.wall + 4})),
            )
            messages.append(
                message(
                    name,
                    priority=pick((0, 0, 5)),
                    ttl=pick((None, None, 2.0)),
                    key=pick((None, None, "a", "b")),
                    key_ttl=pick((None, 0.0, 20.0)),
                    singleton=pick("xy") if name == "single" else None,
                    **when,
                )
            )
        takes = pick((True, False))

        def work() -> None:
            server.store.enqueue(messages, before_take=takes)
            if takes:
                server.held += server.store.take(WANTS, server.holders.me())

        server.do(work)

    def _a_step(self) -> Step:
        pick = self.chance.choice
        follows = message(pick(("add", "limited")), "[null]", delay=pick((0, 0, 2)), ttl=pick((None, None, 3.0)))
        return Step(follows, takes=pick((True, True, False)), errors=pick((True, False)))

    def compose(self, server: Server) -> None:
        pick, composer = self.chance.choice, server.store.composer
        first = Step(message("add", key=pick((None, "chain")), key_ttl=pick((None, 20.0))), takes=False)
        rest = [self._a_step() for _ in range(self.chance.randint(1, 3))]
        fan = Fan([[self._a_step()], [self._a_step(), self._a_step()]])
        members: list[Message] = [message("add") for _ in range(self.chance.randint(0, 4))]
        kinds: list[Callable[[], object]] = [
            lambda: composer.compose([first, *rest]),
            lambda: composer.compose([first, fan, *rest]),
            lambda: composer.compose(rest[:1], self.any_id(server.store)),
            lambda: composer.enqueue_group(members, rest, None, is_open=False),
        ]
        try:
            transact(server.store, pick(kinds))
        except QueueError:  # there is no task to follow
            server.store.rollback()

    def take(self, server: Server) -> None:
        server.held += server.take_some()

    def settle(self, server: Server) -> None:
        if not server.held:
            return
        ended = []
        for delivery in self.chance.sample(server.held, self.chance.randint(1, len(server.held))):
            server.held.remove(delivery)
            how = self.chance.choice(("done", "done", "failed", "retry", "lost", "released"))
            body, delay = b"1" if how == "done" else ERROR, self.chance.choice((0.0, 0.0, 2.0))
            ended.append((delivery, Ending(how, body, delay)))  # type: ignore[arg-type]
        counted = transact(server.store, lambda: server.store.settle(ended))
        for (delivery, ending), counts in zip(ended, counted):
            if counts and ending.how == "done":
                assert delivery.id not in self.done, "it ended once"
                self.done.add(delivery.id)

    def pass_by(self, _server: Server) -> None:
        self.clock.pass_by(self.chance.choice((0.5, 1.0, 1.0, 4.0, 12.0)))

    def set_clock(self, _server: Server) -> None:
        self.clock.set_by(self.chance.choice((-3600, 3600, -5, 5)))

    def look(self, _server: Server) -> None:
        for server in self.servers:
            if not server.is_stopped:
                self.clock.pass_by(self.chance.choice((0.2, 1.0)))
                server.beat()
                server.look()

    def die(self, server: Server) -> None:
        server.die()
        self.servers.remove(server)

    def leave(self, server: Server) -> None:
        transact(server.store, server.holders.leave)
        self.die(server)

    def stop(self, server: Server) -> None:
        server.is_stopped = True

    def wake(self, _server: Server) -> None:
        for server in self.servers:
            if server.is_stopped and self.chance.random() < 0.5:
                server.is_stopped = False
                late = list(server.held)
                server.beat()
                server.held = late  # it ends what it ran, whoever has it now

    def start(self, _server: Server) -> None:
        if len(self.servers) < MOST_SERVERS:
            self.servers.append(Server(self.path, self.clock))

    def reboot(self, _server: Server) -> None:
        for server in self.servers:
            server.die()
        self.boots += 1
        boot = f"boot {self.boots}"
        self.clock.steady, self.clock.wall = (
            self.chance.random() * 100,
            self.clock.wall + self.chance.choice((5, -7200)),
        )
        self.clock.as_clock = lambda: Clock(  # type: ignore[method-assign, assignment, misc]
            lambda: self.clock.wall, lambda: self.clock.steady, boot
        )
        self.servers = [Server(self.path, self.clock)]

    def change(self, server: Server) -> None:
        store, task = server.store, self.any_id(server.store)
        running, what = self.chance.random() < 0.5, self.chance.choice(("revoke", "retry", "purge"))
        if what == "revoke":
            transact(store, lambda: looking.revoke(store, task, running=running))
        else:
            transact(store, lambda: getattr(looking, what)(store, task))

    def pause(self, server: Server) -> None:
        name, change = self.chance.choice((None, "add")), self.chance.choice((pausing.pause, pausing.resume))
        transact(server.store, lambda: change(server.store.db, name))

    def tidy(self, server: Server) -> None:
        server.store.cleaner.look()
        transact(server.store, server.store.cleaner.step)
        transact(server.store, lambda: expire(server.store))

    # ---- What has to hold

    def check(self) -> None:
        if not self.servers:
            return
        db = self.servers[0].store.db
        places = Counter(
            id
            for (id,) in db.execute(
                "SELECT id FROM ready UNION ALL SELECT id FROM later UNION ALL SELECT id FROM running"
            )
        )
        waiting = "SELECT b.id FROM blocked b JOIN task t ON t.id = b.id AND t.state = 0"
        places.update(id for (id,) in db.execute(f"{waiting} WHERE b.missing > 0 OR b.is_group"))
        open_ = {id for (id,) in db.execute("SELECT id FROM task WHERE state = 0")}
        assert places == Counter(dict.fromkeys(open_, 1)), "each that has not ended is in one place, and nothing else"
        for what in (
            "single FROM task WHERE state = 0 AND single IS NOT NULL",
            "key FROM task WHERE key IS NOT NULL",
        ):
            found = Counter(db.execute(f"SELECT lane, {what}").fetchall())
            assert all(count == 1 for count in found.values()), f"one of each {what}"
        (running,) = db.execute(
            "SELECT count(*) FROM running WHERE lane = (SELECT id FROM lane WHERE name = 'limited')"
        ).fetchone()
        assert running <= 2
        before, self.ids = self.ids, {id for (id,) in db.execute("SELECT id FROM task")}
        assert all(id > self.newest for id in self.ids - before), "no id is given twice"
        self.newest = max(self.newest, *self.ids, 0)

    def come_to_an_end(self) -> None:
        """One server is left, which runs all that there is; then dead letters are purged, and time goes by."""
        for server in self.servers:
            server.die()
        server = Server(self.path, self.clock)
        self.servers, store = [server], server.store
        transact(store, lambda: [pausing.resume(store.db, name) for name in (None, "add")])
        for number in range(1000):
            self.clock.pass_by(2)
            self.clock.set_by(3600 if number % 20 == 0 else 0)  # for what was to be at a time of day, before it was set
            self.look(server)
            self.tidy(server)
            taken = server.take_some()
            transact(store, lambda taken=taken: store.settle([(one, Ending("done", b"1")) for one in taken]))
            if not taken and store.db.execute("SELECT 1 FROM task WHERE state = 0").fetchone() is None:
                break
        assert store.db.execute("SELECT * FROM task WHERE state = 0").fetchall() == [], "all have ended"
        self.clock.set_by(100_000)
        for _ in range(60):
            self.clock.pass_by(5)
            for (id,) in store.db.execute("SELECT id FROM task WHERE state = 2").fetchall():
                transact(store, lambda id=id: looking.purge(store, id_text(id)))
            self.tidy(server)
        for table in (
            *("task", "ready", "later", "running", "moment", "failure", "forget", "expiry", "key", "lapse", "single"),
            *("blocked", "link", "member", "plan", "revoked"),
        ):
            left: list[Any] = store.db.execute(f"SELECT * FROM {table}").fetchall()
            assert left == [], f"nothing is left in {table}"
        assert store.db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


_HAPPENINGS: list[Callable[[World, Server], None]] = [
    *[World.enqueue] * 4,
    *[World.compose] * 3,
    *[World.take] * 6,
    *[World.settle] * 6,
    *[World.pass_by] * 4,
    *[World.look] * 3,
    *[World.change] * 5,
    *[World.tidy] * 3,
    *(World.die, World.leave, World.stop, World.wake, World.start, World.set_clock, World.pause, World.reboot),
]


@pytest.mark.parametrize("number", [0, *(pytest.param(number, marks=pytest.mark.slow) for number in range(1, 20))])
def test_whatever_happens_every_task_ends_and_nothing_is_left_of_it(tmp_path: Path, number: int) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    world = World(tmp_path / "tasks.db", random.Random(seed))
    try:
        for _ in range(200):
            world.step()
        world.come_to_an_end()
    finally:
        for server in world.servers:
            server.die()
