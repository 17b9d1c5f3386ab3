"""A queue as lines of JSON, and back."""

import json
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greentask.errors import ConfigurationError
from greentask.queue import transfer
from greentask.queue.byhand import QueueFile
from greentask.queue.interface import Ending, Fan, Step, Want
from greentask.queue.managing import STATES, Filter
from greentask.queue.store import Store
from greentask.queue.transfer import Imported, export_tasks, import_tasks
from greentask.wire.chain import GROUP
from support.queues import message

HEAD, END = b'{"greentask":"queue","version":2}\n', b'{"greentask":"end","tasks":1}\n'


@pytest.fixture
def file(path: Path) -> Iterator[QueueFile]:
    with QueueFile(path, make=True) as file:
        yield file


@pytest.fixture
def other(tmp_path: Path) -> Iterator[QueueFile]:
    with QueueFile(tmp_path / "other.db", make=True) as file:
        yield file


def lines(file: QueueFile, wanted: Filter | None = None) -> list[bytes]:
    with file.moment() as store:
        return list(export_tasks(store, wanted or Filter()))


def one_of_each(file: QueueFile) -> None:
    """A task in each state."""
    store = file.store

    keys = {"key": "k", "key_ttl": 7.0, "singleton": "s"}

    def make(_: object) -> None:
        store.enqueue([message(f"b{number}", priority=number) for number in range(6)])
        store.enqueue([message("later", delay=1000.0, ttl=5000.0), message("at", at=store.clock.wall() + 500, **keys)])
        names = frozenset({"b0", "b1", "b2", "b3", "b4"})
        taken = {one.task: one for one in store.take([Want(names, 5)], 7)}
        store.settle(
            [
                (taken["b0"], Ending("done", b'{"text":"a\\nb", "n":1.5}')),
                (taken["b1"], Ending("failed", b'{"type":"ValueError","message":"no","traceback":"T"}')),
                (taken["b2"], Ending("retry", b'{"type":"OSError","message":"no"}', 50.0)),
                (taken["b3"], Ending("lost", b'{"type":"WorkerLost","message":"no"}')),
            ]
        )
        store.attempts.note(taken["b4"].handle[0], 1, b'{"type":"WorkerLost","message":"its server"}', server=True)

    file.transact(make)
    revoked = next(task["task"] for task in file.look("list")["tasks"] if task["name"] == "b5")
    file.change("revoke", [revoked])


def seen(file: QueueFile) -> list[dict[str, Any]]:
    """What is known of all tasks, without what depends on the moment."""
    told = []
    for task in file.look("list")["tasks"]:
        found = file.look("show", task=task["task"])
        for name in ("due_in", "expires_in"):
            if name in found:
                found[name] = round(found[name] / 20)
        told.append(found)
    return told


def test_a_queue_goes_there_with_all_that_is_known(file: QueueFile, other: QueueFile) -> None:
    one_of_each(file)
    assert {task["state"] for task in seen(file)} == set(STATES) - {"expired", "blocked"}
    assert import_tasks(other, lines(file)) == Imported(new=8)
    before, after = seen(file), seen(other)
    running = next(task for task in before if task["state"] == "running")
    assert running["name"] == "b4"
    running |= {"state": "waiting", "attempts": 0}  # it is tried again, and not by whoever has it here
    assert after == before
    # The rest of what a file knows: the attempts that count, keys, and what is forgotten when.
    for query in (
        "SELECT id, failures, losses FROM later ORDER BY id",
        "SELECT * FROM key",
        "SELECT id FROM forget",
        "SELECT lane > 0, key, id FROM single",
        "SELECT id, single FROM task WHERE single IS NOT NULL",
        "SELECT id, attempt, server FROM failure",
        "SELECT at > 0, id FROM expiry",
    ):
        there = other.store.db.execute(query).fetchall()
        assert there == file.store.db.execute(query).fetchall()
        assert there


def test_what_waits_for_others_goes_on_where_it_is_imported(file: QueueFile, other: QueueFile) -> None:
    def run(store: Store) -> list[bytes]:
        taken = store.take([Want(frozenset({"a", "b", "c"}), 9)], 7)
        store.settle([(one, Ending("done", b"%d" % number)) for number, one in enumerate(taken)])
        return [one.payload for one in taken]

    fan = Fan([[Step(message("b", "[null]"))], [Step(message("b", "[null]"))]])
    chain = [Step(message("a"), False), fan, Step(message("c", "[null]"))]
    file.transact(lambda store: store.composer.compose(chain))
    file.transact(run)
    assert import_tasks(other, lines(file)) == Imported(new=5)
    assert other.transact(run) == [b'{"args":[0]}'] * 2
    assert other.transact(run) == [b'{"args":[[0,1]]}']


