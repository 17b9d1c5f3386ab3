"""Who has a queue's lock and gets nowhere, as it is seen from outside."""

import os
import time
from pathlib import Path

import pytest

from greentask.queue.byhand import QueueFile
from greentask.queue.holders import TICK
from greentask.queue.stalls import Stalls
from support.queues import LOCKS, FakeClock, holding_lock, message


@pytest.mark.parametrize("what", LOCKS)
def test_who_has_the_lock_is_found_by_the_kernels_list(path: Path, what: str) -> None:
    with QueueFile(path, make=True) as queue:
        stalls = Stalls(queue.path, time.monotonic)
        assert not stalls.is_held()
        assert stalls.holders() == []
        with holding_lock(path, what) as process:
            pid = process.pid
            assert stalls.is_held()
            assert stalls.holders([os.getpid(), pid]) == [pid]
            assert stalls.holders() == [pid], "of all processes"
            assert stalls.holders([os.getpid()]) == []
        assert not stalls.is_held()


def test_who_is_first_in_the_line_and_waits_for_another_is_not_the_one(path: Path) -> None:
    with QueueFile(path, make=True) as queue:
        stalls = Stalls(queue.path, time.monotonic)
        with holding_lock(path, "line") as waits, holding_lock(path, "sqlite") as process:
            assert stalls.holders() == [process.pid]
            assert stalls.holders([waits.pid]) == [], "it is somebody else"
            process.kill()
            process.wait()
            assert stalls.holders() == stalls.holders([waits.pid]) == [waits.pid]


def test_it_counts_for_as_long_as_the_lock_is_held_and_nothing_is_committed(path: Path, clock: FakeClock) -> None:
    with QueueFile(path, make=True) as queue:
        stalls = Stalls(queue.path, lambda: clock.steady)

        def look_in(seconds: float) -> float:
            clock.pass_by(seconds)
            return stalls.look()

        assert [look_in(TICK) for _ in range(3)] == [0.0] * 3, "nobody has it"
        with holding_lock(path, "line"):
            assert [look_in(TICK) for _ in range(3)] == [0.0, TICK, 2 * TICK]
            queue.store.begin()  # as he may who doesn't wait in line
            queue.store.enqueue([message()])
            queue.store.commit()
            assert [look_in(TICK) for _ in range(3)] == [0.0, TICK, 2 * TICK], "something was committed"
            assert look_in(60.0) == 0.0, "who looks was stopped himself, or the machine was asleep"
            assert look_in(TICK) == TICK
        assert look_in(TICK) == 0.0


def test_where_there_is_no_queue_yet_nobody_holds_it(tmp_path: Path) -> None:
    stalls = Stalls(str(tmp_path / "missing.db"), time.monotonic)
    assert (stalls.look(), stalls.holders([os.getpid()])) == (0.0, [])
