"""The runner: one call in, one answer out, in a greenlet here or in a task process."""

import contextvars
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gevent
import gevent.local
import pytest
from gevent.event import Event

import greentask
from greentask.errors import (
    Cancelled,
    CancelRequest,
    DeadlineExceeded,
    InvalidArguments,
    InvalidResult,
    TimeLimit,
    UnknownTask,
    from_wire,
)
from greentask.pool.setup import Setup
from greentask.runner import Runner, Running
from greentask.tasks.registry import Tasks
from greentask.wire.message import Args, Call
from support import process_tasks
from support.listener import Listener
from support.pools import TASKS, processes
from support.waiting import wait_until

tasks = Tasks(TASKS)


@tasks.task
def here(value: Any) -> list[Any]:
    return [os.getpid(), value]


@tasks.task
def rows_here(count: int) -> dict[str, Any]:
    return {"rows": [{"id": number, "name": "é" * 20} for number in range(count)]}


@tasks.task
def fail_here(text: str) -> None:
    raise ValueError(text)


@tasks.task
def about() -> list[Any]:
    current = greentask.current()
    return [current.id, current.name, current.deadline]


@tasks.task
def steps_here(count: int) -> int:
    for done in range(count):
        greentask.current().progress(done, count)
        gevent.sleep(0)
    return count


@tasks.task
def unfit() -> object:
    return {"a": [object()]}


class Gate:
    """Where a task waits until the test lets it go on; what happened to it."""

    def __init__(self) -> None:
        self.open = Event()
        self.log: list[str] = []

    def wait_for_log(self, count: int) -> None:
        wait_until(lambda: len(self.log) >= count)


gates: dict[str, Gate] = {}


@tasks.task
def wait(gate: str) -> str:
    log = gates[gate].log
    log.append("began")
    try:
        gates[gate].open.wait()
    except BaseException as error:
        log.append(type(error).__name__)
        raise
    finally:
        log.append("ended")
    return "went through"


@tasks.task
def nap_here(seconds: float) -> str:
    gevent.sleep(seconds)
    return "rested"


@tasks.task(timeout=0.1, name="limited")
def wait_with_limit(gate: str) -> str:
    return wait.function(gate)


@tasks.task(timeout=60, name="hardly limited")
def wait_with_a_far_limit(gate: str) -> str:
    return wait.function(gate)


@tasks.task
def produce_here(gate: str, count: int) -> Iterator[int]:
    log = gates[gate].log
    try:
        for number in range(count):
            log.append(str(number))
            yield number
    finally:
        log.append("end")


def gate(name: str) -> Gate:
    gates[name] = Gate()
    return gates[name]


class Started(Listener):
    running: Running


def start(runner: Runner, function: str, *args: Any, deadline: float | None = None, **options: Any) -> Started:
    started = Started()
    call = Call(function, list(args), options.pop("id", 1), **options)
    line = json.dumps({"id": call.id, "function": function, "args": args}).encode()
    started.running = runner.start(call, line, started, deadline)
    return started


# ---- Where a call runs


def test_a_task_runs_in_a_greenlet_here() -> None:
    assert start(Runner(tasks), "here", "é").result() == [os.getpid(), "é"]


def test_a_process_task_runs_in_a_process() -> None:
    with processes() as pool:
        runner = Runner(tasks, {"default": pool})
        assert start(runner, "pid").result() == pool.pids()[0]
        assert start(runner, "echo", [1, {"a": None}]).result() == [1, {"a": None}]


def test_the_line_reaches_the_process_as_it_came() -> None:
    line = b' { "id":1,"function" : "echo",\t"args":[ 1e2 ]}\r'
    with processes(setup=Setup("support.raw_handlers:give_back")) as pool:
        listener = Listener()
        Runner(tasks, {"default": pool}).start(Call("echo", [100.0], 1), line, listener)
        assert listener.wait() == ("result", line)


def test_an_item_of_a_batch_runs_in_either_place() -> None:
    with processes() as pool:
        runner = Runner(tasks, {"default": pool})
        for function, expected in (("here", [os.getpid(), 5]), ("echo", 5)):
            for args in ([5], {"value": 5}):
                listener = Listener()
                given: Args = args
                runner.start_item(Call(function, None, 7, batch=[]), given, listener)
                assert listener.result() == expected


