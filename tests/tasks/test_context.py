"""The running task's view of itself."""

import contextvars
import dataclasses
import threading
import time
from typing import Any

import gevent
import pytest

import greentask
from greentask.tasks.context import RunningTask, current, enter


def test_outside_of_a_task_there_is_something_harmless() -> None:
    assert current() == RunningTask()
    assert (current().id, current().name, current().deadline, current().remaining()) == (None, None, None, None)
    current().progress(1, 2, "nobody hears of it")
    assert greentask.current is current


def test_what_is_entered_is_current_until_it_is_left() -> None:
    running = RunningTask(7, "send_mail", time.monotonic() + 100)
    enter(running)
    try:
        assert current() is running
        remaining = current().remaining()
        assert remaining is not None
        assert 90 < remaining <= 100
    finally:
        enter(None)
    assert current() == RunningTask()


def test_a_deadline_that_has_passed_leaves_nothing() -> None:
    assert RunningTask(deadline=time.monotonic() - 5).remaining() == 0.0
    assert RunningTask(deadline=0.0).remaining() == 0.0


def test_progress_is_what_was_said_and_no_more() -> None:
    reports: list[dict[str, Any]] = []
    running = RunningTask(report=reports.append)
    running.progress(0)
    running.progress(120, 1000, "a mail every 50 ms")
    running.progress(0.5, total=0, note="")
    assert reports == [
        {"done": 0},
        {"done": 120, "total": 1000, "note": "a mail every 50 ms"},
        {"done": 0.5, "total": 0, "note": ""},
    ]


def test_a_running_task_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        RunningTask().id = 5  # type: ignore[misc]


def test_every_greenlet_has_its_own() -> None:
    seen: dict[str, Any] = {}

    def run(name: str) -> None:
        seen[f"before {name}"] = current().name
        enter(RunningTask(name=name))
        gevent.sleep(0)
        seen[f"in {name}"] = current().name

    gevent.joinall([gevent.spawn(run, "one"), gevent.spawn(run, "two")], raise_error=True)
    assert seen == {"before one": None, "before two": None, "in one": "one", "in two": "two"}
    assert current() == RunningTask()


def test_a_greenlet_takes_it_along_where_it_is_told_to() -> None:
    enter(RunningTask(name="main"))
    try:
        along = gevent.spawn(contextvars.copy_context().run, current)
        without = gevent.spawn(current)
        gevent.joinall([along, without], raise_error=True)
    finally:
        enter(None)
    assert (along.value.name, without.value.name) == ("main", None)


def test_a_thread_begins_without_one() -> None:
    seen: list[RunningTask] = []
    enter(RunningTask(name="main"))
    try:
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join()
    finally:
        enter(None)
    assert seen == [RunningTask()]