@pytest.mark.parametrize("names", [{"key": "order 5"}, {"singleton": "order 5"}])
def test_what_follows_a_task_with_a_key_is_known_where_it_is_imported(
    file: QueueFile, other: QueueFile, names: dict[str, Any]
) -> None:
    inner = Fan([[Step(message("c", "[null]")), Step(message("c", "[null]"))], [Step(message("d", "[null]"))]])
    fan = Fan([[Step(message("b", "[null]"))], [inner]])
    chain = [Step(message("a", **names), False), fan, Step(message("e", "[null]"))]
    placed = file.transact(lambda store: store.composer.compose(chain))
    assert len(placed) == 3
    exported = lines(file)
    assert import_tasks(other, exported) == Imported(new=len(exported) - 2)
    assert other.transact(lambda store: store.composer.compose(chain)) == placed
    again = [json.loads(line) for line in lines(other)[1:]]
    assert again == [json.loads(line) for line in exported[1:]]


def test_what_is_kept_for_a_group_is_counted_once_where_it_is_imported(file: QueueFile, other: QueueFile) -> None:
    def run(file: QueueFile, slots: int) -> None:
        taken = file.transact(lambda store: store.take([Want(frozenset("ab"), slots)], 7))
        assert len(taken) == slots
        file.transact(lambda store: store.settle([(one, Ending("done", b"1")) for one in taken]))

    then = [Step(message("b", "[null]"))]
    file.transact(lambda store: store.composer.enqueue_group([message("a")] * 5, then, None, is_open=False))
    run(file, 3)
    assert import_tasks(other, lines(file)) == Imported(new=7)
    for one in (file, other):
        assert one.look("stats")["ended"] == 0
        run(one, 2)
        assert one.look("stats")["ended"] == 6
        run(one, 1)
        assert one.look("stats")["ended"] == 7


@pytest.mark.parametrize(("how", "body"), [("done", b"5"), ("failed", b'{"type":"ValueError","message":"no"}')])
def test_what_ends_while_others_are_imported_is_told_to_who_waits_for_it(
    file: QueueFile, other: QueueFile, monkeypatch: pytest.MonkeyPatch, how: Any, body: bytes
) -> None:
    """The servers of the file run what is there already."""
    chain = [Step(message("a"), False), Step(message("b", "[null]"))]
    first, second = file.transact(lambda store: store.composer.compose(chain))
    monkeypatch.setattr(transfer, "_MOST", 1)  # of one transaction
    head, *tasks, end = lines(file)

    def arriving() -> Iterator[bytes]:
        yield from (head, tasks[0])
        (taken,) = other.transact(lambda store: store.take([Want(frozenset("a"), 1)], 7))
        other.transact(lambda store: store.settle([(taken, Ending(how, body))]))
        yield from (tasks[1], end)

    assert import_tasks(other, arriving()) == Imported(new=2)
    found = other.look("show", task=second)
    assert (found["state"], found["args"]) == (("waiting", [5]) if how == "done" else ("failed", [None]))
    assert how == "done" or found["failed_with"] == first


def test_what_follows_a_task_that_is_known_waits_for_it(file: QueueFile, other: QueueFile) -> None:
    first = file.enqueue(message("a"))
    assert import_tasks(other, lines(file)) == Imported(new=1)
    (second,) = file.transact(lambda store: store.composer.compose([Step(message("b", "[null]"))], first))
    assert import_tasks(other, lines(file)) == Imported(new=1, known=1)
    (taken,) = other.transact(lambda store: store.take([Want(frozenset("a"), 1)], 7))
    other.transact(lambda store: store.settle([(taken, Ending("done", b"5"))]))
    assert other.look("show", task=second)["args"] == [5]


def test_what_waits_for_one_that_was_left_out_does_not_wait_for_ever(file: QueueFile, other: QueueFile) -> None:
    chain = [Step(message("a"), False), Step(message("b", "[null]")), Step(message("b", "[null]"))]
    _, second, third = file.transact(lambda store: store.composer.compose(chain))
    messages = [message("a") for _ in range(3)]
    made = file.transact(
        lambda store: store.composer.enqueue_group(messages, [Step(message("b", "[null]"))], None, is_open=False)
    )
    group, (last,) = made[1:]
    assert import_tasks(other, [*lines(file, Filter(name=GROUP))]) == Imported(new=1)
    assert import_tasks(other, lines(file, Filter(name="b"))) == Imported(new=3)
    shown = [other.look("show", task=one) for one in (second, third)]
    assert [one["state"] for one in shown] == ["failed"] * 2
    assert shown[1]["errors"][0]["message"] == "what it waits for was not imported"
    assert other.look("show", task=last)["state"] == "blocked"
    assert other.change("revoke", [group]) == [group]
    assert [other.look("show", task=one)["state"] for one in (group, last)] == ["done", "failed"]


def test_what_is_imported_twice_is_there_once(file: QueueFile, other: QueueFile) -> None:
    one_of_each(file)
    exported = lines(file)
    with pytest.raises(ConfigurationError, match="not complete, it breaks off after line 5: 4 tasks are kept"):
        import_tasks(other, exported[:5])
    assert import_tasks(other, exported) == Imported(new=4, known=4)
    before = seen(other)
    assert import_tasks(other, exported) == Imported(known=8)
    assert import_tasks(file, exported) == Imported(known=8)
    assert [task["task"] for task in before] == [task["task"] for task in seen(other)]


