"""What is seen of calls, and what is done to them, in place and on a server."""

import concurrent.futures
import threading
import time
from typing import Any

import pytest

from greentask import (
    Client,
    DeadlineExceeded,
    Draining,
    InvalidResult,
    Overloaded,
    TaskError,
    WorkerLost,
)
from greentask.testing import Calls, eager, watching
from greentask.testing import calls as module
from support import tested_tasks as tasks
from support.conditions import wait_until

APP = "support.tested_tasks"


def test_calls_are_recorded_with_what_they_gave(calls: Calls) -> None:
    tasks.add.call(1, b=2)
    tasks.add.using(timeout=30, idempotent=True).call(3)
    with pytest.raises(KeyError):
        tasks.fail.call("key")
    first, second = calls.calls_to(tasks.add)
    assert (first.args, first.kwargs, first.result, first.error) == ((), {"a": 1, "b": 2}, 3, None)
    assert (second.args, second.kwargs, second.timeout, second.idempotent) == ((3,), {}, 30, True)
    assert [call.arguments for call in (first, second)] == [{"a": 1, "b": 2}, {"a": 3}]
    [failed] = calls.calls_to("fail")
    assert failed.arguments == {"kind": "key"}
    assert isinstance(failed.error, KeyError)
    assert [call.task for call in calls.calls] == ["add", "add", "fail"]
    calls.clear()
    assert calls.calls == []


def test_streams_and_what_was_cancelled_are_recorded(calls: Calls) -> None:
    assert list(tasks.count.stream(3)) == [0, 1, 2]
    calls.delay(tasks.add, 30)
    future = tasks.add.submit(1)
    assert future.cancel()
    [stream], [cancelled] = calls.calls_to(tasks.count), calls.calls_to(tasks.add)
    assert (stream.items, stream.result) == ([0, 1, 2], {"items": 3})
    wait_until(lambda: cancelled.ended, "the cancellation is recorded")  # where calls are carried
    assert type(cancelled.error).__name__ == "Cancelled"


def test_a_name_that_no_task_has_is_named_with_close_ones(calls: Calls) -> None:
    assert (
        calls.calls_to("add") == calls.calls_to("support.tested_tasks:add") == calls.calls_to("greentask.status") == []
    )
    for use in (calls.calls_to, calls.lose_worker, calls.refuse, lambda name: calls.delay(name, 1)):
        with pytest.raises(LookupError, match=r"^\W*no task is named 'ad'; did you mean 'add'"):
            use("ad")
        with pytest.raises(LookupError, match=r"no task is named 'zzzzzzzz'\W*$"):
            use("zzzzzzzz")
    calls.answer("elsewhere", 1)
    assert calls.calls_to("elsewhere") == []


def test_where_calls_go_to_whichever_server_a_name_may_be_a_task_s_there() -> None:
    with watching() as calls:
        assert calls.calls_to("zzzzzzzz") == []
        with pytest.raises(LookupError, match="did you mean"):
            calls.calls_to("of_a_name_that_nothing_else_ha")


def test_a_worker_is_lost_as_often_as_was_said(calls: Calls) -> None:
    calls.lose_worker(tasks.add, times=2)
    assert tasks.give.call("none") is None  # another task
    for _ in range(2):
        with pytest.raises(WorkerLost) as lost:
            tasks.add.call(1)
        assert lost.value.started
    assert tasks.add.call(1) == 1


def test_an_idempotent_call_survives_that_as_it_does_with_a_client(calls: Calls) -> None:
    calls.lose_worker(tasks.add)
    assert tasks.add.using(idempotent=True).call(1) == 1
    calls.lose_worker(tasks.add, times=None)
    with pytest.raises(WorkerLost):
        tasks.add.using(idempotent=True).call(1)


def test_calls_are_refused(calls: Calls) -> None:
    calls.refuse(times=1)
    calls.refuse(tasks.add, error=Draining("for the night"))
    with pytest.raises(Overloaded) as refused:
        tasks.add.submit(1).result()
    assert refused.value.started is False
    with pytest.raises(Draining, match="for the night"):
        tasks.add.call(1)
    assert tasks.add.call(1) == 1


