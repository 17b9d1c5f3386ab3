"""Running one call of a task to its end, and what is told of it."""

import asyncio
import contextlib
import gc
import os
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given

from greentask.errors import (
    CancelRequest,
    InvalidArguments,
    InvalidResult,
    Overloaded,
    TaskError,
    TimeLimit,
    UnknownTask,
    from_wire,
)
from greentask.pool import coroutines
from greentask.tasks.context import RunningTask, current
from greentask.tasks.execution import execute
from greentask.tasks.retries import Retry
from greentask.tasks.task import Task, task
from greentask.wire.json import loads
from support.values import alike, values

RUNNING = RunningTask(7, "the task", time.monotonic() + 1_000)


def run(
    function: Callable[..., Any] | Task[..., Any],
    args: Any = None,
    emit: Callable[[bytes], None] | None = None,
    *,
    debug: bool = False,
) -> Any:
    """The result as its caller gets it; raises as its caller sees it."""
    ended_well, body = execute(as_task(function), args, RUNNING, emit, debug=debug)
    assert current() == RunningTask(), "the context of a call outlived it"
    if not ended_well:
        raise from_wire(loads(body))
    return loads(body)


def as_task(function: Callable[..., Any] | Task[..., Any]) -> Task[..., Any]:
    return function if isinstance(function, Task) else Task(function, name="the.task")


def error_of(function: Callable[..., Any] | Task[..., Any], args: Any = None, **options: Any) -> dict[str, Any]:
    """The error object that goes out."""
    ended_well, body = execute(as_task(function), args, RUNNING, **options)
    assert not ended_well
    described: dict[str, Any] = loads(body)
    return described


# ---- Well


@given(values)
def test_a_result_goes_out_as_json(value: Any) -> None:
    def give() -> Any:
        return value

    assert alike(run(give), value)


def test_arguments_are_bound() -> None:
    def mail(from_: str, to: str = "you", **more: Any) -> list[Any]:
        return [from_, to, more]

    assert run(mail, {"from": "me", "class": 1}) == ["me", "you", {"class": 1}]
    assert run(mail, ["me", "they"]) == ["me", "they", {}]


def test_the_context_is_there_while_it_runs_and_gone_after() -> None:
    def look() -> list[Any]:
        return [current().id, current().name, current() is RUNNING]

    def fail() -> None:
        raise ValueError(current().name)

    assert run(look) == [7, "the task", True]
    with pytest.raises(ValueError, match="the task"):
        run(fail)


def test_it_is_there_while_a_generator_runs() -> None:
    def look() -> Iterator[Any]:
        yield current().name

    seen: list[bytes] = []
    assert run(look) == ["the task"]
    run(look, emit=seen.append)
    assert seen == [b'"the task"']


# ---- Arguments that don't fit


@pytest.mark.parametrize("args", [{}, None, {"a": 1, "b": 2}, [1, 2], {"b": 1}])
def test_a_task_whose_arguments_do_not_fit_does_not_run(args: Any) -> None:
    ran = []

    def take(a: int) -> None:
        ran.append(a)

    with pytest.raises(InvalidArguments, match=r"^the\.task\(a: ") as caught:
        run(take, args)
    assert caught.value.started is False
    assert ran == []


def test_a_type_error_of_the_tasks_own_is_the_tasks() -> None:
    def take(a: int) -> None:
        take()  # type: ignore[call-arg]

    with pytest.raises(TypeError, match="missing 1 required positional argument: 'a'") as caught:
        run(take, [1])
    assert type(caught.value) is TypeError


# ---- Errors


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (ValueError("no such year"), {"type": "ValueError", "message": "no such year"}),
        (KeyError("a"), {"type": "KeyError", "message": "a"}),
        (SystemExit(3), {"type": "SystemExit", "message": "3"}),
        (SystemExit("bye"), {"type": "SystemExit", "message": "bye"}),
        (KeyboardInterrupt(), {"type": "KeyboardInterrupt", "message": ""}),
        (GeneratorExit(), {"type": "GeneratorExit", "message": ""}),
        (BaseException("bare"), {"type": "BaseException", "message": "bare"}),
        (StopIteration(1), {"type": "StopIteration", "message": "1"}),
        (ValueError("\ud800"), {"type": "ValueError", "message": "?"}),
        (Overloaded("another server is"), {"type": "greentask.Overloaded", "message": "another server is"}),
        (UnknownTask("there"), {"type": "greentask.UnknownTask", "message": "there"}),
        (InvalidArguments("there"), {"type": "greentask.InvalidArguments", "message": "there"}),
        (InvalidResult("there"), {"type": "greentask.InvalidResult", "message": "there"}),
        (TaskError("there", type="SMTPError"), {"type": "SMTPError", "message": "there"}),
    ],
    ids=repr,
)
def test_what_a_task_raises_is_told(error: BaseException, described: dict[str, Any]) -> None:
    def fail() -> None:
        raise error

    def fail_later() -> Iterator[int]:
        yield 1
        raise error

    assert error_of(fail) == described
    if not isinstance(error, StopIteration):  # which Python makes a RuntimeError in a generator
        assert error_of(fail_later) == described
        assert error_of(fail_later, emit=lambda item: None) == described


