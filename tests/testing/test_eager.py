"""Tasks that run in place: what comes of them is what comes of them on a server."""

import asyncio
import gc
import signal
import threading
import time
from collections.abc import Callable

import gevent
import pytest

from greentask import (
    Client,
    ConfigurationError,
    DeadlineExceeded,
    InvalidArguments,
    InvalidResult,
    TaskError,
    TimeLimit,
    UnknownTask,
    current,
    default_client,
    task,
)
from greentask.testing import Calls, eager
from greentask.testing.limit import time_limit
from support import tested_tasks as tasks
from support.programs import run_source

APP = "support.tested_tasks"


# ---- The same in place and on a server


def test_arguments_and_results_are_those_that_json_can_carry(calls: Calls) -> None:
    assert tasks.add.call(1, b=2) == 3
    assert tasks.give.call("tuple") == [1, [2]]
    assert tasks.give.call("none") is None
    with pytest.raises(InvalidArguments, match=r"args\['a'\] is a set"):
        tasks.add.call(a={1})  # type: ignore[arg-type]
    for kind in ("set", "nan"):
        with pytest.raises(InvalidResult, match=r"^give returned what JSON can't carry: result is"):
            tasks.give.call(kind)


def test_arguments_are_bound_to_the_signature(calls: Calls) -> None:
    with pytest.raises(InvalidArguments, match=r"add\(a.*missing a required argument: 'a'"):
        tasks.add.call()  # type: ignore[call-arg]
    with pytest.raises(InvalidArguments, match="no generator"):
        list(tasks.add.stream(1))


def test_errors_come_as_the_wire_brings_them(calls: Calls) -> None:
    with pytest.raises(KeyError) as key:
        tasks.fail.call("key")
    assert key.value.args == ("k",)
    with pytest.raises(TaskError, match="OddError: so odd"):
        tasks.fail.call("odd")
    with pytest.raises(TaskError) as ours:  # a task's own Overloaded doesn't say that it did not run
        tasks.fail.call("ours")
    assert ours.value.type == "greentask.Overloaded"
    with pytest.raises(UnknownTask, match="no task is named 'ad'; did you mean add"):
        default_client().call("ad", 1)


def test_a_deadline_ends_a_task_and_its_caller_hears_of_it(calls: Calls) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded) as late:
        tasks.nap.using(timeout=0.15).call(10)
    assert late.value.started
    with pytest.raises(DeadlineExceeded):
        tasks.oversleep.call()
    assert time.monotonic() - began < 3
    assert tasks.nap.using(timeout=20).call(0) == "slept"


def test_the_context_is_the_tasks_own(calls: Calls) -> None:
    tasks.whose.set("the caller's")
    assert tasks.where.using(timeout=20).call() == ["where", True, "nobody's"]
    assert tasks.nested.call() == [3, "nested"]
    assert current().name is None


def test_progress_is_reported(calls: Calls) -> None:
    reports: list[object] = []
    assert tasks.report.using(progress=reports.append).call() == "done"
    assert reports == [{"done": 1, "total": 2, "note": "half"}, {"done": 2, "total": 2}]


def test_streams_and_maps(calls: Calls) -> None:
    assert list(tasks.count.stream(200)) == list(range(200))
    assert tasks.count.call(3) == [0, 1, 2]
    assert list(tasks.add.map(range(5), range(5))) == [0, 2, 4, 6, 8]
    assert sorted(tasks.add.map(range(5), range(5), unordered=True, window=2)) == [0, 2, 4, 6, 8]
    assert list(tasks.add.starmap([{"a": 1}, (2, 3)])) == [1, 5]
    given = list(tasks.fail.map(["key", "odd"], return_exceptions=True))
    assert [type(error) for error in given] == [KeyError, TaskError]


def test_a_coroutine_runs_also_where_a_loop_runs_already(calls: Calls) -> None:
    assert tasks.wait.call(0.001) == "waited"

    async def main() -> object:
        return await asyncio.wrap_future(tasks.wait.submit(0.001))

    assert asyncio.run(main()) == "waited"


# ---- In place only


def test_a_stream_is_as_far_ahead_as_on_a_server_and_closed_with_its_reader() -> None:
    with eager(APP) as calls:
        items = tasks.count.stream(10**9, "left")
        assert [next(items), next(items)] == [0, 1]
        [call] = calls.calls
        assert len(call.items) == 64
        items.close()  # type: ignore[attr-defined]
        assert tasks.closed[-1] == "left"


def test_every_client_s_calls_run_in_place_and_from_every_thread() -> None:
    with eager(APP) as calls, Client("127.0.0.1:1") as client:
        assert client.call("add", 1, 2) == 3
        assert client.submit(tasks.add, 1).result() == 1
        results: list[int] = []
        thread = threading.Thread(target=lambda: results.append(tasks.add.call(3)))
        thread.start()
        thread.join()
        assert gevent.spawn(tasks.add.call, 4).get() == 4
        assert results == [3]
        assert len(calls.calls_to("add")) == 4


def test_a_task_runs_in_the_thread_that_calls() -> None:
    @task
    def thread() -> int:
        return threading.get_ident()

    async def main() -> int:
        return thread.call()

    with eager(thread):
        assert thread.call() == thread.submit().result() == threading.get_ident()
        assert asyncio.run(main()) == threading.get_ident()


