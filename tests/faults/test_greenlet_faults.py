"""What a task can do to the process that it shares with a thousand others."""

import collections
import gc
import itertools
import re
import socket
import time
from collections.abc import Callable, Iterator
from typing import Any

import gevent
import psutil
import pytest
from gevent import GreenletExit
from gevent.event import Event

from greentask.errors import Cancelled, CancelRequest, DeadlineExceeded, Interrupt, TimeLimit, WorkerLost
from greentask.hub import spawner
from greentask.runner import Runner, Running
from greentask.runner.greenlets import GreenletCall
from greentask.tasks.registry import Tasks
from greentask.wire.message import Call
from support.listener import Listener
from support.pools import open_files, opened_since
from support.waiting import wait_until

MB = 1024 * 1024


_others: list[gevent.Greenlet] = []


@pytest.fixture(autouse=True)
def others() -> Iterator[None]:
    """Greenlets that other tests of this process have left, whose end is not waited for here."""
    _others[:] = _alive()
    yield
    _others.clear()


class Started(Listener):
    running: Running


def start(runner: Runner, function: str, deadline: float | None = None, stream: int = 0) -> Started:
    started = Started()
    started.running = runner.start(Call(function, None, 1, stream=stream), b"", started, deadline)
    return started


def one(function: Callable[[], Any]) -> Runner:
    """A runner of one task, named t."""
    tasks = Tasks()
    tasks.add(function, name="t")
    tasks.add(lambda: "still here", name="other")
    return Runner(tasks)


class Odd(BaseException):
    def __str__(self) -> str:
        raise RuntimeError("no text")


@pytest.mark.parametrize(
    "raised",
    [
        ValueError("a"),
        Exception(),
        BaseException("b"),
        SystemExit(3),
        KeyboardInterrupt(),
        GeneratorExit(),
        GreenletExit("x"),
        gevent.Timeout(5),
        gevent.Timeout(),
        StopIteration(1),
        MemoryError(),
        RecursionError(),
        Odd(),
        Interrupt(),
        TimeLimit(),
        CancelRequest(),
        WorkerLost("another's"),
        Cancelled("another's"),
    ],
    ids=lambda raised: re.sub(r" at 0x\w+", "", repr(raised)),
)
def test_g2_raises_anything(raised: BaseException, capfd: pytest.CaptureFixture[str]) -> None:
    def task() -> None:
        gevent.sleep(0)
        raise raised

    runner = one(task)
    error = start(runner, "t").error()
    assert not isinstance(error, WorkerLost)
    if isinstance(raised, Cancelled):
        assert not isinstance(error, Cancelled)  # that is about another call, not about this one
    assert start(runner, "other").result() == "still here"
    assert capfd.readouterr().err == ""


def test_g2_what_is_raised_for_want_of_an_end_of_recursion() -> None:
    def task() -> None:
        task()

    assert isinstance(start(one(task), "t").error(), RecursionError)


def test_g3_swallows_its_timeout() -> None:
    swallowed: list[BaseException] = []
    released, begun = Event(), Event()

    def task() -> str:
        begun.set()
        while not released.is_set():
            try:
                released.wait()
            except BaseException as error:
                swallowed.append(error)
        return "too late"

    runner = one(task)
    for cancel in (False, True):
        swallowed.clear()
        released.clear()
        begun.clear()
        started = start(runner, "t", None if cancel else time.monotonic() + 0.1)
        assert begun.wait(10)
        if cancel:
            started.running.cancel()
        error = started.error()
        assert isinstance(error, Cancelled if cancel else DeadlineExceeded)
        wait_until(lambda: swallowed)
        assert start(runner, "other").result() == "still here"
        released.set()
        wait_until(lambda: not greenlets())
        assert len(started.answers) == 1  # its result is nobody's any more


def test_g3_a_stream_that_swallows_its_timeout() -> None:
    swallowed: list[BaseException] = []

    def task() -> Iterator[int]:
        for number in range(10):
            try:
                gevent.sleep(60)
            except BaseException as error:
                swallowed.append(error)
            yield number

    runner = one(task)
    started = start(runner, "t", time.monotonic() + 0.1, stream=1)
    assert isinstance(started.error(), DeadlineExceeded)
    wait_until(lambda: not greenlets())  # and does not wait for a reader that is gone
    assert started.items == []
    assert len(swallowed) >= 1


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning")  # of the task, as it should be
def test_g4_leaves_things_behind() -> None:
    leave_things_behind(3_000)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_g4_leaves_things_behind_100_000_times() -> None:
    assert leave_things_behind(100_000) < 20 * MB


def leave_things_behind(count: int) -> int:
    """Run so many tasks that clean nothing up; the memory in bytes that they cost in the end."""

    def task() -> str:
        left: list[Any] = [open("/dev/null"), *socket.socketpair(), gevent.spawn(gevent.sleep, 0.001)]  # noqa: SIM115
        left.append(left)
        gevent.spawn(lambda: left)
        if next(numbers) % 2:
            raise LookupError("or not")
        return "x" * 1000

    numbers = itertools.count()
    runner = one(task)
    run(runner, 1_000)
    count_objects()  # by then these tasks have left nothing more
    gc.freeze()  # the tests' own objects need not be looked through, each time that the tasks' are collected
    try:
        before, files = count_objects(), open_files()
        resident = psutil.Process().memory_info().rss
        run(runner, count)
        assert count_objects() == before
        assert opened_since(files) == {}
        return int(psutil.Process().memory_info().rss - resident)
    finally:
        gc.unfreeze()
        gc.collect()  # here, where nobody minds a warning


def run(runner: Runner, count: int) -> None:
    for _ in range(count // 50):
        started = [start(runner, "t", time.monotonic() + 60) for _ in range(50)]
        for each in started:
            each.wait()
        if len(open_files()) > 200:
            gc.collect()


def count_objects() -> dict[str, int]:
    """What the runner made, and greenlets of all kinds."""
    gc.collect()
    wait_until(lambda: not greenlets())  # those that were let go of end, and what the tasks have started
    gc.collect()
    kinds = (GreenletCall, gevent.Greenlet, Listener)
    return dict(collections.Counter(type(each).__name__ for each in gc.get_objects() if isinstance(each, kinds)))


def greenlets() -> list[Any]:
    """Those of this test that have not ended, but for what waits for the next call to run."""
    alive = [each for each in _alive() if not any(each is other for other in _others)]
    return [each for each in alive if each.gr_frame is None or each.gr_frame.f_globals is not vars(spawner)]


def _alive() -> list[gevent.Greenlet]:
    """Those of this thread: clients that other tests have left may go on in another one, and begin new ones there."""
    hub = gevent.get_hub()
    every = [each for each in gc.get_objects() if isinstance(each, gevent.Greenlet)]
    return [each for each in every if not each.dead and each.parent is hub]
