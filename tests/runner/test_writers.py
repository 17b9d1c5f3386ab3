"""Calls of a task of which many large results are being written."""

from collections.abc import Generator
from typing import Any

import gevent
import pytest
from gevent.event import Event

from greentask.runner.writers import Writers
from support.waiting import wait_until


class Calls:
    """Calls of tasks that write until they are told to end."""

    def __init__(self) -> None:
        self.writers = Writers()
        self.begun: list[int] = []
        self.ends = [Event() for _ in range(12)]

    def spawn(self, number: int, task: str = "big") -> Any:
        return gevent.spawn(self.call, number, task)

    def call(self, number: int, task: str) -> None:
        self.writers.wait(task)
        self.begun.append(number)
        self.writers.run(task, self.write(number))

    def write(self, number: int) -> Generator[None, None, None]:
        while not self.ends[number].is_set():
            yield

    def begun_after_a_while(self) -> list[int]:
        gevent.sleep(0.02)
        return self.begun


@pytest.fixture
def calls() -> Calls:
    return Calls()


def test_the_next_one_begins_when_one_is_written(calls: Calls) -> None:
    greenlets = [calls.spawn(number) for number in range(10)]
    assert calls.begun_after_a_while() == [0, 1, 2, 3]
    calls.ends[2].set()
    wait_until(lambda: calls.begun == [0, 1, 2, 3, 4])
    assert calls.begun_after_a_while() == [0, 1, 2, 3, 4]
    for end in calls.ends:
        end.set()
    gevent.joinall(greenlets, timeout=20, raise_error=True)
    assert calls.begun == list(range(10))
    assert calls.writers.of == {}


def test_other_tasks_wait_for_nothing(calls: Calls) -> None:
    greenlets = [calls.spawn(number) for number in range(6)]
    assert calls.begun_after_a_while() == [0, 1, 2, 3]
    greenlets.append(calls.spawn(11, "other"))
    wait_until(lambda: 11 in calls.begun)
    for end in calls.ends:
        end.set()
    gevent.joinall(greenlets, timeout=20, raise_error=True)


def test_one_that_is_killed_as_it_waits_or_is_woken_keeps_nobody_waiting(calls: Calls) -> None:
    greenlets = [calls.spawn(number) for number in range(8)]
    assert calls.begun_after_a_while() == [0, 1, 2, 3]
    greenlets[4].kill()
    calls.ends[0].set()
    greenlets[0].join()  # the next one is woken by now, and has not run yet
    greenlets[5].kill()
    wait_until(lambda: set(calls.begun) >= {0, 1, 2, 3, 6} or 5 in calls.begun)
    for end in calls.ends:
        end.set()
    gevent.joinall(greenlets, timeout=20)
    assert {6, 7} <= set(calls.begun)
    assert calls.writers.of == {}