def test_an_older_export_does_not_say_its_end(file: QueueFile, other: QueueFile) -> None:
    file.enqueue(message())
    head, task, _ = lines(file)
    assert import_tasks(other, [head.replace(b'"version":2', b'"version":1'), task]) == Imported(new=1)


def test_a_key_that_another_task_has_keeps_one_out(file: QueueFile, other: QueueFile) -> None:
    file.enqueue(message(key="order 5"))
    other.enqueue(message(key="order 5"))
    assert import_tasks(other, lines(file)) == Imported(keys=1)


def test_a_singleton_that_waits_keeps_another_one_out(file: QueueFile, other: QueueFile) -> None:
    file.enqueue(message(singleton="a"))
    other.enqueue(message(singleton="a"))
    assert import_tasks(other, lines(file)) == Imported(keys=1)


def test_only_what_fits_is_exported(file: QueueFile) -> None:
    one_of_each(file)
    assert len(lines(file, Filter(frozenset({"failed"})))) == 3
    _, line, end = lines(file, Filter(name="b0"))
    assert json.loads(end) == {"greentask": "end", "tasks": 1}
    assert json.loads(line)["result"] == {"text": "a\nb", "n": 1.5}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"enqueued": 10**400}, "no task of a queue"),
        ({"errors": [{"attempt": 1, "at": 0, "error": 5}]}, "an error is an object"),
        ({"errors": [{"attempt": 1, "at": 0, "error": {}}] * 2}, "don't go together"),
        ({"composed": {"waiters": [None]}}, "an id is a whole number"),
        ({"composed": {"waiters": [2**63]}}, "an id is a whole number"),
        ({"composed": {"members": [[5, 3]]}}, "which is the first"),
        ({"composed": {"members": [[5, 5], [5, 6]]}}, "don't go together"),
        ({"composed": {"blocked": [0, 1, 1, 0, 0, 0, None, 7, 9, 0, None]}}, "a count is a whole number"),
        ({"composed": {"blocked": [0, 1, 1, 0, 0, 0, 0, 7, 4, 0, None]}}, "there is no null"),
        ({"composed": {"blocked": [0, 1, 1, 0, 0, 0, 0, 7, 9, "x", None]}}, "delay is a number"),
        ({"plan": "1M89JMZ1P2QDY"}, "a plan is a list"),
        ({"plan": ["1M89JMZ1P2QDY", "x"]}, "in a plan there are ids, and groups, not 'x'"),
        ({"plan": [{"group": "1M89JMZ1P2QDY", "tasks": [5]}]}, "a plan is a list"),
        ({"plan": [{"group": "1M89JMZ1P2QDY", "tasks": 5}]}, "in a plan there are ids"),
    ],
)
def test_what_no_queue_exports_is_refused(file: QueueFile, change: dict[str, Any], said: str) -> None:
    whole = {"task": "1M89JMZ1P2QDY", "name": "a", "state": "waiting", "call": {"args": [None]}}
    with pytest.raises(ConfigurationError) as caught:
        import_tasks(file, [HEAD, json.dumps({**whole, **change}).encode(), END])
    assert said in str(caught.value)
    assert file.look("list")["tasks"] == []
    assert import_tasks(file, [HEAD, json.dumps(whole).encode(), END]).new == 1


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "line 1 is missing"),
        (b"hello\n", "line 1 is no task of a queue"),
        (b'{"greentask":"queue","version":99}\n', "newer greentask"),
        (HEAD, "it breaks off after line 1: 0 tasks"),
        (HEAD + END + HEAD, "line 3 is no task of a queue: the export ends before it"),
        (HEAD + b"\n[1]\n", "line 3 is no task of a queue: it is no object"),
        (HEAD + b'{"task":"x","name":"add","state":"waiting","call":{"args":[]}}\n', "the id or the state is none"),
        (HEAD + b'{"task":"1M89JMZ1P2QDY","name":"add","state":"waiting"}\n', "'call' is missing"),
        (HEAD + b'{"task":"1M89JMZ1P2QDY","name":"add","state":"waiting","call":[]}\n', "call is an object"),
        (
            HEAD + b'{"task":"1M89JMZ1P2QDY","name":"a","state":"waiting","call":{"args":[]},"priority":"x"}\n',
            "priority",
        ),
    ],
)
def test_what_is_no_export_is_refused_with_its_line(file: QueueFile, text: bytes, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        import_tasks(file, text.splitlines(keepends=True))
    assert said in str(caught.value)
    assert file.look("list")["tasks"] == []


@pytest.mark.slow
def test_it_takes_no_more_memory_however_many_there_are(file: QueueFile, other: QueueFile) -> None:
    large = [message(args='["' + "x" * 50_000 + '"]') for _ in range(100)]
    for _ in range(12):  # 60 MB
        file.transact(lambda store: store.enqueue(large))
    tracemalloc.start()
    try:
        with file.moment() as store:
            assert import_tasks(other, export_tasks(store, Filter())) == Imported(new=1200)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 25_000_000
