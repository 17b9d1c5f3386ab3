"""Long work in steps: one of them in each turn of the loop, however many there are."""

import time
from collections import Counter
from collections.abc import Generator, Iterator

import gevent
import pytest
from gevent.hub import get_hub

from greentask.hub import steps as hub_steps
from greentask.hub.steps import run_in_turns
from support.interrupting import at_each_moment
from support.waiting import wait_until

STEP = 0.0025  # seconds: more than what a turn has for several


class Steps:
    """Work in steps, which are written down: whose they were, and in which turn of the loop."""

    def __init__(self) -> None:
        self.turn = 0
        self.taken: list[tuple[int, str]] = []

    def count(self) -> None:
        self.turn += 1

    def work(self, name: str, steps: int, seconds: float = STEP) -> Generator[None, None, str]:
        for step in range(steps):
            if step:
                yield
            self.taken.append((self.turn, name))
            until = time.perf_counter() + seconds
            while time.perf_counter() < until:
                pass
        return name

    def of(self, name: str) -> int:
        return sum(whose == name for _, whose in self.taken)


@pytest.fixture
def steps() -> Iterator[Steps]:
    made = Steps()
    watcher = get_hub().loop.prepare()
    watcher.start(made.count)
    yield made
    watcher.stop()


def test_many_at_once_take_one_step_a_turn(steps: Steps) -> None:
    names = [str(number) for number in range(12)]
    greenlets = [gevent.spawn(run_in_turns, steps.work(name, 3)) for name in names]
    gevent.joinall(greenlets, timeout=20, raise_error=True)
    assert [greenlet.value for greenlet in greenlets] == names
    assert all(steps.of(name) == 3 for name in names)
    # The first greenlets begin in a turn of which a step may be taken already.
    assert max(Counter(turn for turn, _ in steps.taken).values()) <= 2


def test_who_has_just_come_does_not_wait_for_all_that_are_at_it(steps: Steps) -> None:
    long = [gevent.spawn(run_in_turns, steps.work("long", 5)) for _ in range(12)]
    wait_until(lambda: steps.of("long") >= 24)
    before = steps.of("long")
    assert gevent.spawn(run_in_turns, steps.work("short", 1)).get(timeout=20) == "short"
    assert steps.of("long") - before <= 4, "it waits for a turn, and not for everybody's next one"
    gevent.joinall(long, timeout=20, raise_error=True)


def test_short_work_waits_for_no_turn(steps: Steps) -> None:
    assert run_in_turns(steps.work("a", 1, 0.0)) == "a"
    turn = steps.turn
    assert [run_in_turns(steps.work("b", 1, 0.0)) for _ in range(3)] == ["b"] * 3
    assert steps.turn == turn


def test_who_is_killed_while_it_waits_holds_up_nobody(steps: Steps) -> None:
    greenlets = [gevent.spawn(run_in_turns, steps.work(str(number), 3)) for number in range(6)]
    gevent.sleep(2 * STEP)
    for greenlet in greenlets[::2]:
        greenlet.kill()
    gevent.joinall(greenlets, timeout=20)
    assert [greenlet.value for greenlet in greenlets[1::2]] == ["1", "3", "5"]
    assert gevent.spawn(run_in_turns, steps.work("next", 2)).get(timeout=20) == "next"


def test_a_ctrl_c_at_any_moment_keeps_nobody_else_from_his_turn(steps: Steps) -> None:
    for run in at_each_moment(hub_steps):
        others = [gevent.spawn(run_in_turns, steps.work("other", 3, 0.0)) for _ in range(3)]
        gevent.sleep(0)
        run(lambda: run_in_turns(steps.work("hit", 3, 0.0)))
        gevent.joinall(others, timeout=10)
        assert [other.value for other in others] == ["other"] * 3
        (lane,) = hub_steps._lanes.values()
        wait_until(lambda lane=lane: not (lane._timer.active or lane.new or lane.old), 10, "it rests")