def test_an_unknown_task_is_refused_before_anything_runs() -> None:
    listener = Listener()
    with pytest.raises(UnknownTask, match="no task is named 'hero'; did you mean here"):
        Runner(tasks).start(Call("hero", [1]), b"", listener)
    with pytest.raises(UnknownTask):
        Runner(tasks).start_item(Call("hero"), [1], listener)
    assert not listener.answers


def test_a_process_task_without_processes_is_refused() -> None:
    with pytest.raises(UnknownTask, match=r"echo runs in task processes, and this server has none for it \(default\)"):
        start(Runner(tasks), "echo", 1)


def test_calls_in_greenlets_run_side_by_side() -> None:
    both = gate("both")
    runner = Runner(tasks)
    started = [start(runner, "wait", "both") for _ in range(100)]
    wait_until(lambda: both.log.count("began") == 100)
    assert not any(each.answers for each in started)
    both.open.set()
    assert [each.result() for each in started] == ["went through"] * 100


# ---- What a greenlet's caller hears


def test_a_large_result_holds_nobody_up() -> None:
    started = start(Runner(tasks), "rows_here", 50_000)
    turns = 0
    while not started.answers:
        gevent.sleep(1e-6)
        turns += 1
    assert turns > 20  # it was one, whatever the size
    assert len(started.result()["rows"]) == 50_000


def test_errors_come_back() -> None:
    runner = Runner(tasks)
    error = start(runner, "fail_here", "no é").error()
    assert type(error) is ValueError
    assert str(error) == "no é"
    assert isinstance(start(runner, "here").error(), InvalidArguments)
    error = start(runner, "unfit").error()
    assert isinstance(error, InvalidResult)
    assert "unfit returned what JSON can't carry: result['a'][0]" in str(error)


def test_tracebacks_are_sent_where_debug_is_on_only() -> None:
    def traceback(runner: Runner) -> str | None:
        listener = start(runner, "fail_here", "x")
        kind, body = listener.wait()
        assert kind == "error"
        found: str | None = json.loads(body).get("traceback")
        return found

    assert traceback(Runner(tasks)) is None
    assert "in fail_here\n" in str(traceback(Runner(tasks, debug=True)))


def test_a_task_knows_what_it_is() -> None:
    deadline = time.monotonic() + 1000
    assert start(Runner(tasks), "about", id="x-1", deadline=deadline).result() == ["x-1", "about", deadline]
    assert greentask.current().id is None


def test_progress_is_told_where_it_was_asked_for() -> None:
    runner = Runner(tasks)
    asked, not_asked = start(runner, "steps_here", 5, progress=True), start(runner, "steps_here", 5)
    assert asked.result() == not_asked.result() == 5
    assert asked.reports == [{"done": done, "total": 5} for done in range(5)]
    assert not_asked.reports == []


# ---- Time and cancelling in greenlets


def test_a_deadline_ends_a_running_task() -> None:
    there = gate("deadline")
    started = start(Runner(tasks), "wait", "deadline", deadline=time.monotonic() + 0.1)
    error = started.error()
    assert isinstance(error, DeadlineExceeded)
    assert error.started is True
    wait_until(lambda: there.log == ["began", "TimeLimit", "ended"])


def test_a_task_whose_deadline_has_passed_never_begins() -> None:
    there = gate("late")
    runner = Runner(tasks)
    late = [start(runner, "wait", "late", deadline=time.monotonic() - seconds) for seconds in (1000, 1, 0)]
    time.sleep(0.01)  # the loop doesn't run meanwhile: the deadline is there before the greenlet
    for each in late:
        error = each.error()
        assert isinstance(error, DeadlineExceeded)
        assert error.started is ("began" in there.log)
    assert start(runner, "here", 1).result() == [os.getpid(), 1]


def test_a_tasks_own_limit_ends_it_where_it_comes_first() -> None:
    for deadline in (None, 1000.0):
        there = gate("limit")
        began = time.monotonic()
        started = start(Runner(tasks), "limited", "limit", deadline=deadline and began + deadline)
        assert isinstance(started.error(), DeadlineExceeded)
        assert started.answered_at - began >= 0.1
        there.wait_for_log(3)
        assert there.log == ["began", "TimeLimit", "ended"]
    there = gate("limit")
    deadline = time.monotonic() + 0.02
    assert isinstance(start(Runner(tasks), "hardly limited", "limit", deadline=deadline).error(), DeadlineExceeded)
    assert time.monotonic() >= deadline
    assert there.log[0] == "began"


