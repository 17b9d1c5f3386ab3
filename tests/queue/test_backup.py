"""Copies of a queue that goes on meanwhile."""

import os
import shutil
import sqlite3
import subprocess
import threading
from pathlib import Path

import pytest

from greentask.errors import ConfigurationError
from greentask.queue.backup import back_up, check
from greentask.queue.byhand import QueueFile
from greentask.queue.ids import id_text
from greentask.queue.interface import Step
from greentask.queue.managing import Filter
from greentask.queue.recover import recover
from greentask.queue.schema import check_file, open_file
from greentask.queue.sqlite import SQLiteQueue
from support.programs import greentask
from support.queues import message

WITHIN = 10.0


def waiting(path: Path) -> int:
    with QueueFile(path) as file:
        return int(file.look("stats")["waiting"])


def test_a_copy_is_of_one_moment_while_the_queue_goes_on(queue: SQLiteQueue, path: Path, tmp_path: Path) -> None:
    many = [message(args='["' + "x" * 2000 + '"]') for _ in range(100)]
    for _ in range(100):  # 20 MB: several steps
        queue.enqueue(many).result(WITHIN)
    ends = threading.Event()

    def go_on() -> None:
        while not ends.is_set():
            queue.enqueue(many).result(WITHIN)

    writer, steps = threading.Thread(target=go_on), []
    writer.start()
    try:
        size = back_up(str(path), str(tmp_path / "copy.db"), report=lambda done, total: steps.append((done, total)))
    finally:
        ends.set()
        writer.join()
    assert len(steps) > 1
    assert {total for _, total in steps} == {steps[0][1]}, "it didn't begin anew"
    assert size == (tmp_path / "copy.db").stat().st_size > 20_000_000
    kept = waiting(tmp_path / "copy.db")
    assert kept % 100 == 0, "whole transactions"
    assert 10_000 <= kept <= waiting(path)
    assert sorted(name for name in os.listdir(tmp_path) if "copy" in name) == ["copy.db", "copy.db-servers"]


def test_a_copy_is_as_private_as_the_queue(queue: SQLiteQueue, path: Path, tmp_path: Path) -> None:
    path.chmod(0o640)
    back_up(str(path), str(tmp_path / "copy.db"))
    assert (tmp_path / "copy.db").stat().st_mode & 0o777 == 0o640


def test_nothing_is_overwritten_by_mistake(queue: SQLiteQueue, path: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.db"
    target.write_text("mine")
    with pytest.raises(ConfigurationError, match="is there already"):
        back_up(str(path), str(target))
    with pytest.raises(ConfigurationError, match="is the queue itself"):
        back_up(str(path), str(path), overwrite=True)
    with pytest.raises(ConfigurationError, match="no folder"):
        back_up(str(path), str(tmp_path / "none" / "copy.db"))
    with pytest.raises(ConfigurationError, match="there is no queue"):
        back_up(str(path) + "x", str(target))
    assert target.read_text() == "mine"
    back_up(str(path), str(target), overwrite=True)
    assert waiting(target) == 0


def fill(path: Path) -> None:
    """Five thousand tasks in a closed file."""
    queue = SQLiteQueue(path)
    queue.open()
    queue.enqueue([message(args=f"[{number}]") for number in range(5000)]).result(WITHIN)
    queue.close()
    db = sqlite3.connect(path)
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    db.close()


def task_pages(path: Path) -> list[int]:
    """The pages that begin as leaves of a table with row ids do: nearly all are of the tasks."""
    data = path.read_bytes()
    return [number for number in range(1, len(data) // 4096) if data[number * 4096] == 0x0D]


def damage(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * 4096)
        file.write(os.urandom(4096))


def test_a_copy_of_a_damaged_queue_is_none(path: Path, tmp_path: Path) -> None:
    fill(path)
    damage(path, task_pages(path)[-10])
    with pytest.raises(ConfigurationError, match="is damaged"):
        check(str(path))
    with pytest.raises(ConfigurationError, match="is damaged"):
        back_up(str(path), str(tmp_path / "copy.db"))
    assert not [name for name in os.listdir(tmp_path) if "copy" in name]


@pytest.mark.parametrize("table", ["ready", "blocked", "forget"])
def test_of_a_large_file_all_but_the_tasks_is_looked_through(path: Path, table: str) -> None:
    fill(path)
    with QueueFile(path) as file:
        file.transact(lambda store: store.composer.compose([Step(message(), False), Step(message("b", "[null]"))]))
        (ended,) = file.transact(lambda store: store.enqueue([message()]))
        assert file.change("revoke", [id_text(ended)])
    damage(path, task_pages(path)[-10])
    db = open_file(str(path))
    with pytest.raises(ConfigurationError, match="is damaged"):
        check_file(db, str(path))
    check_file(db, str(path), most=1000)
    (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    db.close()
    damage(path, root - 1)
    db = open_file(str(path))
    with pytest.raises(ConfigurationError, match="is damaged"):
        check_file(db, str(path), most=1000)
    db.close()


def left_behind(path: Path) -> None:
    """What is beside a queue whose server was killed, after it had written more."""
    with QueueFile(path) as file:
        file.change_all("revoke", Filter(name="add"))
        file.enqueue(message("newer"))
        logs = {end: Path(f"{path}{end}").read_bytes() for end in ("-wal", "-shm")}
    for end, content in logs.items():
        Path(f"{path}{end}").write_bytes(content)


@pytest.mark.parametrize("made", ["backup", "recover"])
def test_a_copy_is_not_mixed_with_the_log_of_the_file_that_was_there(path: Path, tmp_path: Path, made: str) -> None:
    copy = tmp_path / "copy.db"
    with QueueFile(path, make=True) as file:
        for _ in range(20):
            file.enqueue(message())
        if made == "backup":
            back_up(str(path), str(copy))
    if made == "recover":
        recover(str(path), str(copy))
    left_behind(path)
    shutil.copy(copy, path)
    for use in (SQLiteQueue(path).open, lambda: QueueFile(path), lambda: check(str(path))):
        with pytest.raises(ConfigurationError, match="the log beside it is that of the file that was there") as caught:
            use()
    recover(str(path), str(tmp_path / "recovered.db"))
    assert waiting(tmp_path / "recovered.db") == 20, "its log was left out"
    remedy = str(caught.value).partition("(")[2].rstrip(")")
    subprocess.run(remedy, shell=True, check=True)
    assert waiting(path) == 20


def test_where_it_can_not_be_seen_that_the_log_is_anothers_it_may_be_said(path: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy.db"
    with QueueFile(path, make=True) as file:
        file.enqueue(message())
    shutil.copy(path, copy)  # while nobody has it
    left_behind(path)
    shutil.copy(copy, path)
    for log, found in ((True, "newer"), (False, "add")):
        target = tmp_path / f"{found}.db"
        assert greentask("queue", "recover", str(path), str(target), *([] if log else ["--no-log"])).returncode == 0
        with QueueFile(target) as file:
            tasks = file.look("list", states=["waiting"])["tasks"]
        assert [task["name"] for task in tasks] == [found]