def test_the_error_has_the_task_s_own_as_its_cause() -> None:
    with eager(APP), pytest.raises(TaskError) as raised:
        tasks.fail.call("odd")
    assert isinstance(raised.value.__cause__, tasks.OddError)
    assert raised.value.__cause__.__traceback__ is not None


def test_without_apps_it_knows_what_is_imported() -> None:
    with eager():
        assert tasks.of_a_name_that_nothing_else_has.call() == "found"
        assert tasks.watched.call() == "well"
        with pytest.raises(UnknownTask, match="'nowhere' in any module that is imported"):
            Client("127.0.0.1:1").call("nowhere")


def test_with_apps_it_knows_those_only() -> None:
    with eager(tasks.add, tasks.tasks):
        assert tasks.add.call(1) == 1
        assert tasks.watched.call() == "well"
        with pytest.raises(UnknownTask):
            tasks.report.call()
    with eager(tasks), eager(len):
        assert Client("127.0.0.1:1").call("len", [1, 2]) == 2
    with pytest.raises(ConfigurationError, match=r"no module 'support.nowhere'"), eager("support.nowhere"):
        pass


def test_two_tasks_of_one_name_are_told_apart_by_naming_one() -> None:
    from support import client_tasks, server_tasks, shop  # noqa: F401

    with pytest.raises(ConfigurationError, match="'add' is the name of several tasks that are imported"), eager():
        Client("127.0.0.1:1").call("add", 1, 2)


def test_middleware_is_around_it() -> None:
    tasks.seen.heard.clear()
    with eager(tasks.tasks):
        tasks.watched.call()
        with pytest.raises(TaskError):
            tasks.watched.call("odd")
        with pytest.raises(Exception, match="not today"):
            tasks.refused.call()
        assert list(tasks.watched_items.stream()) == [1]
    assert tasks.seen.heard == [
        *("watched begins", "watched: done"),
        *("watched begins", "watched raised OddError", "watched: failed"),
        "refused: refused",
        *("watched_items begins", "watched_items: done"),
    ]


def test_what_hits_a_task_only_here_goes_through() -> None:
    @task
    def hit(kind: str) -> None:
        if kind == "Ctrl-C":
            signal.raise_signal(signal.SIGINT)
        elif kind == "pytest":
            pytest.fail("of the test's own")
        gevent.sleep(10)

    with eager(hit) as calls:
        with pytest.raises(KeyboardInterrupt):
            hit.call("Ctrl-C")
        with pytest.raises(pytest.fail.Exception, match="of the test's own"):
            hit.call("pytest")
        with gevent.Timeout(0.05, False):
            hit.call("gevent")
        assert all(call.ended and call.result is None for call in calls.calls)


@pytest.mark.parametrize("waits", [time.sleep, gevent.sleep])
def test_a_deadline_ends_any_wait_once(waits: Callable[[float], None]) -> None:
    cleaned: list[str] = []

    @task
    def wait() -> None:
        try:
            waits(10)
        finally:
            waits(0.05)
            cleaned.append("up")

    began = time.monotonic()
    with eager(wait), pytest.raises(DeadlineExceeded):
        wait.using(timeout=0.05).call()
    assert cleaned == ["up"]
    assert time.monotonic() - began < 5


def test_it_ends_as_it_began() -> None:
    before = signal.getsignal(signal.SIGURG)
    with eager(APP), pytest.raises(DeadlineExceeded):
        tasks.nap.using(timeout=0.02).call(5)
    assert signal.getsignal(signal.SIGURG) is before
    assert not [one for one in threading.enumerate() if one.name.startswith("greentask")]
    with Client("127.0.0.1:1") as client, pytest.raises(ConnectionError):
        client.call("add", 1)
    gc.collect()  # an event loop that was left would complain here


def test_a_time_that_is_up_already_leaves_no_handler_behind() -> None:
    before = signal.getsignal(signal.SIGURG)
    for _ in range(50):
        with pytest.raises(TimeLimit), time_limit(time.monotonic()):
            time.sleep(5)
        assert signal.getsignal(signal.SIGURG) is before
    assert not [one for one in threading.enumerate() if one.name.startswith("greentask")]


@pytest.mark.parametrize("patched", [False, True])
def test_in_programs_of_either_kind(patched: bool) -> None:
    source = """
import sys, threading, time
from greentask import DeadlineExceeded
from greentask.testing import eager
from support import tested_tasks as tasks
with eager():
    began = time.monotonic()
    for seconds, call in ((0.1, tasks.nap.call), (0.1, lambda n: tasks.nap.submit(n).result())):
        try:
            tasks.nap.using(timeout=seconds).call(20)
        except DeadlineExceeded as error:
            assert error.started, error
    try:
        tasks.oversleep.submit().result()
    except DeadlineExceeded:
        print(*tasks.count.stream(3), tasks.wait.call(0.001), time.monotonic() - began < 5)
print("gevent.monkey" in sys.modules and sys.modules["gevent.monkey"].is_module_patched("time"))
"""
    assert run_source(source, patched=patched) == ["0", "1", "2", "waited", "True", str(patched)]