def test_a_running_task_is_cancelled_and_its_caller_told_at_once() -> None:
    there = gate("cancel")
    started = start(Runner(tasks), "wait", "cancel")
    there.wait_for_log(1)
    started.running.cancel()
    assert started.answers
    error = started.error()
    assert isinstance(error, Cancelled)
    assert error.started is True
    wait_until(lambda: there.log == ["began", "CancelRequest", "ended"])
    started.running.cancel()
    assert len(started.answers) == 1


def test_a_task_that_is_cancelled_before_it_begins_never_does(capfd: pytest.CaptureFixture[str]) -> None:
    there = gate("never")
    started = start(Runner(tasks), "wait", "never")
    started.running.cancel()
    error = started.error()
    assert isinstance(error, Cancelled)
    assert error.started is False
    assert start(Runner(tasks), "here", 1).result() == [os.getpid(), 1]
    assert there.log == []
    assert capfd.readouterr().err == ""


def test_cancelling_what_has_ended_does_nothing() -> None:
    started = start(Runner(tasks), "here", 1)
    assert started.result() == [os.getpid(), 1]
    started.running.cancel()
    started.running.grant(5)
    gevent.sleep(0)
    assert len(started.answers) == 1


# ---- Streams in greenlets


def test_a_stream_stops_when_nobody_grants_and_goes_on_when_somebody_does() -> None:
    there = gate("stream")
    started = start(Runner(tasks), "produce_here", "stream", 20, stream=3)
    started.wait_for_items(3)
    for granted in (3, 6, 12):
        there.wait_for_log(granted + 1)  # one is made and not taken yet
        for _ in range(10):
            gevent.sleep(0)
        assert len(there.log) == granted + 1
        assert started.items == list(range(granted))
        started.running.grant(granted)
    started.running.grant(1000)
    assert started.result() == {"items": 20}
    assert started.items == list(range(20))
    assert there.log[-1] == "end"


def test_a_stream_that_waits_for_its_reader_can_be_cancelled() -> None:
    there = gate("stream")
    started = start(Runner(tasks), "produce_here", "stream", 20, stream=3)
    there.wait_for_log(4)
    started.running.cancel()
    assert isinstance(started.error(), Cancelled)
    wait_until(lambda: there.log[-1] == "end")
    assert started.items == [0, 1, 2]


def test_a_stream_whose_listener_cancels_it_ends_there_and_what_comes_next_is_not_hit() -> None:
    class Gone(Started):
        def item(self, item: bytes) -> None:
            super().item(item)
            self.running.cancel()

    there, runner = gate("stream"), Runner(tasks)
    gone = Gone()
    gone.running = runner.start(Call("produce_here", ["stream", 20], 1, stream=5), b"", gone)
    nexts = [start(runner, "nap_here", 0.01, id=number) for number in range(2, 5)]
    assert isinstance(gone.error(), Cancelled)
    assert [one.result() for one in nexts] == ["rested"] * 3
    assert gone.items == [0]
    assert there.log == ["0", "end"]


def test_a_generator_without_stream_gives_an_array_and_a_function_is_no_stream() -> None:
    gate("all")
    assert start(Runner(tasks), "produce_here", "all", 4).result() == [0, 1, 2, 3]
    error = start(Runner(tasks), "here", 1, stream=3).error()
    assert isinstance(error, InvalidArguments)
    assert "here is no generator" in str(error)


# ---- The same in processes


def test_a_call_in_the_pool_has_its_tasks_limit_and_its_callers_deadline(tmp_path: Path) -> None:
    limited = Tasks([greentask.task(process=True, timeout=0.1, name="nap")(process_tasks.nap.function)])
    with processes() as pool:
        error = start(Runner(limited, {"default": pool}), "nap", 30).error()
        assert isinstance(error, DeadlineExceeded)
        assert error.started is True
        error = start(Runner(tasks, {"default": pool}), "nap", 30, deadline=time.monotonic() + 0.1).error()
        assert isinstance(error, DeadlineExceeded)


