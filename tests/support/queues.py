"""What tests of durable queues share: a clock to be set, and somebody who takes deliveries."""

import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, TypeVar

from greentask.queue.beside import Beside
from greentask.queue.clock import Clock
from greentask.queue.holders import Holders
from greentask.queue.interface import Delivery, Ending, Limit, Message, Want
from greentask.queue.schema import _STEPS, APPLICATION_ID, VERSION, open_file
from greentask.queue.sqlite import SQLiteQueue
from greentask.queue.store import Store
from support.programs import environment
from support.waiting import wait_until

T = TypeVar("T")


class FakeClock:
    """A machine's clocks, which stand still until they are told otherwise."""

    def __init__(self, wall: float = 1_800_000_000.0, steady: float = 1000.0) -> None:
        self.wall = wall
        self.steady = steady

    def as_clock(self, boot: str = "this one") -> Clock:
        return Clock(lambda: self.wall, lambda: self.steady, boot)

    def pass_by(self, seconds: float) -> None:
        """Let time go by, as it does."""
        self.wall += seconds
        self.steady += seconds

    def set_by(self, seconds: float) -> None:
        """Set the wall clock."""
        self.wall += seconds


def message(task: str = "add", args: str = "[1, 2]", **options: object) -> Message:
    return Message(task, b'{"args":%b}' % args.encode(), **options)  # type: ignore[arg-type]


_opened: list[Store] = []


def close_stores() -> None:
    """Close all that a test has opened: Python complains of those that are forgotten."""
    for store in _opened:
        store.db.close()
    _opened.clear()


def open_store(path: Path, clock: Clock, result_ttl: float = 100.0, **options: Any) -> Store:
    store = Store(open_file(str(path)), clock, result_ttl, **options)
    _opened.append(store)
    store.db.execute("PRAGMA synchronous = OFF")  # it is not the disk that is tried
    transact(store, store.keep_time)
    return store


def transact(store: Store, work: Callable[[], T]) -> T:
    """What comes of it, on disk."""
    store.begin()
    value = work()
    store.commit()
    return value


#: Seconds of silence after which a server's tasks are taken back.
LEASE = 5.0
_WANTS = [Want(frozenset({"add"}), 10)]


class HolderServer:
    """A server's part of the queue, in this thread."""

    def __init__(self, path: Path, clock: FakeClock, lease: float = LEASE, **options: Any) -> None:
        self.store: Store = open_store(path, clock.as_clock(), **options)
        self.beside = Beside(str(path))
        self.holders = Holders(self.store, self.beside, lease, lambda: clock.steady)
        self.do(self.holders.open)
        self._is_dead = False

    def do(self, work: object) -> None:
        transact(self.store, work)  # type: ignore[arg-type]
        self.holders.committed()

    def take(self) -> list[Delivery]:
        return transact(self.store, lambda: (self.store.ripen() and []) or self.store.take(_WANTS, self.holders.me()))

    def look(self, *, is_stuck: bool = False) -> int:
        """Look at the others once; how many deliveries were taken back."""
        overdue = self.holders.overdue(is_stuck=is_stuck)
        return transact(self.store, lambda: sum(self.holders.take_back(*one) for one in overdue))

    def settle(self, delivery: Delivery) -> bool:
        return transact(self.store, lambda: self.store.settle([(delivery, Ending("done", b"3"))]))[0]

    def die(self) -> None:
        """As with SIGKILL: the kernel closes what was open."""
        if not self._is_dead:
            self._is_dead = True
            self.store.db.close()
            self.beside.close()


class Taker:
    """Takes a queue's deliveries, and keeps them."""

    def __init__(
        self, queue: SQLiteQueue, tasks: Iterable[str] = ("add",), limits: Mapping[str, Limit] | None = None
    ) -> None:
        self.queue = queue
        self.tasks = frozenset(tasks)
        self.got: list[Delivery] = []
        self.lost = 0
        queue.consume(self.got.extend, self._hear_lost, limits or {})

    def _hear_lost(self) -> None:
        self.lost += 1

    def want(self, slots: int) -> None:
        self.queue.want([Want(self.tasks, slots)])

    def wait_for(self, count: int, within: float = 10.0) -> list[Delivery]:
        """The deliveries, when there are so many."""
        wait_until(lambda: len(self.got) >= count, within, f"delivery {count}")
        return self.got

    def settle(self, delivery: Delivery, how: str = "done", body: bytes = b"3", delay: float = 0.0) -> None:
        self.queue.settle(delivery, Ending(how, body, delay))  # type: ignore[arg-type]


@contextmanager
def older(path: Path, version: int) -> Iterator[sqlite3.Connection]:
    """A new file of an older version, in which something may be put."""
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA auto_vacuum = INCREMENTAL")
        for step in _STEPS[:version]:
            db.executescript(step)
        db.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        db.execute(f"PRAGMA user_version = {version}")
        yield db
        db.commit()


def make_older(path: Path, version: int = VERSION - 1) -> None:
    """The file of a server of an older version, which is holder 77."""
    with older(path, version) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("INSERT INTO holder VALUES (77, 3, 'pid 1')")


def version_of(path: Path) -> int:
    with closing(sqlite3.connect(path)) as db:
        return int(db.execute("PRAGMA user_version").fetchone()[0])


#: How somebody has a queue's lock: in the line of writers, SQLite's own, or both.
LOCKS = {
    "line": "turn.__enter__()",
    "sqlite": "db.execute('BEGIN IMMEDIATE')",
    "both": "turn.__enter__(); db.execute('BEGIN IMMEDIATE')",
}


@contextmanager
def holding_lock(path: Path, lock: str = "both") -> "Iterator[subprocess.Popen[bytes]]":
    """A process that has the queue's lock, until it is killed."""
    program = (
        "import sys; from greentask.queue.beside import Beside; from greentask.queue.schema import open_file\n"
        f"beside, db = Beside({str(path)!r}), open_file({str(path)!r}); turn = beside.turn(); {LOCKS[lock]}\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        try:
            yield process
        finally:
            process.kill()
