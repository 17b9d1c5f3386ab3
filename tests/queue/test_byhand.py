"""A queue's file in a person's hands."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from greentask.errors import ConfigurationError
from greentask.queue.backup import back_up, check
from greentask.queue.byhand import QueueFile
from greentask.queue.interface import Step
from greentask.queue.managing import Filter
from greentask.queue.schema import VERSION
from greentask.queue.sqlite import SQLiteQueue
from support.parts import require
from support.programs import environment
from support.queues import Taker, make_older, message, version_of

WITHIN = 10.0


def test_it_is_made_only_where_that_is_asked_for(path: Path) -> None:
    with pytest.raises(ConfigurationError, match="there is no queue"):
        QueueFile(path)
    assert not path.exists()
    QueueFile(path, make=True).close()
    QueueFile(path).close()


def test_root_leaves_nothing_behind_that_the_owner_can_not_write(path: Path) -> None:
    require(os.geteuid() == 0, "this is about root")
    QueueFile(path, make=True).close()
    os.unlink(f"{path}-servers")
    os.chown(path, 65534, 65534)
    with QueueFile(path) as file:
        file.enqueue(message())
        for end in ("-servers", "-wal", "-shm"):
            assert os.stat(f"{path}{end}").st_uid == 65534


def test_a_server_sees_at_once_what_another_process_has_done(queue: SQLiteQueue, path: Path) -> None:
    taker = Taker(queue)
    with QueueFile(path) as file:
        assert file.pause("add")
    ids = queue.enqueue([message()] * 3).result(WITHIN)
    taker.want(3)
    code = "import sys; from greentask.queue.byhand import QueueFile; QueueFile(sys.argv[1]).resume('add')"
    queue.count().result(WITHIN)
    assert taker.got == []
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, env=environment())
    assert [one.id for one in taker.wait_for(3)] == ids


def test_a_step_changes_few_and_all_are_changed(path: Path) -> None:
    with QueueFile(path, make=True) as file:
        for task in ("a", "b"):
            file.transact(lambda store: store.enqueue([message(task)] * 1300))  # noqa: B023
        statements: list[str] = []
        file.store.db.set_trace_callback(statements.append)
        assert file.change_all("revoke", Filter(name="b")) == 1300
        assert statements.count("COMMIT") >= 3, "nobody waits for long"
        assert {task["state"] for task in file.look("list", name="a", limit=2000)["tasks"]} == {"waiting"}


def test_of_what_was_revoked_before_its_time_nothing_is_left_until_then(path: Path) -> None:
    with QueueFile(path, make=True) as file:
        ids = [file.enqueue(message(**{when: 4e9})) for when in ("delay", "at", "at")]  # type: ignore[arg-type]
        assert file.change("revoke", ids[:2]) == ids[:2]
        assert file.look("stats")["scheduled"] == 1
        assert file.store.db.execute("SELECT count(*) FROM later").fetchone() == (1,)


def test_who_works_by_hand_keeps_things_for_as_long_as_the_servers_do(path: Path) -> None:
    queue = SQLiteQueue(path, result_ttl=1000.0, key_ttl=50.0)
    queue.open()
    queue.close()
    with QueueFile(path) as file:
        id = file.enqueue(message(key="k"))
        file.change("revoke", [id])
        db, now = file.store.db, file.store.time.now()
        assert db.execute("SELECT ttl FROM key").fetchone() == (50.0,)
        assert 990 < db.execute("SELECT at FROM forget").fetchone()[0] - now <= 1000


def test_what_a_person_lets_run_takes_as_much_as_at_the_servers(path: Path) -> None:
    queue = SQLiteQueue(path, max_taken=40)
    queue.open()
    first, body = queue.compose([Step(message("a"), False), Step(message("b", "[null]"), errors=True)]).result(WITHIN)
    queue.close()
    with QueueFile(path) as file:
        assert file.change("revoke", [first]) == [first]  # whose error has more than 40 bytes
        assert "more than 40 bytes (max_taken)" in file.look("show", task=body)["errors"][0]["message"]
        assert file.change("retry", [body]) == []
    queue = SQLiteQueue(path)
    queue.open()
    queue.close()
    with QueueFile(path) as file:
        assert file.change("retry", [body]) == [body]
        assert file.look("show", task=body)["args"][0]["error"]["type"] == "Cancelled"


@pytest.mark.parametrize("version", range(1, VERSION))
def test_who_only_looks_leaves_a_file_of_an_older_version_as_it_is(path: Path, version: int) -> None:
    make_older(path, version)
    with pytest.raises(
        ConfigurationError, match=rf"older greentask \(its version is {version}, .*: use that"
    ) as caught:
        QueueFile(path, to_read=True)
    assert f"(greentask serve APP --queue {path})" in str(caught.value)
    assert version_of(path) == version
    with QueueFile(path) as file:  # who changes something, while no server has it
        assert file.look("stats")["waiting"] == 0
    assert version_of(path) == VERSION
    with QueueFile(path, to_read=True) as file:
        assert file.look("stats")["waiting"] == 0


@pytest.mark.parametrize("use", [lambda path: QueueFile(path), lambda path: QueueFile(path, to_read=True)])
def test_nobody_changes_the_version_of_a_file_that_an_older_server_has(
    path: Path, use: Callable[[Path], QueueFile]
) -> None:
    make_older(path)
    program = (
        "import sqlite3, sys; from greentask.queue.beside import Beside\n"
        "beside = Beside(sys.argv[1]); beside.hold(77)\n"
        "db = sqlite3.connect(sys.argv[1]); db.execute('SELECT * FROM holder').fetchall()\n"
        "print('held', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment()
    ) as server:
        assert server.stdout is not None
        assert server.stdout.readline() == b"held\n"
        with pytest.raises(ConfigurationError, match=r"of an older greentask, which serves it \(its version"):
            use(path)
        server.communicate()
    assert version_of(path) == VERSION - 1


def test_a_copy_of_an_older_queue_is_of_that_version_too(path: Path, tmp_path: Path) -> None:
    make_older(path)
    check(str(path))
    back_up(str(path), str(tmp_path / "copy.db"))
    assert version_of(path) == version_of(tmp_path / "copy.db") == VERSION - 1