def test_a_call_in_the_pool_is_cancelled_granted_and_tells_its_progress(tmp_path: Path) -> None:
    with processes() as pool:
        runner = Runner(tasks, {"default": pool})
        started = start(runner, "nap", 30)
        started.running.cancel()
        assert isinstance(started.error(), Cancelled)

        started = start(runner, "stream", 10, stream=3)
        started.wait_for_items(3)
        started.running.grant(7)
        assert started.result() == {"items": 10}
        assert started.items == list(range(10))

        started = start(runner, "steps", 3, progress=True)
        assert started.result() == 3
        assert [report["done"] for report in started.reports] == [0, 1, 2]


def test_an_interrupt_that_a_task_raises_itself_is_an_answer_in_either_place() -> None:
    with processes() as pool:
        here_and_there = Tasks([process_tasks.leave])
        for how, cls in (("TimeLimit", DeadlineExceeded), ("CancelRequest", Cancelled)):

            def leave(how: str = how) -> None:
                raise {"TimeLimit": TimeLimit, "CancelRequest": CancelRequest}[how]("its own")

            here_and_there.add(leave, name=f"leave {how}")
            bodies = set()
            for started in (
                start(Runner(here_and_there, {"default": pool}), "leave", how),
                start(Runner(here_and_there, {"default": pool}), f"leave {how}"),
            ):
                kind, body = started.wait()
                assert kind == "error"
                assert isinstance(from_wire(json.loads(body)), cls)
                bodies.add(body)
            assert len(bodies) == 1


# ---- Whatever happens

_variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
_local = gevent.local.local()
_LEAVES: dict[str, Callable[[], object]] = {
    "nothing": lambda: None,
    "variable": lambda: _variable.set("mine"),
    "local": lambda: setattr(_local, "value", "mine"),
    "attribute": lambda: setattr(gevent.getcurrent(), "mine", "mine"),
    "kill": lambda: gevent.getcurrent().kill(block=False),  # type: ignore[attr-defined]
}
_RAISES = (ValueError("no"), SystemExit(1), gevent.GreenletExit(), CancelRequest("no"), TimeLimit("no"))


@tasks.task
def leave_here(what: str, raises: int | None, looks: bool) -> list[Any]:
    """What was on the greenlet before, and where it is to be looked for: that alone makes the greenlet another's."""
    me = gevent.getcurrent()
    found = [greentask.current().id, _variable.get(), sys.exc_info()[0], [*{*me.__dict__} - {"_run"}]]
    found.append(getattr(_local, "value", None) if looks else None)
    _LEAVES[what]()
    if raises is not None:
        raise _RAISES[raises]
    return found


def test_each_call_ends_once_and_is_counted_once_and_leaves_nothing_to_the_next() -> None:
    seed = random.getrandbits(32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    runner = Runner(tasks)
    started: list[Started] = []
    for number in range(1_000):
        if chance.random() < 0.8:
            raises = chance.choice([None, None, *range(len(_RAISES))])
            function, args = "leave_here", [chance.choice([*_LEAVES]), raises, chance.random() < 0.3]
        else:
            function, args = chance.choice([("nap_here", [0.001]), ("steps_here", [2]), ("unfit", []), ("unfit", [1])])
        deadline = time.monotonic() + chance.choice([-1, 0.0005, 60]) if chance.random() < 0.2 else None
        started.append(start(runner, function, *args, deadline=deadline, id=number))
        if chance.random() < 0.2:
            gevent.spawn(started[-1].running.cancel)
        if chance.random() < 0.1:
            gevent.sleep(chance.choice([0, 0.001]))
    answers = [each.wait() for each in started]
    assert all(len(each.answers) == 1 for each in started)
    results = [(number, json.loads(body)) for number, (kind, body) in enumerate(answers) if kind == "result"]
    left = [(number, found) for number, found in results if isinstance(found, list)]
    assert all(found == [number, "nothing", None, [], None] for number, found in left)
    assert len(left) > 50
    assert not runner.statistics.running
    assert sum(runner.statistics.totals().values()) == len(started)
    assert runner.statistics.totals()["done"] == len(results)
