"""The thread that writes: what shares a commit, and what happens where the file can't be written."""

import random
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import wait
from contextlib import closing, contextmanager
from itertools import pairwise
from pathlib import Path

import pytest

from greentask.errors import ConfigurationError, QueueError, QueueFull
from greentask.queue.beside import Beside
from greentask.queue.byhand import QueueFile
from greentask.queue.interface import Step, Want
from greentask.queue.sqlite import SQLiteQueue
from support.queues import FakeClock, Taker, message
from support.waiting import wait_until

WITHIN = 10.0


def test_what_arrives_together_shares_a_commit(queue: SQLiteQueue) -> None:
    before = queue.counters()["commits"]
    futures = [queue.enqueue([message()]) for _ in range(1000)]
    wait(futures, WITHIN)
    assert len({future.result()[0] for future in futures}) == 1000
    assert queue.counters()["commits"] - before < 50


def test_a_task_that_finds_a_free_slot_costs_one_commit(queue: SQLiteQueue) -> None:
    taker = Taker(queue)
    taker.want(5)
    queue.enqueue([message()]).result(WITHIN)
    before = queue.counters()["commits"]
    queue.enqueue([message()]).result(WITHIN)
    taker.wait_for(2)
    assert queue.counters()["commits"] - before == 1


@pytest.mark.parametrize("who", ["by hand", "a server"])
def test_it_wakes_in_time_for_what_others_have_delayed(path: Path, who: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """It knows when to wake, and looks again only where others may have written."""
    monkeypatch.setattr("greentask.queue.writer.TICK", 60.0)
    queue, other = SQLiteQueue(path), SQLiteQueue(path)
    queue.open()
    try:
        taker = Taker(queue)
        taker.want(3)
        for _ in range(3):
            queue.enqueue([message(delay=3600.0)]).result(WITHIN)
        if who == "by hand":
            with QueueFile(path) as file:
                file.enqueue(message(delay=0.1))
                file.enqueue(message(at=time.time() + 0.1))
        else:
            other.open()
            other.enqueue([message(delay=0.1), message(at=time.time() + 0.1)]).result(WITHIN)
        taker.wait_for(2)
        queue.enqueue([message(delay=0.1)]).result(WITHIN)
        taker.wait_for(3)
    finally:
        queue.close()
        other.close()


def test_one_that_cannot_be_kept_is_refused_alone(queue: SQLiteQueue) -> None:
    good = [queue.enqueue([message()]) for _ in range(3)]
    bad = queue.enqueue([message(priority=2**70)])
    more = [queue.enqueue([message()]) for _ in range(3)]
    assert all(future.result(WITHIN) for future in (*good, *more))
    with pytest.raises(OverflowError):
        bad.result(WITHIN)


def test_a_result_that_cannot_be_kept_is_an_error_of_its_task_alone(queue: SQLiteQueue) -> None:
    taker = Taker(queue)
    ids = queue.enqueue([message() for _ in range(3)]).result(WITHIN)
    taker.want(3)
    for delivery in taker.wait_for(3):
        taker.settle(delivery, "done", b"1" if delivery.id != ids[1] else object())  # type: ignore[arg-type]
    wait_until(lambda: "running" not in {queue.find(id).result(WITHIN).state for id in ids})
    assert [queue.find(id).result(WITHIN).state for id in ids] == ["done", "failed", "done"]
    assert b"InvalidResult" in (queue.find(ids[1]).result(WITHIN).error or b"")


def test_nobody_waits_for_an_answer_after_the_end(queue: SQLiteQueue) -> None:
    futures = [queue.enqueue([message()]) for _ in range(5000)]
    queue.close()
    for future in futures:
        try:
            assert future.result(WITHIN)
        except QueueError:
            pass


def test_what_has_ended_is_written_at_the_end_however_much_came_before_it(path: Path) -> None:
    with closing(SQLiteQueue(path)) as queue:
        queue.open()
        taker = Taker(queue)
        (id,) = queue.enqueue([message()]).result(WITHIN)
        taker.want(1)
        (delivery,) = taker.wait_for(1)
        beside = Beside(str(path))
        with beside.turn():  # so that all of it waits
            queue.enqueue([message("other")])
            for _ in range(2):
                queue.enqueue([message("other", args='["' + "x" * 20_000_000 + '"]')])
            taker.settle(delivery)
            closer = threading.Thread(target=queue.close)
            closer.start()
            wait_until(lambda: queue._open is None, WITHIN, "it is being closed")
        closer.join(WITHIN)
        beside.close()
        queue.open()
        found = queue.find(id).result(WITHIN)
        assert found is not None
        assert (found.state, found.attempts) == ("done", 1)


@pytest.fixture
def small_queue(path: Path) -> Iterator[SQLiteQueue]:
    queue = SQLiteQueue(path, memory=10_000)
    queue.open()
    yield queue
    queue.close()


def test_what_is_handed_out_takes_a_bounded_amount_of_memory(small_queue: SQLiteQueue) -> None:
    queue = small_queue
    large = '["' + "x" * 4000 + '"]'
    taker = Taker(queue, ("add", "huge"))
    ids = queue.enqueue([message(args=large) for _ in range(20)]).result(WITHIN)
    queue.enqueue([message("huge", args='["' + "x" * 30_000 + '"]')]).result(WITHIN)
    taker.want(100)
    seen = 0
    while seen < 21:
        taker.wait_for(seen + 1)
        before = queue.counters()["commits"]
        time.sleep(0.02)
        assert queue.counters()["commits"] - before < 3, "nothing is written in vain"
        held = taker.got[seen:]
        assert sum(len(one.payload) for one in held[:-1]) < 10_000
        seen += 1
        taker.settle(held[0])
    wait_until(lambda: queue.find(ids[-1]).result(WITHIN).state == "done", WITHIN, "all have run")


def fill(queue: SQLiteQueue, pages: int) -> None:
    """Let the file have no more than so many pages from what it has."""

    def limit(store: object) -> None:
        (used,) = store.db.execute("PRAGMA page_count").fetchone()  # type: ignore[attr-defined]
        store.db.execute(f"PRAGMA max_page_count = {used + pages}")  # type: ignore[attr-defined]

    queue._writer.look(limit).result(WITHIN)


@pytest.mark.slow
def test_a_full_disk_refuses_and_loses_nothing(path: Path) -> None:
    """D2 of the faults, where SQLite says that the disk is full."""
    queue = SQLiteQueue(path)
    queue.open()
    taker = Taker(queue)
    kept = queue.enqueue([message() for _ in range(10)]).result(WITHIN)
    taker.want(10)
    taker.wait_for(10)
    fill(queue, 3)
    large = "[" + "1" * 3000 + "]"
    answers = [queue.enqueue([message("other", args=large)]).exception(WITHIN) for _ in range(30)]
    accepted = answers.count(None)
    assert {type(answer) for answer in answers[accepted:]} == {QueueFull}, "all from the first one on"
    for delivery in taker.got:
        taker.settle(delivery, "done", b'"' + b"r" * 5000 + b'"')
    with pytest.raises(QueueFull):
        queue.enqueue([message(args=large)]).result(WITHIN)
    assert queue.find(kept[0]).result(WITHIN).state == "running", "its result has no room either"
    fill(queue, 1000)
    wait_until(lambda: queue.find(kept[-1]).result(WITHIN).state == "done", WITHIN, "what had ended is written down")
    assert [queue.find(id).result(WITHIN).state for id in kept] == ["done"] * 10
    assert queue.enqueue([message(args=large)]).result(WITHIN)
    assert queue.count().result(WITHIN)["tasks"] == {"add": {"waiting": 1}, "other": {"waiting": accepted}}
    queue.close()


def test_several_threads_and_queues_lose_nothing(path: Path) -> None:
    """Two servers on one file, with callers in many threads: each task is handed out once."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    queues = [SQLiteQueue(path), SQLiteQueue(path)]
    takers = []
    for queue in queues:
        queue.open()
        takers.append(Taker(queue, ("add", "b")))
    ids: list[str] = []

    def enqueue(queue: SQLiteQueue, names: list[str]) -> None:
        for name in names:
            ids.extend(queue.enqueue([message(name) for _ in range(3)]).result(WITHIN))

    threads = [
        threading.Thread(target=enqueue, args=(queue, [chance.choice(("add", "b")) for _ in range(10)]))
        for queue in queues
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for _ in range(20):
        for queue, taker in zip(queues, takers):
            queue.want([Want(taker.tasks, chance.randint(1, 40))])
    for thread in threads:
        thread.join()
    for queue, taker in zip(queues, takers):
        queue.want([Want(taker.tasks, 500)])
    wait_until(lambda: sum(len(taker.got) for taker in takers) >= 480)
    assert sorted(one.id for taker in takers for one in taker.got) == sorted(ids)
    for queue in queues:
        queue.close()


# ---- Where the file can't even be read


@contextmanager
def without(path: Path, table: str) -> Iterator[None]:
    """Meanwhile that table can't be read, as where its pages are damaged."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as db:
        db.execute(f"ALTER TABLE {table} RENAME TO away")
        try:
            yield
        finally:
            db.execute(f"ALTER TABLE away RENAME TO {table}")


@pytest.mark.parametrize("table", ["later", "holder", "forget"])
def test_where_it_can_not_be_read_everybody_is_told_and_it_goes_on(
    queue: SQLiteQueue, path: Path, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greentask.queue.writer.TICK", 0.02)  # it looks around in each turn
    taker = Taker(queue)
    kept = queue.enqueue([message()]).result(WITHIN)
    taker.want(2)
    taker.wait_for(1)
    with without(path, table):
        taker.settle(taker.got[0])
        until = time.monotonic() + 0.5
        while time.monotonic() < until:
            found, refused = queue.find(kept[0]), queue.enqueue([message("other", delay=1e6)])
            assert isinstance(refused.exception(WITHIN), QueueError)
            assert found.exception(WITHIN) is None
    wait_until(lambda: queue.find(kept[0]).result(WITHIN).state == "done", WITHIN, "what had ended is written down")
    wait_until(lambda: queue.enqueue([message()]).exception(WITHIN) is None, WITHIN, "it can be written again")
    assert len(taker.wait_for(2)) == 2


def test_the_thread_outlives_whatever_goes_wrong_before_it_sleeps(
    queue: SQLiteQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    ticks, failures = queue._writer._store.ticks, [MemoryError(), sqlite3.DatabaseError("malformed")]
    moment = ticks.moment

    def fail_at_first() -> float | None:
        if failures:
            raise failures.pop()
        return moment()

    monkeypatch.setattr(ticks, "moment", fail_at_first)
    wait_until(lambda: queue.enqueue([message()]).exception(WITHIN) is None, WITHIN, "it goes on")
    wait_until(lambda: not failures, WITHIN, "it has slept again")


def test_what_it_does_by_itself_and_can_not_do_is_tried_again_after_a_pause(
    queue: SQLiteQueue, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    taker = Taker(queue)
    store = queue._writer._store
    tried: list[float] = []

    def fail(*_given: object) -> None:
        tried.append(time.monotonic())
        raise ZeroDivisionError

    queue.enqueue([message()]).result(WITHIN)
    monkeypatch.setattr(store, "take", fail)
    taker.want(1)
    wait_until(lambda: len(tried) >= 4, WITHIN, "it is to be handed out")
    pauses = [after - before for before, after in pairwise(tried)]
    assert min(pauses) > 0.1, "it does not spin"
    monkeypatch.undo()
    assert len(taker.wait_for(1)) == 1
    assert caplog.text.count("could not write down what happened") == 1


def test_who_was_silent_is_told_also_where_that_is_not_written(queue: SQLiteQueue, path: Path) -> None:
    taker = Taker(queue)
    queue.enqueue([message()]).result(WITHIN)
    taker.want(1)
    taker.wait_for(1)
    with without(path, "later"):
        with closing(sqlite3.connect(path, isolation_level=None, timeout=60)) as db:
            db.execute("DELETE FROM holder")  # as others do that take everything back
        wait_until(lambda: taker.lost, WITHIN, "it is lost")
    assert taker.lost == 1


def test_a_sign_of_life_that_was_not_written_leaves_no_trace(path: Path) -> None:
    queue = SQLiteQueue(path)
    queue.open()
    taker = Taker(queue)
    queue.enqueue([message()]).result(WITHIN)
    taker.want(1)
    taker.wait_for(1)
    holders = queue._open[1]  # type: ignore[index]
    with without(path, "later"):
        beats = holders._beat
        wait_until(lambda: holders._beat > beats, WITHIN, "a beat that is rolled back")
    wait_until(lambda: queue.enqueue([message("other")]).exception(WITHIN) is None, WITHIN, "it can be written again")
    queue.close()
    queue.open()
    taker = Taker(queue)
    taker.want(1)
    assert taker.wait_for(1)[0].losses == 0, "it was left in good order"
    queue.close()


def test_a_change_that_can_not_be_made_costs_the_others_no_commit(queue: SQLiteQueue, path: Path) -> None:
    before = queue.counters()["commits"]
    beside = Beside(str(path))
    with beside.turn():
        good = [queue.enqueue([message()]) for _ in range(300)]
        bad = [queue.compose([Step(message(f"new-{number}"))], "0" * 13) for number in range(5)]
        more = [queue.enqueue([message("new-0")]) for _ in range(300)]
    beside.close()
    assert all(future.result(WITHIN) for future in (*good, *more))
    assert all(isinstance(future.exception(WITHIN), QueueError) for future in bad)
    assert queue.counters()["commits"] - before < 10


def test_nothing_is_kept_in_a_file_that_was_removed(queue: SQLiteQueue, path: Path) -> None:
    taker = Taker(queue)
    kept = queue.enqueue([message()]).result(WITHIN)
    taker.want(1)
    (delivery,) = taker.wait_for(1)
    away = path.with_name("away.db")
    path.rename(away)
    taker.settle(delivery)
    for _ in range(2):
        with pytest.raises(QueueError, match="another one is in its place"):
            queue.enqueue([message()]).result(WITHIN)
        path.write_bytes(b"another one")
    away.rename(path)
    wait_until(lambda: queue.enqueue([message("other")]).exception(WITHIN) is None, WITHIN, "it goes on")
    assert queue.find(kept[0]).result(WITHIN).state == "done"


@pytest.mark.parametrize("end", ["-wal", "-shm"])
def test_nothing_is_written_where_only_those_see_it_who_have_it_open(
    queue: SQLiteQueue, path: Path, clock: FakeClock, end: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("greentask.queue.schema._CLOSES_WITHIN", 0.2)
    taker = Taker(queue)
    ids = queue.enqueue([message(), message("other")]).result(WITHIN)
    taker.want(1)
    (delivery,) = taker.wait_for(1)
    log = Path(f"{path}{end}")
    log.rename(path.with_name("away"))
    wait_until(lambda: queue.enqueue([message()]).exception(WITHIN) is not None, WITHIN, "it is seen")
    with pytest.raises(QueueError, match=rf"tasks\.db{end}' was removed.*stop all servers"):
        queue.enqueue([message()]).result(WITHIN)
    path.with_name("away").rename(log)
    wait_until(lambda: queue.enqueue([message()]).exception(WITHIN) is None, WITHIN, "it was put back")
    log.unlink()
    wait_until(lambda: queue.enqueue([message()]).exception(WITHIN) is not None, WITHIN, "it is seen again")
    taker.settle(delivery)
    with pytest.raises(ConfigurationError, match=r"servers have it, and .* was removed"):
        SQLiteQueue(path).open()
    with pytest.raises(ConfigurationError, match=r"servers have it, and .* was removed"):
        QueueFile(path)
    queue.close()
    again = SQLiteQueue(path, clock=clock.as_clock())
    again.open()
    try:
        states = [found.state for id in ids if (found := again.find(id).result(WITHIN)) is not None]
    finally:
        again.close()
    assert states == ["done", "waiting"], "nothing is lost, neither what had ended meanwhile"
