"""Which files can be a queue, and what is said of the others (D3 of the faults)."""

import codecs
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest

from greentask.errors import ConfigurationError
from greentask.queue import looking
from greentask.queue.backup import back_up
from greentask.queue.ids import id_text
from greentask.queue.schema import _STEPS, APPLICATION_ID, VERSION, _prepare, check_file, open_file
from greentask.queue.sqlite import SQLiteQueue
from support.programs import environment
from support.queues import FakeClock, HolderServer, message, older, transact


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        SQLiteQueue(path).open()
    assert str(path) in str(caught.value), "which file it is"
    return str(caught.value)


def test_a_new_file_is_made_and_known_again(path: Path) -> None:
    open_file(str(path)).close()
    db = open_file(str(path))
    assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    assert db.execute("PRAGMA synchronous").fetchone() == (2,)
    check_file(db, str(path))
    db.close()


def test_an_empty_file_becomes_a_queue(path: Path) -> None:
    path.touch()
    open_file(str(path)).close()


@pytest.mark.parametrize("moment", range(10))
def test_somebody_else_may_make_the_tables_while_it_looks(path: Path, moment: int) -> None:
    """Of several fronts that start at once, whichever statement of one the other comes before."""

    class Connection(sqlite3.Connection):
        seen = 0

        def execute(self, sql: str, *rest: object) -> sqlite3.Cursor:  # type: ignore[override]
            if self.seen == moment and not self.in_transaction:
                open_file(str(path)).close()
            self.seen += 1
            return super().execute(sql, *rest)  # type: ignore[arg-type]

    with closing(sqlite3.connect(path, isolation_level=None, factory=Connection)) as db:
        _prepare(db, str(path))
        assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_somebody_else_may_be_at_it_that_a_backup_is_a_queue_again(path: Path, tmp_path: Path) -> None:
    open_file(str(path)).close()
    back_up(str(path), str(tmp_path / "copy.db"))
    with closing(sqlite3.connect(tmp_path / "copy.db", isolation_level=None, check_same_thread=False)) as other:
        other.execute("BEGIN IMMEDIATE")
        ends = threading.Timer(0.3, other.execute, ("COMMIT",))
        ends.start()
        open_file(str(tmp_path / "copy.db")).close()
        ends.join()


def test_another_kind_of_file_is_left_as_it_is(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)
    assert "no queue, but another kind of file" in refusal(path)
    assert path.read_bytes() == b"Dear diary, " * 1000


def test_of_a_queue_that_no_longer_begins_as_one_it_is_said_that_it_may_be_recovered(path: Path) -> None:
    open_file(str(path)).close()
    with path.open("r+b") as file:
        file.write(b"\x00" * 512)
    assert f"if it was one, and its beginning is damaged, save what can be read: greentask queue recover {path}" in (
        refusal(path)
    )


