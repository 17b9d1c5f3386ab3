"""What can be read of a damaged file (D3 of the faults)."""

import os
import random
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from greentask.errors import ConfigurationError
from greentask.queue.byhand import QueueFile
from greentask.queue.ids import parse_id
from greentask.queue.interface import Ending, Fan, Step, Want
from greentask.queue.managing import Filter
from greentask.queue.recover import Recovered, recover
from greentask.queue.sqlite import SQLiteQueue
from greentask.queue.transfer import export_tasks
from support.queues import message

pytestmark = pytest.mark.once

PAGE = 4096
TASKS = 3000


def exported(path: Path) -> dict[str, bytes]:
    """All that is known of each task."""
    with QueueFile(path) as file, file.moment() as store:
        store.clock.wall = lambda: 1_800_000_000.0  # type: ignore[method-assign]
        store.time.now = lambda: 1_800_000_000.0  # type: ignore[method-assign]
        return {line[9:22].decode(): line for line in list(export_tasks(store, Filter()))[1:-1]}


def message_of(line: bytes) -> bytes:
    """Its arguments or its result: what it is called, and how it fared, may be lost by itself."""
    return line.partition(b'"errors":')[2].partition(b'],"')[2]


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A closed file with tasks in all states, small and large, and with many that have been forgotten."""
    path = tmp_path_factory.mktemp("original") / "tasks.db"

    def make(file: QueueFile) -> None:
        def enqueue(store: Any) -> None:
            payload = '["' + "x" * 50 + '"]'
            store.enqueue([message("add", payload, key=f"key {number}") for number in range(TASKS // 2)])
            store.enqueue([message("large", '["' + "y" * 9000 + '"]') for _ in range(20)])
            store.enqueue([message("brief", payload, ttl=1e6)])
            store.enqueue([message("later", payload, delay=1e6 + number) for number in range(TASKS // 4)])
            taken = store.take([Want(frozenset({"add"}), 200)], 7)
            error = b'{"type":"ValueError","message":"no","traceback":"' + b"t" * 300 + b'"}'
            store.settle([(one, Ending("failed", error)) for one in taken[:50]])
            store.settle([(one, Ending("done", b'"result"')) for one in taken[50:100]])
            store.settle([(one, Ending("retry", error, 2e6)) for one in taken[100:150]])
            store.attempts.note(taken[150].handle[0], 1, b'{"type":"WorkerLost","message":"died"}', server=True)

        file.transact(enqueue)
        forgotten = file.transact(lambda store: store.enqueue([message("gone") for _ in range(TASKS)]))
        assert len(forgotten) == TASKS
        file.change_all("revoke", Filter(name="gone"))
        file.change_all("purge", Filter(name="gone"))

    with QueueFile(path, make=True) as file:
        make(file)
    return path


@pytest.fixture
def path(original: Path, tmp_path: Path) -> Path:
    return Path(shutil.copy(original, tmp_path / "tasks.db"))


def damage(path: Path, page: int, data: Callable[[int], bytes] = os.urandom) -> None:
    with path.open("r+b") as file:
        file.seek((page - 1) * PAGE)
        file.write(data(PAGE))


def root_of(path: Path, table: str) -> int:
    db = sqlite3.connect(path)
    (root,) = db.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", (table,)).fetchone()
    db.close()
    return int(root)


def below(path: Path, page: int) -> list[int]:
    """The pages to which an inner one of a table leads."""
    data, head = path.read_bytes()[(page - 1) * PAGE : page * PAGE], 100 if page == 1 else 0
    assert data[head] == 5
    cells = range(head + 12, head + 12 + 2 * int.from_bytes(data[head + 3 : head + 5], "big"), 2)
    starts = [int.from_bytes(data[at : at + 2], "big") for at in cells]
    return [int.from_bytes(data[at : at + 4], "big") for at in [*starts, head + 8]]


def test_of_a_whole_file_everything_is_saved(path: Path, tmp_path: Path) -> None:
    before = exported(path)
    new = tmp_path / "new.db"
    assert recover(str(path), str(new)) == Recovered(len(before), 0, 0)
    after = exported(new)
    running = {id for id, line in before.items() if b'"state":"running"' in line}
    assert len(running) == 50
    for id, line in before.items():
        if id in running:
            line = line.replace(b'"running"', b'"waiting"').replace(b'"attempts":1', b'"attempts":0')
        assert after[id] == line
    with QueueFile(path) as old, QueueFile(new) as file:
        for table in ("meta", "key", "forget", "later", "expiry"):
            query = f"SELECT * FROM {table} ORDER BY 1, 2"
            if table == "forget":  # of what was purged before its time
                query = "SELECT * FROM forget WHERE id IN (SELECT id FROM task) ORDER BY 1, 2"
            if table == "meta":  # how much that was
                query = "SELECT * FROM meta WHERE name <> 'purged' ORDER BY 1, 2"
            assert file.store.db.execute(query).fetchall() == old.store.db.execute(query).fetchall()
        assert file.store.cleaner.ended() == old.store.cleaner.ended()


def test_what_is_in_the_log_only_is_saved(path: Path, tmp_path: Path) -> None:
    with QueueFile(path) as file:
        id = file.enqueue(message("fresh"))
        for end in ("", "-wal"):
            shutil.copy(f"{path}{end}", f"{tmp_path}/cut.db{end}")
    with open(f"{tmp_path}/cut.db-wal", "ab") as log:
        log.write(os.urandom(10_000))  # a frame that was cut
    recover(f"{tmp_path}/cut.db", f"{tmp_path}/new.db")
    assert id in exported(tmp_path / "new.db")


@pytest.mark.parametrize("name", ["base", "last"])
def test_where_it_is_lost_how_time_went_on_it_begins_anew(path: Path, tmp_path: Path, name: str) -> None:
    queue = SQLiteQueue(path)
    queue.open()
    queue.close()
    db = sqlite3.connect(path)
    with db:
        assert db.execute("UPDATE meta SET value = 'nonsense' WHERE name = ?", (name,)).rowcount == 1
    db.close()
    new = tmp_path / "new.db"
    recover(str(path), str(new))
    queue = SQLiteQueue(new)
    queue.open()
    try:
        assert len(queue.enqueue([message()]).result(10.0)) == 1
    finally:
        queue.close()


def test_a_damaged_leaf_costs_its_own_tasks(path: Path, tmp_path: Path) -> None:
    before = exported(path)
    leaf = below(path, root_of(path, "task"))[3]
    damage(path, leaf, lambda size: b"\xff" * size)
    with pytest.raises(ConfigurationError, match="is damaged"):
        SQLiteQueue(path).open()
    saved = recover(str(path), str(tmp_path / "new.db"))
    after = exported(tmp_path / "new.db")
    assert saved.damaged == 1
    assert len(before) - 60 < len(after) == saved.tasks < len(before)
    assert set(after) < set(before)


@pytest.mark.parametrize("is_lost", [False, True])
def test_who_waits_for_a_task_waits_on_unless_that_is_lost(tmp_path: Path, is_lost: bool) -> None:
    path, new = tmp_path / "tasks.db", tmp_path / "new.db"
    with QueueFile(path, make=True) as file:
        steps = [Step(message("a", "[]"), takes=False), Step(message("b", "[null]")), Step(message("c", "[null]"))]
        placed = file.transact(lambda store: store.composer.compose(steps))
        group = file.transact(
            lambda store: store.composer.enqueue_group([message(), message()], [], None, is_open=False)
        )
        if is_lost:
            for id in (placed[0], *group[0]):
                file.store.db.execute("DELETE FROM ready")
                file.store.db.execute("DROP TRIGGER IF EXISTS forget_link")
                file.store.db.execute("DELETE FROM task WHERE id = ?", (parse_id(id),))
    recover(str(path), str(new))
    with QueueFile(new) as file:
        states = {task["task"]: task["state"] for task in file.look("list")["tasks"]}
        if is_lost:
            assert states == {placed[1]: "failed", placed[2]: "failed", group[1]: "failed"}
            assert "lost" in file.look("show", task=placed[2])["errors"][0]["message"]
        else:
            assert file.look("stats")["blocked"] == 2
            assert file.look("show", task=placed[2])["waits_for"] == placed[1]
            assert states == {
                placed[0]: "waiting",
                placed[1]: "blocked",
                placed[2]: "blocked",
                **dict.fromkeys(group[0], "waiting"),
                group[1]: "running",
            }
            taken = file.transact(lambda store: store.take([Want(frozenset({"a", "add"}), 9)], 7))
            file.transact(lambda store: store.settle([(one, Ending("done", b"5")) for one in taken]))
            states = {task["task"]: task["state"] for task in file.look("list")["tasks"]}
            assert (states[placed[1]], states[group[1]]) == ("waiting", "done")


def test_who_waits_is_told_also_where_it_is_lost_who_is_to_be(tmp_path: Path) -> None:
    path, new = tmp_path / "tasks.db", tmp_path / "new.db"
    with QueueFile(path, make=True) as file:
        steps = [Step(message("a", "[]"), takes=False), Step(message("b", "[null]"))]
        _, last = file.transact(lambda store: store.composer.compose(steps))
        file.transact(lambda store: store.db.execute("DELETE FROM link"))
    recover(str(path), str(new))
    with QueueFile(new) as file:
        taken = file.transact(lambda store: store.take([Want(frozenset({"a"}), 9)], 7))
        file.transact(lambda store: store.settle([(one, Ending("done", b"5")) for one in taken]))
        assert file.look("show", task=last)["state"] == "waiting"


def test_who_would_take_something_nobody_knows_where_is_a_dead_letter(tmp_path: Path) -> None:
    path, new = tmp_path / "tasks.db", tmp_path / "new.db"
    with QueueFile(path, make=True) as file:
        steps = [Step(message("a", "[]"), takes=False), Step(message("b", "[null]")), Step(message("c", "[null]"))]
        placed = file.transact(lambda store: store.composer.compose(steps))
        file.transact(
            lambda store: store.db.execute("UPDATE blocked SET hole = 3 WHERE id = ?", (parse_id(placed[1]),))
        )
    recover(str(path), str(new))
    with QueueFile(new) as file:
        assert [file.look("show", task=id)["state"] for id in placed] == ["waiting", "failed", "failed"]


def test_a_group_of_which_it_is_lost_where_it_ends_has_no_tasks_of_others(tmp_path: Path) -> None:
    path, new = tmp_path / "tasks.db", tmp_path / "new.db"
    with QueueFile(path, make=True) as file:
        groups = [
            file.transact(lambda store: store.composer.enqueue_group([message()] * 2, [], None, is_open=False))[1]
            for _ in range(3)
        ]
        file.transact(lambda store: store.db.execute("UPDATE member SET last = last + 1000000000000000"))
    recover(str(path), str(new))
    with QueueFile(new) as file:
        taken = file.transact(lambda store: store.take([Want(frozenset({"add"}), 9)], 7))
        file.transact(lambda store: store.settle([(one, Ending("done", b"5")) for one in taken]))
        assert [file.look("show", task=id)["state"] for id in groups] == ["done"] * 3


def test_a_group_waits_no_more_for_a_member_that_is_lost(tmp_path: Path) -> None:
    path, new = tmp_path / "tasks.db", tmp_path / "new.db"
    with QueueFile(path, make=True) as file:
        head, step = Step(message("a", "[]"), takes=False), Step(message("b", "[null]"))
        fan, last = file.transact(
            lambda store: store.composer.compose([Fan([[head], [head, step]]), Step(message("c", "[]"), False, True)])
        )
        lost = parse_id(fan["tasks"][1][0])
        file.store.db.execute("DROP TRIGGER forget_link")
        file.transact(lambda store: store.db.execute("DELETE FROM task WHERE id = ?", (lost,)))
    recover(str(path), str(new))
    with QueueFile(new) as file:
        (one,) = file.transact(lambda store: store.take([Want(frozenset({"a"}), 9)], 7))
        file.transact(lambda store: store.settle([(one, Ending("done", b"5"))]))
        assert [file.look("show", task=id)["state"] for id in (fan["group"], last)] == ["done", "waiting"]


@pytest.mark.parametrize("lost", ["root", "names", "head"])
def test_where_a_page_is_lost_that_leads_to_others_they_are_saved(path: Path, tmp_path: Path, lost: str) -> None:
    before = exported(path)
    if lost == "names":  # the newest tables are known, and the others not
        damage(path, below(path, 1)[0], lambda size: b"\0" * size)
    else:
        damage(path, root_of(path, "task") if lost == "root" else 1, lambda size: b"\0" * size)
    saved = recover(str(path), str(tmp_path / "new.db"))
    after = exported(tmp_path / "new.db")
    assert saved.damaged >= 1
    assert set(before) <= set(after)
    if lost != "head":  # else it is not known which pages are free
        assert set(before) == set(after), "what was forgotten stays so"
    for id, line in before.items():
        assert line.partition(b'"call":')[2] == after[id].partition(b'"call":')[2]


@pytest.mark.slow
def test_whatever_is_damaged_what_is_saved_is_true(path: Path, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    before, whole = exported(path), path.read_bytes()
    for trial in range(4):
        data = bytearray(whole)
        for _ in range(chance.randrange(1, 12)):
            at, size = chance.randrange(len(data)), chance.choice((1, 20, PAGE, 5 * PAGE))
            data[at : at + size] = chance.randbytes(len(data[at : at + size]))
        cut = chance.choice((len(data), chance.randrange(len(data) // 2, len(data))))
        path.write_bytes(data[:cut])
        new = tmp_path / f"new{trial}.db"
        refused = ""
        try:
            recover(str(path), str(new))
        except ConfigurationError as error:
            refused = str(error)
        if refused:  # what is damaged is what kind of file it is
            assert "another program's" in refused or "newer greentask" in refused
            continue
        after = exported(new)
        same = sum(message_of(after.get(id, b"")) == message_of(line) for id, line in before.items())
        print(f"{same} of {len(before)} as they were, {len(after)} in all")
        assert same > len(before) / 4


def test_what_can_not_be_recovered_is_said(path: Path, tmp_path: Path) -> None:
    new = str(tmp_path / "new.db")
    with pytest.raises(ConfigurationError, match="there is no queue"):
        recover(str(path) + "x", new)
    with pytest.raises(ConfigurationError, match=r"is there already: name another file$"):
        recover(str(path), str(path))
    (tmp_path / "words").write_text("This is no queue. " * 1000)
    with pytest.raises(ConfigurationError, match=r"nothing of a queue is to be found in .*words"):
        recover(str(tmp_path / "words"), new)
    with sqlite3.connect(tmp_path / "other.db") as db:
        db.execute("CREATE TABLE customers (name)")
    db.close()
    with pytest.raises(ConfigurationError, match="another program's"):
        recover(str(tmp_path / "other.db"), new)
    queue = SQLiteQueue(path)
    queue.open()
    try:
        with pytest.raises(ConfigurationError, match="is served"):
            recover(str(path), new)
    finally:
        queue.close()
    assert not os.path.exists(new)
    assert not [name for name in os.listdir(tmp_path) if "part" in name]
