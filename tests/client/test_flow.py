"""``wait``, ``as_completed``, ``gather``: several futures at once; ``then``: one call's result goes on to the next."""

import threading
from collections.abc import Callable
from concurrent.futures import FIRST_COMPLETED, FIRST_EXCEPTION, CancelledError, Future
from concurrent.futures import TimeoutError as NotInTime
from typing import Any

import pytest

from greentask import Client, UnknownTask, as_completed, gather, wait
from greentask.tasks.remote import TaskFuture
from support import client_tasks, server_tasks
from support.conditions import wait_until
from support.peers import peer, silent


def ended(value: Any = None, error: BaseException | None = None) -> Future[Any]:
    future: Future[Any] = Future()
    if error is None:
        future.set_result(value)
    else:
        future.set_exception(error)
    return future


# ---- as_completed


def test_futures_come_as_they_end(client: Client) -> None:
    slow, quick = client.submit("nap", 0.2), client.submit("nap", 0.0)
    assert list(as_completed([slow, quick])) == [quick, slow]


def test_one_that_is_given_twice_comes_once(client: Client) -> None:
    future = client.submit("add", 1, 2)
    assert list(as_completed([future, future])) == [future]


def test_those_that_have_ended_come_at_once_and_others_raise_in_time(client: Client) -> None:
    there, never = ended(1), client.submit("hold", "never asked for")
    futures = as_completed([never, there], timeout=0.05)
    assert next(futures) is there
    with pytest.raises(NotInTime, match="1 of 2 futures have not ended"):
        next(futures)
    assert never._waiters == [], "nothing is left with it"
    never.cancel()


def test_who_asks_for_none_of_them_leaves_nothing_with_the_futures(client: Client) -> None:
    future = client.submit("hold", "never asked for")
    not_started = as_completed([future])
    assert future._waiters == []
    del not_started
    assert future.cancel()


def test_no_futures_have_ended() -> None:
    assert list(as_completed([])) == []
    assert wait([]) == (set(), set())
    assert gather() == []


def test_a_cancelled_one_has_ended(client: Client) -> None:
    future = client.submit("hold", "cancelled")
    waiting = as_completed([future])
    future.cancel()
    assert list(waiting) == [future]


# ---- wait


def test_wait_waits_for_all(client: Client) -> None:
    futures = {client.submit("nap", 0.0), client.submit("nap", 0.1), ended(error=ValueError())}
    assert wait(futures) == (futures, set())


def test_wait_waits_for_the_first(client: Client) -> None:
    quick, never = client.submit("add", 1), client.submit("hold", "wait for the first")
    assert wait([quick, never], return_when=FIRST_COMPLETED) == ({quick}, {never})
    never.cancel()


def test_wait_waits_for_the_first_error(client: Client) -> None:
    good, bad, never = client.submit("add", 1), client.submit("nap", "x"), client.submit("hold", "first error")
    wait([good])
    done, not_done = wait([good, bad, never], return_when=FIRST_EXCEPTION)
    assert (done, not_done) == ({good, bad}, {never})
    never.cancel()


def test_wait_has_a_limit_and_leaves_nothing_with_the_futures(client: Client) -> None:
    never = client.submit("hold", "wait with a limit")
    for _ in range(3):
        assert wait([never], timeout=0.01) == (set(), {never})
    assert never._waiters == []
    never.cancel()


def test_wait_for_something_else_is_refused() -> None:
    with pytest.raises(ValueError, match="FIRST_COMPLETED"):
        wait([], return_when="SOMETIME")


def test_futures_of_others_are_as_good() -> None:
    future: Future[int] = Future()
    threading.Timer(0.05, future.set_result, [7]).start()
    assert [one.result() for one in as_completed([future], timeout=10)] == [7]


# ---- gather


def test_gather_gives_results_in_the_order_of_the_futures(client: Client) -> None:
    assert gather(client.submit("nap", 0.1), client.submit("add", 1, 2), ended("x")) == [0.1, 3, "x"]


def test_the_first_error_ends_a_gathering_and_cancels_the_rest(client: Client) -> None:
    never = client.submit("hold", "gathered")
    with pytest.raises(UnknownTask):
        gather(never, client.submit("no_such_task"))
    assert never.cancelled()


def test_gather_gives_errors_if_wanted(client: Client) -> None:
    number, error = gather(client.submit("add", 1), client.submit("fail", "no stock"), return_exceptions=True)
    assert number == 1
    assert isinstance(error, ValueError)


