"""A queue in a file, as its owner sees it: in the hub, without waiting for the disk."""

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from greentask.errors import ConfigurationError, Overloaded, QueueError
from greentask.queue import sqlite
from greentask.queue.beside import Beside
from greentask.queue.interface import Found, Step
from greentask.queue.service import TaskQueue
from greentask.queue.sqlite import SQLiteQueue
from support.queues import FakeClock, Taker, message
from support.waiting import wait_until

WITHIN = 10.0


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"lease": float("nan")}, "lease of a queue is in seconds above 0, not nan"),
        ({"lease": 1.5}, "the lease of a queue is in seconds, 2 or more, not 1.5"),
        ({"result_ttl": "1d"}, "result_ttl of a queue is in seconds above 0, not '1d'"),
        ({"result_ttl": 0}, "result_ttl of a queue is in seconds above 0, not 0"),
        ({"key_ttl": float("inf")}, "key_ttl of a queue is in seconds from 0 on, not inf"),
        ({"dead_limit": 1.5}, "dead_limit of a queue must be a whole number, not 1.5"),
        ({"dead_limit": -1}, "dead_limit of a queue must be at least 0, not -1"),
        ({"max_taken": 1 << 30}, "max_taken of a queue is in bytes, from 1 to 536,870,912, not 1073741824"),
        ({"memory": 0}, "memory of a queue must be at least 1, not 0"),
        ({"greenlets": True}, "greenlets of a queue must be a whole number, not True"),
        ({"max_batch": "100"}, "max_batch of a queue must be a whole number, not '100'"),
    ],
)
def test_what_can_be_no_limit_is_said_before_there_is_a_file(path: Path, options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TaskQueue(path, **options)
    assert str(caught.value) == said
    assert not path.exists()


def test_a_limit_may_be_larger_than_a_files_numbers(path: Path) -> None:
    queue = SQLiteQueue(path, dead_limit=10**20)
    queue.open()
    try:
        wait_until(lambda: queue._writer._ticked_at)
        assert len(queue.enqueue([message()]).result(WITHIN)) == 1
    finally:
        queue.close()


def test_a_task_goes_in_and_its_result_comes_out(queue: SQLiteQueue) -> None:
    taker = Taker(queue)
    taker.want(5)
    (id,) = queue.enqueue([message()]).result(WITHIN)
    (delivery,) = taker.wait_for(1)
    assert (delivery.id, delivery.task, delivery.payload, delivery.attempt) == (id, "add", b'{"args":[1, 2]}', 1)
    heard: list[Found] = []
    queue.follow(id, heard.append)
    assert queue.find(id).result(WITHIN).state == "running"
    taker.settle(delivery, "done", b"3")
    (found,) = wait_until(lambda: heard)
    assert (found.state, found.result) == ("done", b"3")
    found = queue.find(id).result(WITHIN)
    assert (found.state, found.result, found.attempts) == ("done", b"3", 1)


def test_what_ended_before_is_told_as_well(queue: SQLiteQueue) -> None:
    taker = Taker(queue)
    taker.want(1)
    (id,) = queue.enqueue([message()]).result(WITHIN)
    taker.settle(taker.wait_for(1)[0], "failed", b'{"type":"ValueError","message":"no"}')
    heard: list[Found] = []
    queue.follow(id, heard.append)
    (found,) = wait_until(lambda: heard)
    assert (found.state, found.error) == ("failed", b'{"type":"ValueError","message":"no"}')


def test_no_more_are_handed_out_than_there_are_slots(queue: SQLiteQueue) -> None:
    taker = Taker(queue)
    queue.enqueue([message() for _ in range(10)]).result(WITHIN)
    taker.want(3)
    taker.wait_for(3)
    queue.enqueue([message()]).result(WITHIN)  # another transaction
    assert len(taker.got) == 3
    taker.want(20)
    taker.wait_for(11)


def test_a_task_waits_until_its_moment(queue: SQLiteQueue, clock: FakeClock) -> None:
    taker = Taker(queue)
    taker.want(5)
    (id,) = queue.enqueue([message(delay=60.0)]).result(WITHIN)
    assert queue.find(id).result(WITHIN).state == "scheduled"
    clock.pass_by(59)
    queue.enqueue([message("other")]).result(WITHIN)
    assert not taker.got
    clock.pass_by(2)
    taker.wait_for(1)


def test_what_was_not_settled_is_handed_out_again_after_a_close(path: Path, clock: FakeClock) -> None:
    first, second = SQLiteQueue(path), SQLiteQueue(path)
    first.open()
    taker = Taker(first)
    first.enqueue([message(), message()]).result(WITHIN)
    taker.want(2)
    one, two = taker.wait_for(2)
    taker.settle(one)
    first.close()
    second.open()
    try:
        taker = Taker(second)
        taker.want(2)
        (again,) = taker.wait_for(1)
        assert (again.id, again.attempt) == (two.id, 1), "a stop in good order is no attempt"
        assert second.find(one.id).result(WITHIN).state == "done"
    finally:
        second.close()


def test_who_follows_a_group_hears_of_it_from_whichever_server(path: Path) -> None:
    queues = [SQLiteQueue(path), SQLiteQueue(path)]
    for queue in queues:
        queue.open()
    try:
        _, group, (body,) = queues[0].enqueue_group([message()] * 3, [Step(message(args="[null]"))]).result(WITHIN)
        heard: list[list[bytes]] = [[], []]
        ended: list[Found] = []
        for queue, reports in zip(queues, heard):
            queue.follow(group, ended.append, reports.append)
            queue.find(group).result(WITHIN)
        taker = Taker(queues[1])
        taker.want(3)
        taker.wait_for(3)
        for number, delivery in enumerate(list(taker.got)):
            taker.settle(delivery, "done", b"%d" % number)
            if number == 0:
                report = b'{"total":3,"done":1,"failed":0}'
                wait_until(lambda report=report: all(report in reports for reports in heard))  # type: ignore[misc]
        wait_until(lambda: len(ended) == 2, 2.0, "both have heard of its end")
        assert {found.result for found in ended} == {b'{"total":3,"done":3,"failed":0}'}
        taker.want(1)
        assert (taker.wait_for(4)[3].id, taker.got[3].payload) == (body, b'{"args":[[0,1,2]]}')
    finally:
        for queue in queues:
            queue.close()


def test_two_servers_share_a_file(path: Path) -> None:
    queues = [SQLiteQueue(path), SQLiteQueue(path)]
    takers = []
    for queue in queues:
        queue.open()
        takers.append(Taker(queue))
        takers[-1].want(1000)
    try:
        ids = [id for queue in queues for id in queue.enqueue([message() for _ in range(500)]).result(WITHIN)]
        wait_until(lambda: sum(len(taker.got) for taker in takers) == 1000)
        assert sorted(delivery.id for taker in takers for delivery in taker.got) == sorted(ids)
        heard: list[Found] = []
        followed = takers[0].got[0]
        queues[1].follow(followed.id, heard.append)
        queues[1].find(followed.id).result(WITHIN)
        takers[0].settle(followed)
        assert wait_until(lambda: heard, 0.5, "news from the other server, before its next look")[0].state == "done"
    finally:
        for queue in queues:
            queue.close()


def test_a_program_that_looks_does_not_take_the_log_away_from_two_servers_of_one_process(path: Path) -> None:
    """Who opens and closes a file loses all locks of his process on it, SQLite's among them."""
    queues = [SQLiteQueue(path), SQLiteQueue(path)]
    for queue in queues:
        queue.open()
    try:
        queues[0].enqueue([message()]).result(WITHIN)
        look = f"import sqlite3; db = sqlite3.connect({str(path)!r}); print(*db.execute('SELECT count(*) FROM task'))"
        told = subprocess.run([sys.executable, "-c", f"{look}; db.close()"], capture_output=True, check=True)
        assert told.stdout == b"(1,)\n"
        assert path.with_name("tasks.db-wal").exists()
    finally:
        for queue in queues:
            queue.close()


def test_a_closed_queue_says_so(queue: SQLiteQueue) -> None:
    queue.close()
    with pytest.raises(QueueError, match="closed"):
        queue.enqueue([message()])


def test_a_queue_that_can_not_be_closed_in_time_says_so(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sqlite, "_CLOSED_WITHIN", 0.05)
    queue = SQLiteQueue(path)
    queue.open()
    beside = Beside(str(path))
    with beside.turn():
        queue.close()
        (told,) = caplog.messages
    assert told.startswith(f"queue {str(path)!r} could not be closed within 0.05 s: what it had")
    beside.close()


def test_one_look_for_which_there_was_no_thread_costs_no_others(
    queue: SQLiteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr("greentask.queue.reader._start_thread", refuse)
        with pytest.raises(Overloaded, match="can't start new thread"):
            queue.count()
    assert queue.count().result(WITHIN)["waiting"] == 0
