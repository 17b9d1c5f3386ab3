"""Room in SQLite's log: a small commit makes the file no longer, and to whoever reads the log it is not there."""

import os
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from greentask.queue.byhand import QueueFile
from greentask.queue.logroom import LogRoom
from greentask.queue.recover import recover
from greentask.queue.schema import PAGE
from greentask.queue.sqlite import SQLiteQueue
from greentask.queue.store import Store
from support.queues import FakeClock, message, open_store

FRAME = PAGE + 24
COMMITS = 300


@pytest.fixture
def store(path: Path, clock: FakeClock) -> Store:
    return open_store(path, clock.as_clock())


def commit(store: Store, *rooms: LogRoom, size: int = 10) -> None:
    store.begin()
    store.enqueue([message(args='["' + "x" * size + '"]')])
    for room in rooms:
        room.make()
    store.commit()


def length(path: Path) -> int:
    return os.path.getsize(f"{path}-wal")


def lengths(store: Store, path: Path, *rooms: LogRoom, size: int = 10) -> list[int]:
    seen = []
    for _ in range(COMMITS):
        commit(store, *rooms, size=size)
        seen.append(length(path))
    return seen


def test_few_commits_make_the_file_longer(store: Store, path: Path) -> None:
    without = lengths(store, path)
    assert len(set(without)) == COMMITS
    with closing(LogRoom(str(path))) as room:
        seen = lengths(store, path, room)
        assert len(set(seen)) < COMMITS / 10
        assert seen[-1] - seen[0] < 1.3 * (without[-1] - without[0]), "and it is used"
        assert store.db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        assert length(path) == 0
        seen = lengths(store, path, room)
        assert len(set(seen)) < COMMITS / 10, "when it has begun anew, too"


def test_several_servers_make_it_once(store: Store, path: Path) -> None:
    with closing(LogRoom(str(path))) as one, closing(LogRoom(str(path))) as other:
        seen = lengths(store, path, one, other)
        assert seen[-1] < COMMITS * 2.5 * FRAME + 64 * FRAME
        seen = lengths(store, path, other)
        assert len(set(seen)) < COMMITS / 10


def test_large_commits_need_none(store: Store, path: Path) -> None:
    with closing(LogRoom(str(path))) as room:
        for _ in range(5):
            before = length(path)
            commit(store, room, size=400_000)
            assert length(path) - before < 450_000


def test_a_log_that_will_be_written_from_its_begin_needs_none(
    store: Store, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greentask.queue.logroom.CHECKPOINT_BYTES", 200 * FRAME)
    with closing(LogRoom(str(path))) as room:
        seen = lengths(store, path, room)
        late = [size for size in seen if size > (200 + 2 * 64) * FRAME]  # what was made before is full by then
        assert len(set(late)) == len(late) > 100, "each commit makes the file longer by what it takes"


def test_who_reads_the_log_sees_what_was_committed(store: Store, path: Path, tmp_path: Path) -> None:
    """As after the machine has lost its power: by SQLite, and by who saves what can be read of a damaged queue."""
    with closing(LogRoom(str(path))) as room:
        lengths(store, path, room)
        with open(f"{path}-wal", "rb") as log:
            log.seek(-FRAME, os.SEEK_END)
            assert not any(log.read()), "there is room"
        (tmp_path / "copy").mkdir()
        copy = tmp_path / "copy" / "tasks.db"
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{copy}{end}")
    assert recover(str(copy), str(tmp_path / "saved.db")).tasks == COMMITS
    with QueueFile(copy) as file:
        assert file.look("stats")["waiting"] == COMMITS
        file.enqueue(message())
        assert file.store.db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert file.look("stats")["waiting"] == COMMITS + 1


def test_where_there_is_no_disk_for_it_there_is_none(store: Store, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> int:
        raise OSError("No space left on device")

    with closing(LogRoom(str(path))) as room:
        monkeypatch.setattr("greentask.queue.logroom.os.pwrite", fail)
        assert len(set(lengths(store, path, room))) == COMMITS
        monkeypatch.setattr("greentask.queue.logroom.os.pwrite", lambda fd, data, at: os.write(fd, b"") or 0)
        assert len(set(lengths(store, path, room))) == COMMITS


def test_where_there_is_no_log_it_is_told_elsewhere(tmp_path: Path) -> None:
    room = LogRoom(str(tmp_path / "nothing.db"))
    room.make()
    room.close()


def test_a_server_makes_it(path: Path) -> None:
    queue = SQLiteQueue(path)
    queue.open()
    try:
        seen = set()
        for _ in range(60):
            queue.enqueue([message(delay=1e6)]).result(10)
            seen.add(length(path))
    finally:
        queue.close()
    assert len(seen) < 20
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM later").fetchone() == (60,)