def test_endless_recursion_is_an_error() -> None:
    def recurse() -> Any:
        return recurse()

    gc.disable()  # finalizers of what other tests have left would have no room there, and tell so
    try:
        assert error_of(recurse)["type"] == "RecursionError"
    finally:
        gc.enable()


def test_a_traceback_goes_out_only_in_debugging() -> None:
    def fail() -> None:
        raise ValueError("no")

    assert "traceback" not in error_of(fail)
    told = error_of(fail, debug=True)["traceback"]
    assert told.startswith("Traceback (most recent call last):")
    assert "in fail" in told
    assert __file__ in told.splitlines()[1], "without what led there"
    assert told.rstrip().endswith("ValueError: no")
    assert "traceback" not in error_of(fail, [1], debug=True)


def test_a_durable_task_that_only_asks_to_be_tried_again_has_no_traceback() -> None:
    def ask() -> None:
        raise Retry(delay=60)

    def ask_because() -> None:
        try:
            raise ValueError("no")
        except ValueError as error:
            raise Retry(delay=60) from error

    assert error_of(ask, durable=True) == {"type": "Retry", "message": "tried again later", "retry": {"delay": 60.0}}
    assert "ValueError: no" in error_of(ask_because, durable=True)["traceback"]
    assert "in ask" in error_of(ask, debug=True)["traceback"]


# ---- Results that JSON can't carry


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({"rows": [1, {2}]}, "the.task returned what JSON can't carry: result['rows'][1] is a set"),
        (b"x", "the.task returned what JSON can't carry: result is a bytes"),
        ([float("nan")], "the.task returned what JSON can't carry: result[0] is nan"),
        ({(1, 2): 3}, "the.task returned what JSON can't carry: result has the key (1, 2)"),
        (range(3), "the.task returned what JSON can't carry: result is a range"),
    ],
)
def test_a_result_that_json_cannot_carry_is_named(value: Any, says: str) -> None:
    def give() -> Any:
        return value

    with pytest.raises(InvalidResult) as caught:
        run(give)
    assert str(caught.value).startswith(says)
    assert caught.value.started is True


def test_an_item_that_json_cannot_carry_is_named_and_ends_the_stream() -> None:
    closed = []

    def rows() -> Iterator[Any]:
        try:
            yield 1
            yield {"when": {1}}
            yield 3
        finally:
            closed.append(True)

    items: list[bytes] = []
    with pytest.raises(InvalidResult, match=r"^the\.task yielded what JSON can't carry: result\['when'\] is a set"):
        run(rows, emit=items.append)
    assert items == [b"1"]
    assert closed == [True]
    with pytest.raises(
        InvalidResult, match=r"^the\.task returned what JSON can't carry: result\[1\]\['when'\] is a set"
    ):
        run(rows)


# ---- Streams


def rows(count: int) -> Iterator[Any]:
    for number in range(count):
        yield {"n": number}


def test_a_generators_items_go_out_one_by_one() -> None:
    items: list[bytes] = []
    assert run(rows, [3], emit=items.append) == {"items": 3}
    assert items == [b'{"n":0}', b'{"n":1}', b'{"n":2}']
    assert run(rows, [0], emit=items.append) == {"items": 0}


def test_a_generators_items_are_an_array_where_no_stream_is_wanted() -> None:
    assert run(rows, [2]) == [{"n": 0}, {"n": 1}]


def test_the_next_item_is_not_made_before_the_last_has_gone_out() -> None:
    made, gone = [], []

    def numbers() -> Iterator[int]:
        for number in range(4):
            made.append(number)
            yield number

    def emit(item: bytes) -> None:
        assert made == [*gone, int(item)]
        gone.append(int(item))

    run(numbers, emit=emit)
    assert gone == [0, 1, 2, 3]


def test_what_is_no_generator_has_no_stream() -> None:
    ran = []

    def give() -> list[int]:
        ran.append(1)
        return [1, 2]

    with pytest.raises(InvalidArguments, match=r"the\.task is no generator: .*call it without stream"):
        run(give, emit=lambda item: None)
    assert ran == []


def test_a_reader_that_goes_away_closes_the_generator() -> None:
    seen: list[str] = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(10)
        finally:
            seen.append("closed")

    def emit(item: bytes) -> None:
        seen.append(item.decode())
        if item == b"2":
            raise CancelRequest("the reader is gone")

    with pytest.raises(CancelRequest) as caught:
        execute(as_task(numbers), None, RUNNING, emit)
    assert seen == ["0", "1", "2", "closed"]
    assert caught.tb is not None, "which holds the generator: it was closed, and not only forgotten"
    assert current() == RunningTask()


# ---- Interrupts


@pytest.mark.parametrize("interrupt", [TimeLimit("out of time"), CancelRequest("cancelled")], ids=repr)
def test_an_interrupt_is_left_to_whoever_interrupted(interrupt: BaseException) -> None:
    def stop() -> None:
        try:
            raise interrupt
        except Exception:
            pytest.fail("it is no Exception")

    with pytest.raises(type(interrupt)):
        execute(as_task(stop), None, RUNNING)
    assert current() == RunningTask()