def test_a_delayed_call_takes_that_long(calls: Calls) -> None:
    calls.delay(tasks.add, 0.2)
    began = time.monotonic()
    future = tasks.add.submit(1)
    with pytest.raises(concurrent.futures.TimeoutError):
        future.result(timeout=0.01)
    assert future.result() == 1
    assert time.monotonic() - began >= 0.2
    calls.delay(tasks.count, 0.05)
    began = time.monotonic()
    assert list(tasks.count.stream(3)) == [0, 1, 2]
    assert time.monotonic() - began >= 0.05


def test_a_delay_is_the_next_call_s_and_not_that_of_those_behind_it(calls: Calls) -> None:
    calls.delay(tasks.add, 60)
    future = tasks.add.submit(1)
    assert tasks.add.submit(2).result(timeout=20) == 2
    assert not future.done()
    assert future.cancel()


def test_a_delay_beyond_the_timeout_is_out_of_time_at_that(calls: Calls) -> None:
    calls.delay(tasks.add, 60)
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        tasks.add.using(timeout=0.05).call(1)
    assert time.monotonic() - began < 20
    [call] = calls.calls
    assert isinstance(call.error, DeadlineExceeded)


def test_a_delay_goes_with_a_fault(calls: Calls) -> None:
    calls.delay(tasks.add, 0.05)
    calls.lose_worker(tasks.add)
    began = time.monotonic()
    with pytest.raises(WorkerLost):
        tasks.add.call(1)
    assert time.monotonic() - began >= 0.05


def test_calls_are_answered_in_their_task_s_place(calls: Calls) -> None:
    calls.answer("of_another_team", {"sent": (1, 2)})
    for _ in range(2):
        assert Client("127.0.0.1:1").call("of_another_team") == {"sent": [1, 2]}
    calls.answer(tasks.add, tasks.OddError("so odd"), times=1)
    with pytest.raises(TaskError, match="OddError: so odd"):  # as the wire would bring it
        tasks.add.call(1)
    assert tasks.add.call(1) == 1
    calls.answer(tasks.count, [7, 8])
    assert list(tasks.count.stream(99)) == [7, 8]
    with pytest.raises(InvalidResult):
        calls.answer(tasks.add, {1})


def test_what_is_for_all_calls_gives_way_to_what_is_said_later(calls: Calls) -> None:
    calls.answer("of_another_team", 1)
    calls.lose_worker("of_another_team")
    calls.refuse("of_another_team")
    client = Client("127.0.0.1:1")
    with pytest.raises(WorkerLost):
        client.call("of_another_team")
    with pytest.raises(Overloaded):
        client.call("of_another_team")
    assert client.call("of_another_team") == 1
    calls.answer("of_another_team", 2)
    assert [client.call("of_another_team") for _ in range(2)] == [2, 2]


def test_what_can_t_be_meant_is_refused() -> None:
    calls = Calls()
    for nonsense in (lambda: calls.lose_worker("add", times=0), lambda: calls.delay("add", -1)):
        with pytest.raises(ValueError, match=r"at least 1|above 0"):
            nonsense()


def test_arguments_of_a_task_that_is_nowhere_have_no_names() -> None:
    with watching() as calls:
        calls.answer("nowhere", 1)
        assert Client("127.0.0.1:1").call("nowhere", 1) == 1
    assert calls.calls[0].args == (1,)
    with pytest.raises(LookupError, match="'nowhere' is in no module"):
        _ = calls.calls[0].arguments


def test_a_fault_for_one_call_hits_one_of_many_threads() -> None:
    with eager(APP) as calls:
        calls.lose_worker(tasks.add, times=20)
        lost: list[Any] = []

        def run() -> None:
            for result in tasks.add.map(range(50), return_exceptions=True):
                lost.extend([result] if isinstance(result, WorkerLost) else [])

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(lost), len(calls.calls)) == (20, 200)


def test_of_very_many_calls_the_newest_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_CALLS", 5)
    with eager(APP) as calls:
        for number in range(8):
            tasks.add.call(number)
    assert [call.args for call in calls.calls] == [(number,) for number in range(3, 8)]
