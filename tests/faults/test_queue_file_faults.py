"""A queue's file that is full or can't be used (D2 and D3), as who runs a server sees it."""

import errno
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from greentask.cli.queue.moving import _at_its_own_pace
from greentask.errors import ConfigurationError
from greentask.queue.backup import back_up, check
from greentask.queue.byhand import QueueFile
from greentask.queue.managing import Filter
from greentask.queue.recover import recover
from greentask.queue.schema import VERSION, open_file
from greentask.queue.transfer import export_tasks
from support.durable_tasks import marks
from support.parts import require
from support.programs import environment, greentask
from support.queue_calls import enqueue, outcome
from support.queues import message
from support.servers import serving, wait_until

APPS = ("support.durable_tasks",)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 4 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True)
    require(mounted.returncode == 0, "nothing may be mounted here")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", str(disk)], check=True)


def fill(path: Path) -> None:
    """Leave no room."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


def test_d2_where_a_queue_or_its_copy_has_no_room_it_is_said_of_that_one(small_disk: Path, tmp_path: Path) -> None:
    queue, filler = str(tmp_path / "tasks.db"), small_disk / "filler"
    with QueueFile(queue, make=True) as file:
        file.transact(lambda store: store.enqueue([message(args='["' + "x" * 1000 + '"]')] * 500))
    fill(filler)
    for room in (0, 12, 24, 48):  # KB
        os.truncate(filler, filler.stat().st_size - room * 1024)
        new = small_disk / "new.db"
        with pytest.raises(ConfigurationError, match=r"new\.db' can't be opened .*is its disk full\?"):
            QueueFile(new, make=True)
        for copy in (back_up, recover):
            with pytest.raises(ConfigurationError, match=r"copy\.db' can't be written: is its disk full\?"):
                copy(queue, str(small_disk / "copy.db"))
        for left in small_disk.glob("new.db*"):
            left.unlink()
        assert sorted(small_disk.iterdir()) == [filler], "no copy is left in part"
        fill(filler)


def test_d2_where_an_export_into_a_pipe_has_no_room_beside_the_queue_that_is_said(small_disk: Path) -> None:
    fill(small_disk / "filler")
    into, out = os.pipe()
    with (
        open(into, "rb"),
        open(out, "wb") as pipe,
        pytest.raises(OSError) as caught,
        _at_its_own_pace(pipe, str(small_disk)) as file,
    ):
        file.write(b"x" * 100_000)
    assert (caught.value.filename, caught.value.errno) == (str(small_disk), errno.ENOSPC)


@pytest.mark.slow
def test_d2_a_full_disk_refuses_loses_nothing_and_goes_on_by_itself(small_disk: Path, tmp_path: Path) -> None:
    file, filler, queue = tmp_path / "marks", small_disk / "filler", str(small_disk / "tasks.db")
    with serving("--queue", queue, apps=APPS, processes=1) as server, server.connect() as peer:
        kept = [enqueue(peer, "note", str(file), number, delay=1.5) for number in range(50)]
        failed = enqueue(peer, "fail", "KeyError")
        assert outcome(peer, failed)["state"] == "failed"
        fill(filler)
        refused = None
        for _ in range(300):  # what room there is in the log, of which some is made ahead
            reply = peer.ask({"function": "add", "args": [1, 1], "id": 1, "enqueue": {"delay": 3600}})
            if "error" in reply:
                refused = reply["error"]
                break
        assert refused is not None
        assert refused["type"] == "QueueFull"
        assert "make room" in refused["message"]
        assert outcome(peer, kept[0], False)["state"] in ("scheduled", "waiting", "running"), "it answers"

        done = greentask("enqueue", "add", "a=1", GREENTASK_URL=server.address)
        assert (done.returncode, done.stdout) == (4, "")
        assert "QueueFull" in done.stderr
        done = greentask("queue", "retry", failed, GREENTASK_URL=server.address)
        assert done.returncode == 7
        assert "disk full" in done.stderr
        assert done.stderr.count("\n") == 1
        done = greentask("queue", "backup", str(small_disk / "copy.db"), GREENTASK_URL=server.address)
        assert done.returncode == 7
        assert not list(small_disk.glob("copy*"))

        filler.unlink()
        assert {outcome(peer, task)["state"] for task in kept} == {"done"}
        assert outcome(peer, enqueue(peer, "add", 1))["result"] == 2
        assert greentask("queue", "retry", failed, GREENTASK_URL=server.address).returncode == 0
        assert greentask("queue", "check", GREENTASK_URL=server.address).returncode == 0
    assert sorted(map(int, marks(file))) == list(range(50))


def diary(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)


def another_database(path: Path) -> None:
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE customers (name)")
    db.close()


def newer(path: Path) -> None:
    db = open_file(str(path))
    db.execute(f"PRAGMA user_version = {VERSION + 1}")
    db.close()


def damaged_head(path: Path) -> None:
    open_file(str(path)).close()
    with path.open("r+b") as file:
        file.seek(4096 * 2)
        file.write(b"\xff" * 4096 * 4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (diary, "is no queue, but another kind of file"),
        (another_database, "is another program's database"),
        (newer, "was written by a newer greentask"),
        (Path.mkdir, "is a directory"),
        (damaged_head, "is damaged"),
    ],
)
def test_d3_a_file_that_can_not_be_used_is_said_in_one_line(
    tmp_path: Path, make: Callable[[Path], None], said: str
) -> None:
    path = tmp_path / "tasks.db"
    make(path)
    before = path.read_bytes() if path.is_file() else b""
    done = greentask("serve", *APPS, "--listen", "127.0.0.1:0", "--queue", str(path))
    assert done.returncode in (1, 2)
    assert said in done.stderr
    assert str(path) in done.stderr
    assert "Traceback" not in done.stderr
    assert done.returncode == 2 or done.stderr.count("\n") == 1
    assert before == (path.read_bytes() if path.is_file() else b""), "it is left as it is"
    seen = greentask("queue", "list", "--queue", str(path))
    assert seen.returncode in (2, 7)
    assert said in seen.stderr
    assert make is not damaged_head or "greentask queue recover" in seen.stderr
    assert "Traceback" not in seen.stderr


@pytest.mark.slow
def test_d3_a_folder_that_is_not_there_is_said_in_one_line(tmp_path: Path) -> None:
    done = greentask("serve", *APPS, "--listen", "127.0.0.1:0", "--queue", str(tmp_path / "none" / "tasks.db"))
    assert done.returncode == 1
    assert "there is no folder" in done.stderr
    assert done.stderr.count("\n") == 1


# ---- Who works on the file by hand is killed


@pytest.mark.slow
def test_an_import_and_a_backup_that_are_killed_are_just_done_again(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    count, file, queue, copy = 4000, tmp_path / "marks", str(tmp_path / "tasks.db"), tmp_path / "copy.db"
    with QueueFile(tmp_path / "old.db", make=True) as old:
        messages = [message("note", f'["{file}", {number}]') for number in range(count)]
        old.transact(lambda store: store.enqueue(messages))
        with old.moment() as store:
            (tmp_path / "tasks.jsonl").write_bytes(b"".join(export_tasks(store, Filter())))
    commands = {
        "import": ["queue", "import", str(tmp_path / "tasks.jsonl"), "--queue", queue],
        "backup": ["queue", "backup", str(copy), "--queue", queue],
    }
    with serving("--queue", queue, "--fronts", "2", apps=APPS, processes=1), QueueFile(queue) as new:

        def kept() -> int:
            return int(new.store.db.execute("SELECT count(*) FROM task").fetchone()[0])

        for at in sorted(chance.sample(range(count - 1000), 3)):
            killed = subprocess.Popen(
                [sys.executable, "-m", "greentask", *commands["import"]],
                env=environment(),
                stdout=subprocess.DEVNULL,
            )
            wait_until(lambda: kept() > at, f"{at} tasks are kept")  # noqa: B023
            killed.kill()
            killed.wait()
        killed = subprocess.Popen([sys.executable, "-m", "greentask", *commands["backup"]], env=environment())
        wait_until(lambda: list(tmp_path.glob("copy.db.part-*")) or copy.exists(), "it has begun")
        killed.kill()
        killed.wait()
        for name in ("import", "backup"):
            done = greentask(*commands[name], *(["--force"] if name == "backup" else []))
            assert done.returncode == 0, done.stderr
        wait_until(lambda: len(marks(file)) >= count, "all have run")
        assert kept() == count
        assert set(Counter(marks(file)).values()) == {1}, "each has run once"
    check(str(copy))


# ---- What is beside it is removed


@pytest.mark.slow
def test_servers_whose_common_file_was_removed_take_nothing_from_each_other(tmp_path: Path) -> None:
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    with serving("--queue", queue, apps=APPS) as one, one.connect() as peer:
        task = enqueue(peer, "nap", str(file), 5)
        wait_until(lambda: marks(file) == ["began"])
        Path(f"{queue}-servers").unlink()
        with serving("--queue", queue, apps=APPS) as other:  # which finds nobody's lock
            assert outcome(peer, task)["attempts"] == 1
            assert "it is made anew" in one.output() + other.output()
            one.signal_all(signal.SIGKILL)
            with other.connect() as peer:
                assert outcome(peer, enqueue(peer, "add", 1))["result"] == 2
    assert marks(file) == ["began", "ended"]


@pytest.mark.slow
def test_nothing_is_lost_where_the_log_was_removed(tmp_path: Path) -> None:
    file, queue = tmp_path / "marks", str(tmp_path / "tasks.db")
    with serving("--queue", queue, "--fronts", "2", apps=APPS) as server, server.connect() as peer:
        tasks = [enqueue(peer, "note", str(file), number, delay=5) for number in range(50)]
        Path(f"{queue}-wal").unlink()
        call = {"function": "note", "args": [str(file), "more"], "id": 1, "enqueue": {"delay": 5}}
        while "result" in (reply := peer.ask(call)):
            tasks.append(reply["result"]["task"])
        assert "stop all servers of the queue" in reply["error"]["message"]
        done = greentask("serve", *APPS, "--listen", "127.0.0.1:0", "--queue", queue)
        assert done.returncode == 1
        assert "servers have it" in done.stderr
        assert done.stderr.count("\n") == 1
    with serving("--queue", queue, apps=APPS) as server, server.connect() as peer:
        assert {outcome(peer, task)["state"] for task in tasks} == {"done"}


# ---- It is put back from a backup


@pytest.mark.slow
def test_a_backup_is_put_back_after_a_server_was_killed(tmp_path: Path) -> None:
    file, queue, copy = tmp_path / "marks", tmp_path / "tasks.db", tmp_path / "copy.db"
    with serving("--queue", str(queue), apps=APPS) as server, server.connect() as peer:
        kept = enqueue(peer, "note", str(file), "kept", delay=1)
        assert greentask("queue", "backup", str(copy), "--queue", str(queue)).returncode == 0
        newer = [enqueue(peer, "note", str(file), "newer", delay=3600) for _ in range(50)]
        server.signal_all(signal.SIGKILL)
        server.wait()
    assert Path(f"{queue}-wal").stat().st_size > 0
    shutil.copy(copy, queue)
    done = greentask("serve", *APPS, "--listen", "127.0.0.1:0", "--queue", str(queue))
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    subprocess.run(done.stderr.rpartition("(")[2].rpartition(")")[0], shell=True, check=True)
    with serving("--queue", str(queue), apps=APPS) as server, server.connect() as peer:
        assert outcome(peer, kept)["result"] == "kept"
        reply = peer.ask({"function": "greentask.result", "args": {"task": newer[0]}})
        assert "knows no task" in reply["error"]["message"]
    assert marks(file)[-1] == "kept"