def test_a_task_may_go_on_after_an_interrupt() -> None:
    def stop() -> str:
        try:
            raise TimeLimit
        except TimeLimit:
            return "half of it"

    assert run(stop) == "half of it"


# ---- Coroutines


@pytest.fixture
def loop(monkeypatch: pytest.MonkeyPatch) -> Iterator[asyncio.AbstractEventLoop]:
    """The loop of this process's coroutines, for one test."""
    loop = asyncio.new_event_loop()
    monkeypatch.setattr(coroutines, "_loop", loop)
    yield loop
    left = asyncio.all_tasks(loop)
    loop.close()
    assert left == set()


@pytest.fixture
def interruptible() -> Iterator[None]:
    """SIGUSR1 raises a time limit, wherever the main thread is."""

    def interrupt(*_: Any) -> None:
        raise TimeLimit("out of time")

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield
    signal.signal(signal.SIGUSR1, before)


notes: list[Any] = []


@contextlib.asynccontextmanager
async def noting() -> AsyncIterator[None]:
    notes.clear()
    try:
        yield
    except BaseException as error:
        notes.append(type(error).__name__)
        raise
    finally:
        await asyncio.sleep(0)
        notes.append("cleaned up")


@task(process=True)
async def which_loop(value: Any) -> list[Any]:
    await asyncio.sleep(0)
    return [value, id(asyncio.get_running_loop()), current().name]


@task(process=True)
async def fail_in_loop(how: str) -> None:
    await asyncio.sleep(0)
    raise {"ValueError": ValueError, "SystemExit": SystemExit, "Overloaded": Overloaded}[how]("why")


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGUSR1)


@task(process=True)
async def interrupted_running() -> None:
    async with noting():
        interrupt()
        await asyncio.sleep(60)


@task(process=True)
async def interrupted_in_a_callback() -> None:
    async with noting():
        asyncio.get_running_loop().call_soon(interrupt)
        await asyncio.sleep(60)


@task(process=True)
async def interrupted_waiting() -> None:
    async with noting():
        program = f"read go; kill -USR1 {os.getpid()}"
        with subprocess.Popen(["sh", "-c", program], stdin=subprocess.PIPE, bufsize=0) as another:
            assert another.stdin is not None
            asyncio.get_running_loop().call_soon(another.stdin.write, b"\n")
            await asyncio.sleep(60)


def test_a_coroutine_runs_in_the_same_loop_each_time(loop: asyncio.AbstractEventLoop) -> None:
    assert run(which_loop, ["a"]) == ["a", id(loop), "the task"]
    assert run(which_loop, {"value": 2}) == [2, id(loop), "the task"]


@pytest.mark.parametrize(
    ("how", "described"),
    [
        ("ValueError", {"type": "ValueError", "message": "why"}),
        ("SystemExit", {"type": "SystemExit", "message": "why"}),
        ("Overloaded", {"type": "greentask.Overloaded", "message": "why"}),
    ],
)
def test_what_a_coroutine_raises_is_told_and_the_next_one_runs(
    loop: asyncio.AbstractEventLoop, how: str, described: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    assert error_of(fail_in_loop, [how]) == described
    assert run(which_loop, [1])[0] == 1
    assert error_of(fail_in_loop, [how]) == described
    gc.collect()
    assert caplog.text == "", "asyncio has nothing to add"


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("interrupted", [interrupted_running, interrupted_in_a_callback, interrupted_waiting])
def test_an_interrupted_coroutine_cleans_up_and_the_next_one_runs(
    loop: asyncio.AbstractEventLoop, interrupted: Task[..., Any]
) -> None:
    for _ in range(3):
        with pytest.raises(TimeLimit):
            execute(interrupted, None, RUNNING)
        assert notes[0] in ("TimeLimit", "CancelledError")
        assert notes[1:] == ["cleaned up"]
        assert current() == RunningTask()
        assert run(which_loop, [1])[0] == 1


@task(process=True)
async def goes_on() -> str:
    asyncio.get_running_loop().call_soon(interrupt)
    with contextlib.suppress(asyncio.CancelledError):
        await asyncio.sleep(60)
    return "half of it"


@pytest.mark.usefixtures("interruptible", "loop")
def test_a_coroutine_may_go_on_after_an_interrupt() -> None:
    assert run(goes_on) == "half of it"


@task(process=True)
async def fail_in_a_callback() -> str:
    asyncio.get_running_loop().call_soon(divmod, 1, 0)
    await asyncio.sleep(0)
    return "not the coroutine's fault"


@pytest.mark.usefixtures("loop")
def test_an_error_in_a_callback_is_logged_as_asyncio_does(caplog: pytest.LogCaptureFixture) -> None:
    assert run(fail_in_a_callback) == "not the coroutine's fault"
    assert "Exception in callback" in caplog.text
    assert "ZeroDivisionError" in caplog.text