def test_gather_has_a_limit(client: Client) -> None:
    never = client.submit("hold", "gathered for long")
    with pytest.raises(NotInTime):
        gather(never, timeout=0.05)
    assert never.cancelled()


# ---- then


def test_a_result_goes_on_to_the_next_task(client: Client) -> None:
    chain = client.submit("add", 1, 2).then("add", 10).then("echo")
    assert chain.result(10) == 13
    assert client.submit("add", 1).then(client_tasks.subtract, b=5, times=2).result(10) == -9


def test_a_task_has_the_same(client: Client) -> None:
    future = server_tasks.add.using(client).submit(1, 2).then(server_tasks.add, 4)
    assert future.result(10) == 7


def test_it_goes_on_from_one_that_has_ended(client: Client) -> None:
    future = client.submit("add", 1, 2)
    wait([future])
    assert future.then("add", 10).result(10) == 13
    assert future.then("add", 20).result(10) == 23


def test_an_error_ends_the_chain(client: Client) -> None:
    chain = client.submit("fail", "no stock").then("mark", "/nonexistent").then("echo")
    with pytest.raises(ValueError, match="no stock"):
        chain.result(10)
    with pytest.raises(UnknownTask):
        client.submit("add", 1).then("no_such_task").then("echo").result(10)


def test_arguments_that_do_not_fit_are_the_chains_error(client: Client) -> None:
    with pytest.raises(TypeError, match="by position or by name"):
        client.submit("add", 1).then("add", b=3).result(10)


@pytest.mark.parametrize("started", [False, True], ids=["before the last one starts", "when it runs"])
def test_cancelling_a_chain_cancels_what_runs(client: Client, started: bool) -> None:
    key = f"chained {started}"
    first = client.submit("overlap", key, 30) if not started else client.submit("echo", key)
    chain = first.then("echo") if not started else first.then("overlap", 30)
    wait_until(lambda: client.call("running_now", key) == 1, "the task runs")
    chain.cancel()
    wait_until(lambda: client.call("running_now", key) == 0, "the task was cancelled")
    with pytest.raises(CancelledError):
        chain.result(10)


@pytest.mark.parametrize("which", ["the first", "the last"])
def test_a_chain_may_be_longer_than_pythons_stack(client: Client, which: str) -> None:
    first: TaskFuture[Any] = client.submit("hold", "for ever")
    last = first
    for _ in range(1000):
        last = last.then("add", 1)
    (first if which == "the first" else last).cancel()
    with pytest.raises(CancelledError):
        last.result(20)
    wait_until(first.cancelled, "the running one is cancelled, too")


def test_the_first_error_goes_through_a_chain_of_any_length(client: Client) -> None:
    last: TaskFuture[Any] = client.submit("fail", "at first")
    for _ in range(1000):
        last = last.then("add", 1)
    assert str(last.exception(20)) == "at first"


def test_a_chain_ends_with_the_one_that_was_cancelled_before_it(client: Client) -> None:
    first = client.submit("hold", "cancelled before")
    chain = first.then("echo").then("echo")
    first.cancel()
    assert list(as_completed([chain], timeout=10)) == [chain]
    assert chain.cancelled()


def test_a_chain_has_its_clients_options() -> None:
    with peer(silent) as server, Client(server.address, timeout=0.1) as client:
        chain = client.submit("echo").then("echo")
        with pytest.raises(TimeoutError):
            chain.result(10)


def test_a_chain_needs_nobody_who_waits(client: Client) -> None:
    seen: list[Any] = []
    client.submit("add", 1, 1).then("add", 1).add_done_callback(lambda future: seen.append(future.result()))
    wait_until(lambda: seen == [3], "the chain has ended")


# ---- In the thread of the I/O


@pytest.mark.parametrize("waiting", [lambda future: wait([future]), lambda future: gather(future)])
def test_a_callback_may_not_wait_there(client: Client, waiting: Callable[[Future[Any]], Any]) -> None:
    heard: list[BaseException] = []
    never = client.submit("hold", "never")

    def callback(_: Future[Any]) -> None:
        try:
            waiting(never)
        except RuntimeError as error:
            heard.append(error)

    client.submit("add", 1).add_done_callback(callback)
    wait_until(lambda: heard, "waiting is refused")
    never.cancel()


def test_futures_are_gathered_one_argument_each(client: Client) -> None:
    future = client.submit("add", 1, 2)
    with pytest.raises(TypeError, match=r"one argument each \(gather\(\*futures\)\), not \["):
        gather([future])  # type: ignore[arg-type]
    assert gather(future) == [3]
