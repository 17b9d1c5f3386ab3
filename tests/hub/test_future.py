"""The cheap future: the standard library's in every respect, waited for by greenlets and threads."""

import threading
from collections.abc import Callable
from concurrent import futures
from concurrent.futures import CancelledError, Future, InvalidStateError

import gevent
import pytest

from greentask.hub import future as future_module
from greentask.hub.future import HomeFuture
from greentask.hub.home import find_home
from support.conditions import wait_until
from support.interrupting import at_each_moment
from support.programs import run_source


def test_it_has_all_that_a_future_of_this_python_has() -> None:
    ours, theirs = vars(HomeFuture(find_home())), vars(Future())
    assert ours.keys() == theirs.keys()
    assert {key: value for key, value in ours.items() if key != "_condition"} == {
        key: value for key, value in theirs.items() if key != "_condition"
    }


def test_results_errors_and_states() -> None:
    future, failed, cancelled = (HomeFuture(find_home()) for _ in range(3))
    with pytest.raises(futures.TimeoutError):
        future.result(0.001)
    assert future.set_running_or_notify_cancel()
    assert future.running()
    assert not future.cancel()
    heard: list[str] = []
    future.add_done_callback(lambda done: heard.append(done.result()))
    future.set_result("result")
    assert (future.result(), future.exception(), heard) == ("result", None, ["result"])
    with pytest.raises(InvalidStateError):
        future.set_result("again")
    failed.set_exception(LookupError())
    with pytest.raises(LookupError):
        failed.result(1)
    assert cancelled.cancel()
    assert cancelled.cancelled()
    with pytest.raises(CancelledError):
        cancelled.result()


def test_several_threads_wait_for_one() -> None:
    future, got = HomeFuture(find_home()), list[int]()
    waiting = [threading.Thread(target=lambda: got.append(future.result(10))) for _ in range(5)]
    for thread in waiting:
        thread.start()
    futures.wait([future], 0.05)
    future.set_result(1)
    for thread in waiting:
        thread.join(10)
    assert got == [1] * 5
    assert futures.wait([future], 1).done == {future}
    assert list(futures.as_completed([future], 1)) == [future]


@pytest.mark.parametrize("timeout", [0, -0.5, -1])
def test_no_time_at_all_is_over_at_once(timeout: float) -> None:
    with pytest.raises(futures.TimeoutError):
        HomeFuture(find_home()).result(timeout)


def test_nobody_who_gave_up_waiting_is_remembered() -> None:
    future = HomeFuture(find_home())
    for _ in range(3):
        with pytest.raises(futures.TimeoutError):
            future.result(0.001)
    assert future._condition.bell.wakes == []  # type: ignore[attr-defined]


def test_in_a_patched_program_greenlets_wait_for_greenlets_and_for_threads() -> None:
    program = """
import gevent
from gevent import monkey
from greentask.hub.future import HomeFuture
from greentask.hub.home import find_home
start = monkey.get_original("_thread", "start_new_thread")
sleep = monkey.get_original("time", "sleep")
home = find_home()
def set_when_waited_for(future, value):
    while not (future._condition.bell and future._condition.bell.wakes):
        sleep(0.001)
    future.set_result(value)
beside, later = HomeFuture(home), HomeFuture(home)
waiting = [gevent.spawn(future.result) for future in (beside, beside, later)]
gevent.sleep(0)
gevent.spawn(beside.set_result, 1)
start(set_when_waited_for, (later, 2))
assert [greenlet.get() for greenlet in waiting] == [1, 1, 2]
alone = HomeFuture(home)
start(set_when_waited_for, (alone, 3))
assert alone.result() == 3  # with no other greenlet, timer or watcher in the loop
victim = gevent.spawn(HomeFuture(home).result)
gevent.sleep(0)
victim.kill()
print("done")
"""
    assert run_source(program, patched=True) == ["done"]


def test_in_the_hub_itself_nobody_can_wait() -> None:
    errors: list[BaseException] = []

    def wait() -> None:
        try:
            future.result(1)
        except RuntimeError as error:
            errors.append(error)

    future = HomeFuture(find_home())
    gevent.get_hub().loop.run_callback(wait)
    gevent.sleep(0)  # behind it
    assert "in the hub itself" in str(errors[0])


def end_and_tell_again(run: Callable[[Callable[[], object]], None]) -> None:
    future, told = HomeFuture(find_home()), list[str]()
    for name in "abc":
        future.add_done_callback(lambda _, name=name: told.append(name))  # type: ignore[misc]
    done = list[bool]()
    waiting = threading.Thread(target=lambda: done.append(not futures.wait([future], 20).not_done))
    waiting.start()
    wait_until(lambda: future._waiters)
    run(lambda: future.set_result(1))
    if not future.done():
        future.set_result(1)
    future.tell_again()
    waiting.join(20)
    assert done == [True]
    assert sorted(set(told)) == ["a", "b", "c"]
    assert len(told) <= 4, "at most the one that was hit is called twice"
    future.tell_again()
    assert len(told) <= 4


def test_a_ctrl_c_at_any_moment_of_its_end_keeps_it_from_nobody_who_is_told_again() -> None:
    for run in at_each_moment(future_module, futures._base):
        end_and_tell_again(run)
