"""Turns: how many calls of a task run at once, and what becomes of those that wait."""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest
from gevent.event import Event
from hypothesis import given
from hypothesis import strategies as st

from greentask import Server, Tasks, task
from greentask.errors import Cancelled, ConfigurationError, DeadlineExceeded, GreentaskError, Overloaded
from greentask.runner import NOBODY, Runner, Running
from greentask.runner.readers import Reader
from greentask.runner.turns import Turns
from greentask.wire.message import Call
from support import process_tasks
from support.listener import Listener
from support.pools import lines, processes, wait_for_lines
from support.servers import serving
from support.waiting import wait_until

# ---- The arithmetic


def test_further_ones_wait_and_begin_in_order() -> None:
    begun: list[int] = []
    turns = Turns("t", 2)
    at_once = [turns.ask(number, lambda number=number: begun.append(number)) for number in range(5)]  # type: ignore[misc]
    assert at_once == [True, True, False, False, False]
    assert (begun, turns.running, turns.waiting) == ([0, 1], 2, 3)
    assert turns.withdraw(3)
    assert not turns.withdraw(3)
    assert not turns.withdraw(0)
    for running in (2, 2, 1, 0):
        turns.leave()
        assert turns.running == running
    assert begun == [0, 1, 2, 4]


def test_only_so_many_may_wait() -> None:
    turns = Turns("t", 1, max_waiting=1)
    assert turns.ask(1, lambda: None)
    assert not turns.ask(2, lambda: None)
    with pytest.raises(Overloaded, match=r"t runs 1 at a time \(max_running\), and 1 wait \(max_waiting\)"):
        turns.ask(3, lambda: None)
    assert turns.withdraw(2)
    assert not turns.ask(3, lambda: None)


def test_a_hundred_thousand_that_end_at_once_are_begun_in_a_loop() -> None:
    turns, begun = Turns("t", 1), []

    def begin() -> None:
        begun.append(1)
        turns.leave()

    turns.ask(-1, lambda: None)
    for number in range(100_000):
        turns.ask(number, begin)
    turns.leave()
    assert (len(begun), turns.running, turns.waiting) == (100_000, 0, 0)


@given(most=st.integers(1, 4), steps=st.lists(st.sampled_from(["ask", "leave", "withdraw"]), max_size=60))
def test_never_more_than_that_run_and_none_waits_without_need(most: int, steps: list[str]) -> None:
    turns, running, waiting = Turns("t", most), set[int](), list[int]()

    def begin(number: int) -> Callable[[], None]:
        def begin() -> None:
            running.add(number)
            if number in waiting:
                assert waiting.pop(0) == number, "in order"

        return begin

    for number, step in enumerate(steps):
        if step == "ask":
            if not turns.ask(number, begin(number)):
                waiting.append(number)
        elif step == "leave" and running:
            running.pop()
            turns.leave()
        elif step == "withdraw" and waiting:
            assert turns.withdraw(waiting.pop())
        assert len(running) == turns.running <= most
        assert len(waiting) == turns.waiting
        assert not waiting or len(running) == most


# ---- Calls


class Started(Listener):
    running: Running


def start(
    runner: Runner,
    function: str,
    *args: Any,
    deadline: float | None = None,
    stream: int = 0,
    reader: Reader = NOBODY,
) -> Started:
    started = Started()
    line = json.dumps({"id": 1, "function": function, "args": args}).encode()
    started.running = runner.start(Call(function, list(args), 1, stream=stream), line, started, deadline, reader)
    return started


class Gate:
    """A task's gate, and the calls that are at it."""

    def __init__(self) -> None:
        self.inside: list[Any] = []
        self.most = 0
        self.open = Event()

    def pass_through(self, who: Any) -> Any:
        self.inside.append(who)
        self.most = max(self.most, len(self.inside))
        try:
            self.open.wait()
        finally:
            self.inside.remove(who)
        return who


@pytest.fixture
def gate() -> Gate:
    return Gate()


class Slow:
    """A reader, and the calls that wait for it."""

    peer = None

    def __init__(self) -> None:
        self.lags = self.is_behind = True
        self.waiting: list[Callable[[], object]] = []

    def hold(self, begin: Callable[[], object]) -> None:
        self.waiting.append(begin)

    def catch_up(self) -> None:
        self.lags = self.is_behind = False
        while self.waiting:
            self.waiting.pop(0)()


def gated(gate: Gate, most: int, **options: Any) -> Runner:
    tasks = Tasks()
    tasks.add(gate.pass_through, name="pass", max_running=most, **options)

    def produce(count: int) -> Iterator[int]:
        gate.pass_through("produce")
        yield from range(count)

    tasks.add(produce, max_running=1)
    return Runner(tasks)


