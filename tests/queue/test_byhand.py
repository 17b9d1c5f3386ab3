"""A queue's file in a person's hands."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from greentask.errors import ConfigurationError
from greentask.queue.byhand import QueueFile
from greentask.queue.interface import Step
from greentask.queue.managing import Filter
from greentask.queue.sqlite import SQLiteQueue
from support.parts import require
from support.programs import environment
from support.queues import Taker, message

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