def test_another_programs_database_is_left_as_it_is(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customers (name)")
    db.close()
    before = path.read_bytes()
    assert "another program's database" in refusal(path)
    assert path.read_bytes() == before


def tables(db: sqlite3.Connection) -> dict[str, list[str]]:
    names = [name for (name,) in db.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")]
    return {name: [column[1] for column in db.execute(f"PRAGMA table_info({name})")] for name in names}


def test_a_file_of_the_first_version_is_brought_to_this_one(path: Path) -> None:
    old = sqlite3.connect(path)
    old.executescript(_STEPS[0])
    old.execute(f"PRAGMA application_id = {APPLICATION_ID}")
    old.execute("PRAGMA user_version = 1")
    old.execute("INSERT INTO lane VALUES (4, 'add')")
    old.execute("INSERT INTO task (id, lane, rank, state, enqueued) VALUES (9, 4, 0, 0, 1.0)")
    old.execute("INSERT INTO task (id, lane, rank, state, enqueued, expires) VALUES (10, 4, 0, 0, 1.0, 7.0)")
    old.execute("INSERT INTO running VALUES (9, 77, 0, 1)")
    old.commit()
    old.close()
    db, new = open_file(str(path)), open_file(str(path.with_name("new.db")))
    assert tables(db) == tables(new)
    assert db.execute("PRAGMA user_version").fetchone() == (VERSION,)
    assert db.execute("SELECT id, lane, losses FROM running").fetchall() == [(9, 4, 1)]
    assert db.execute("SELECT * FROM expiry").fetchall() == [(7.0, 10)]
    db.close()
    new.close()


@pytest.mark.parametrize("version", range(1, VERSION))
def test_what_is_in_a_file_of_any_older_version_runs(path: Path, clock: FakeClock, version: int) -> None:
    with older(path, version) as old:
        old.execute("INSERT INTO lane VALUES (4, 'add')")
        ids = range(1, 8)
        waits, scheduled, at, runs, dead, done, keyed = ids
        states = {dead: 2, done: 1}
        for id in ids:
            old.execute(
                "INSERT INTO task (id, lane, rank, state, enqueued, key, body) VALUES (?, 4, 0, ?, ?, ?, ?)",
                (id, states.get(id, 0), clock.wall, "k" if id == keyed else None, b"3" if id == done else b"{}"),
            )
        old.execute("INSERT INTO key (key, id) VALUES ('k', ?)", (keyed,))
        old.executemany("INSERT INTO ready VALUES (4, 0, ?, 0, 0)", [(waits,), (keyed,)])
        old.executemany("INSERT INTO later VALUES (?, ?, ?, ?, 0)", [(0, clock.wall + 5, scheduled, 1), (1, 0, at, 0)])
        old.execute("INSERT INTO holder VALUES (77, 3, 'pid 1')")  # who died
        old.execute("INSERT INTO running (id, holder, failures, losses) VALUES (?, 77, 0, 0)", (runs,))
        old.executemany(
            "INSERT INTO failure (id, attempt, at, error) VALUES (?, 1, 0, ?)",
            [(one, b"{}") for one in (scheduled, dead)],
        )
        old.execute("INSERT INTO forget VALUES (?, ?)", (clock.wall + 1000, done))
    path.with_name("tasks.db-servers").touch()  # as its servers left it
    server = HolderServer(path, clock)
    store = server.store
    assert server.look() == 1
    assert [looking.find(store, id_text(id)).state for id in ids] == [  # type: ignore[union-attr]
        "waiting", "scheduled", "scheduled", "waiting", "failed", "done", "waiting",
    ]  # fmt: skip
    assert transact(store, lambda: store.enqueue([message(key="k")])) == [keyed]
    assert transact(store, lambda: looking.retry(store, id_text(dead)))
    clock.pass_by(6)
    taken = {delivery.handle[0]: delivery for delivery in server.take()}
    assert {id: one.attempt for id, one in taken.items()} == {waits: 1, scheduled: 2, at: 1, runs: 2, dead: 1, keyed: 1}
    assert all(server.settle(delivery) for delivery in taken.values())
    check_file(store.db, str(path))
    server.die()


def test_a_file_of_a_newer_version_is_left_as_it_is(path: Path) -> None:
    db = open_file(str(path))
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()
    assert "newer greentask" in refusal(path)


def test_a_folder_that_is_not_there(path: Path) -> None:
    assert "no folder" in refusal(path / "tasks.db")


def test_a_folder_in_its_place(path: Path) -> None:
    path.mkdir()
    assert "is no file" in refusal(path)


def test_a_file_that_may_not_be_written() -> None:
    with tempfile.TemporaryDirectory() as folder:  # which others can reach, unlike pytest's
        path = Path(folder, "tasks.db")
        open_file(str(path)).close()
        path.chmod(0o444)
        for mode, told in ((0o777, "is not ours to write"), (0o555, "must be writable")):
            Path(folder).chmod(mode)
            with as_nobody():
                assert told in refusal(path)


@contextmanager
def as_nobody() -> Iterator[None]:
    """While inside, not be root, who may write everything."""
    codecs.lookup("ascii")  # one that nobody may import, for he can't read root's Python, isn't looked for again
    us = os.geteuid()
    if us == 0:
        os.seteuid(65534)
    try:
        yield
    finally:
        if us == 0:
            os.seteuid(us)


def test_a_damaged_file_is_seen_at_the_start(path: Path) -> None:
    queue = SQLiteQueue(path)
    queue.open()
    queue.enqueue([message(args=f"[{number}]") for number in range(5000)]).result(10)
    queue.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()
    with path.open("r+b") as file:
        file.seek(20 * 4096)
        file.write(os.urandom(40 * 4096))
    said = refusal(path)
    assert "is damaged" in said
    assert "greentask queue recover" in said, "and what to do"


def test_a_disk_without_room_is_said_at_the_start(path: Path) -> None:
    queue = SQLiteQueue(path)
    queue.open()
    queue.enqueue([message(args='["' + "x" * 100_000 + '"]')]).result(10)
    size = max(file.stat().st_size for file in path.parent.iterdir())
    source = f"from greentask.queue.sqlite import SQLiteQueue; SQLiteQueue({str(path)!r}).open()"
    ended = subprocess.run(
        [sys.executable, "-c", source],
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY)),
    )
    queue.close()
    assert "ConfigurationError" in ended.stderr
    assert "is its disk full?" in ended.stderr