def test_a_task_runs_so_often_at_once_and_all_come_to_their_turn(gate: Gate) -> None:
    runner = gated(gate, 3)
    started = [start(runner, "pass", number) for number in range(10)]
    wait_until(lambda: gate.inside == [0, 1, 2])
    gate.open.set()
    assert [one.result() for one in started] == list(range(10))
    assert gate.most == 3
    wait_until(lambda: runner.turns["pass"].running == 0)


def test_one_that_waits_can_be_cancelled_and_gets_out_of_time(gate: Gate) -> None:
    runner = gated(gate, 1)
    first = start(runner, "pass", "first")
    late = start(runner, "pass", "late", deadline=time.monotonic() + 0.05)
    cancelled = start(runner, "pass", "cancelled")
    cancelled.running.cancel()
    cancelled.running.cancel()
    for one, error in ((late, DeadlineExceeded), (cancelled, Cancelled)):
        told = one.error()
        assert isinstance(told, error)
        assert told.started is False
    assert gate.inside == ["first"]
    assert runner.turns["pass"].waiting == 0
    gate.open.set()
    assert first.result() == "first"


def test_a_deadline_holds_when_the_turn_has_come(gate: Gate) -> None:
    runner = gated(gate, 1)
    first = start(runner, "pass", "first")
    second = start(runner, "pass", "second", deadline=time.monotonic() + 0.3)
    wait_until(lambda: gate.inside == ["first"])
    first.running.cancel()
    wait_until(lambda: gate.inside == ["second"])
    told = second.error()
    assert isinstance(told, DeadlineExceeded)
    assert told.started is True


def test_a_task_that_will_not_end_keeps_its_turn_though_its_caller_is_answered() -> None:
    let_go, began = Event(), list[str]()

    def stubborn(who: str) -> None:
        began.append(who)
        while not let_go.is_set():
            try:
                let_go.wait()
            except BaseException:
                pass

    tasks = Tasks()
    tasks.add(stubborn, max_running=1)
    runner = Runner(tasks)
    first, second = start(runner, "stubborn", "first"), start(runner, "stubborn", "second")
    wait_until(lambda: began == ["first"])
    first.running.cancel()
    assert isinstance(first.error(), Cancelled)
    for _ in range(10):
        gevent.sleep(0)
    assert began == ["first"]
    let_go.set()
    assert second.result() is None


def test_where_enough_wait_the_next_one_is_refused(gate: Gate) -> None:
    runner = gated(gate, 1, max_waiting=0)
    first = start(runner, "pass", 1)
    with pytest.raises(Overloaded):
        start(runner, "pass", 2)
    gate.open.set()
    assert first.result() == 1
    wait_until(lambda: runner.turns["pass"].running == 0)
    assert start(runner, "pass", 3).result() == 3


def test_grants_that_come_before_the_turn_count(gate: Gate) -> None:
    runner = gated(gate, 1)
    first = start(runner, "produce", 3, stream=10)
    second = start(runner, "produce", 5, stream=2)
    second.running.grant(2)
    gate.open.set()
    assert first.result() == {"items": 3}
    assert second.wait_for_items(4) == [0, 1, 2, 3]
    assert not second.answers
    second.running.grant(2)
    assert second.result() == {"items": 5}


def test_tasks_in_processes_have_turns_too(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    hold = process_tasks.hold.function
    tasks = Tasks([process_tasks.pid])
    tasks.add(task(name="hold", process=True, max_running=1)(hold))
    with processes(2) as pool:
        runner = Runner(tasks, {"default": pool})
        started = [start(runner, "hold", str(marks), "never") for _ in range(3)]
        wait_for_lines(marks)
        assert start(runner, "pid").result() in pool.pids()  # the second process is not the limited task's
        for number, one in enumerate(started):
            assert len(lines(marks)) == number + 1
            one.running.cancel()
            assert isinstance(one.error(), Cancelled)
            if number < 2:
                wait_for_lines(marks, number + 2)
        assert runner.turns["hold"].running == 0


def test_those_that_wait_when_the_pool_is_closed_are_told(tmp_path: Path) -> None:
    marks = tmp_path / "marks"
    tasks = Tasks([task(name="hold", process=True, max_running=1)(process_tasks.hold.function)])
    with processes(1) as pool:
        runner = Runner(tasks, {"default": pool})
        started = [start(runner, "hold", str(marks), "never") for _ in range(50)]
        wait_for_lines(marks)
    for one in started:
        assert isinstance(one.error(), Cancelled)


def test_what_is_no_error_of_ours_gives_the_turn_back() -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError("no descriptor")

    class Failing(Runner):
        _run = fail

    tasks = Tasks()
    tasks.add(len, max_running=1)
    runner = Failing(tasks)
    for _ in range(2):
        with pytest.raises(OSError, match="no descriptor"):
            start(runner, "len", "x")
    assert runner.turns["len"].running == 0


# ---- Whose reader is behind


def test_who_reads_slowly_has_no_turn_and_others_have_it(gate: Gate) -> None:
    runner, slow = gated(gate, 1, max_waiting=2), Slow()
    held = [start(runner, "pass", number, reader=slow) for number in range(5)]  # they don't count among those that wait
    assert start(runner, "pass", "other").running
    wait_until(lambda: gate.inside == ["other"])
    slow.catch_up()
    gate.open.set()
    assert [one.result() for one in held] == list(range(5))
    wait_until(lambda: runner.turns["pass"].running == 0)


def test_whose_turn_comes_while_its_reader_is_behind_is_passed_over(gate: Gate) -> None:
    runner, slow = gated(gate, 1), Slow()
    slow.lags = slow.is_behind = False
    first, second = (start(runner, "pass", number, reader=slow) for number in range(2))
    other = start(runner, "pass", 2)
    wait_until(lambda: gate.inside == [0])
    slow.lags = slow.is_behind = True
    gate.open.set()
    assert (first.result(), other.result()) == (0, 2)
    assert not second.answers
    slow.catch_up()
    assert second.result() == 1


def test_a_call_may_end_while_its_reader_is_behind(gate: Gate) -> None:
    runner, slow = gated(gate, 1), Slow()
    gate.open.set()
    late = start(runner, "pass", 1, reader=slow, deadline=time.monotonic() + 0.05)
    cancelled = start(runner, "pass", 2, reader=slow)
    cancelled.running.cancel()
    for one, kind in ((cancelled, Cancelled), (late, DeadlineExceeded)):
        error = one.error()
        assert isinstance(error, kind)
        assert error.started is False
    slow.catch_up()
    assert start(runner, "pass", 3).result() == 3
    wait_until(lambda: runner.turns["pass"].running == 0)
    assert gate.most == 1, "neither of them has run"


@pytest.mark.parametrize("most", [None, 1])
@pytest.mark.parametrize("patience", [None, 0.6, 100.0])
def test_a_tasks_own_limit_counts_from_when_its_reader_has_caught_up(
    gate: Gate, most: int | None, patience: float | None
) -> None:
    tasks, slow = Tasks(), Slow()
    tasks.add(gate.pass_through, name="pass", timeout=0.3, max_running=most)
    deadline = None if patience is None else time.monotonic() + patience
    held, cancelled = (start(Runner(tasks), "pass", 1, reader=slow, deadline=deadline) for _ in range(2))
    wait_until(lambda: len(slow.waiting) == 2)
    cancelled.running.cancel()
    gevent.sleep(0.4)
    assert not held.answers
    slow.catch_up()
    wait_until(lambda: gate.inside == [1])
    began = time.monotonic()
    error = held.error()
    assert isinstance(error, DeadlineExceeded)
    assert error.started
    assert held.answered_at - began > (0.25 if deadline is None else min(0.25, deadline - began - 0.02))
    assert isinstance(cancelled.error(), Cancelled)


# ---- A server's


def test_a_server_says_how_often_a_task_runs_in_place_of_the_task(gate: Gate) -> None:
    tasks = Tasks()
    tasks.add(gate.pass_through, name="pass", max_running=5)
    tasks.add(len)
    server = Server(tasks, max_running={"pass": 2, "len": 1})
    started = [start(server.runner, "pass", number) for number in range(9)]
    wait_until(lambda: gate.inside == [0, 1])
    assert server.status()["limited"] == {"pass": {"max_running": 2, "running": 2, "waiting": 7}}
    gate.open.set()
    assert [one.result() for one in started] == list(range(9))


@pytest.mark.parametrize(
    ("max_running", "message"),
    [
        ({"lenn": 1}, "max_running: no task is named 'lenn'; did you mean len"),
        ({"len": 0}, "max_running of 'len' is at least 1, not 0"),
    ],
)
def test_a_limit_of_no_task_is_an_error(max_running: dict[str, int], message: str) -> None:
    with pytest.raises(GreentaskError, match=message):
        Server(Tasks([len]), max_running=max_running)


@pytest.mark.parametrize(("option", "value"), [("max_running", 0), ("max_waiting", -1)])
def test_a_limit_must_be_one(option: str, value: int) -> None:
    options: Any = {option: value}
    with pytest.raises(ConfigurationError, match=f"task 'f': {option} must be at least"):
        task(name="f", **options)(len)


def test_the_command_line_limits_batches_as_well(tmp_path: Path) -> None:
    file = tmp_path / "marks"
    with serving("--max-running", "mark=1", processes=1) as server, server.connect() as peer:
        peer.send({"id": 1, "function": "mark", "batch": [[str(file), 0.01]] * 5})
        assert peer.hear_all(6)[-1] == {"id": 1, "result": {"done": 5, "failed": 0}}
        assert file.read_text().split() == ["started", "ended"] * 5
        assert server.status()["limited"]["mark"] == {"max_running": 1, "running": 0, "waiting": 0}
