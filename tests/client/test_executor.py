"""`client.executor()`: what was written for the standard library's executors, run on a server."""

import asyncio
import concurrent.futures
import functools
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gevent
import pytest

from greentask import (
    Client,
    ConfigurationError,
    DeadlineExceeded,
    InvalidArguments,
    UnknownTask,
    task,
)
from greentask.client.executor import TaskExecutor
from greentask.testing import eager
from support import client_tasks, server_tasks
from support.programs import run_source
from support.servers import RunningServer, serving, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    plain = ["os.path:getsize", "time:sleep", "support.server_tasks:plain_add"]
    with serving(apps=["support.server_tasks", "support.client_tasks", *plain]) as running:
        yield running


@pytest.fixture
def executor(client: Client) -> Iterator[TaskExecutor]:
    with client.executor(window=4) as executor:
        yield executor


def local(a: int) -> int:
    return a


# ---- What it runs


def test_it_runs_tasks_names_and_functions_that_the_server_offers(executor: TaskExecutor, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("four")
    assert executor.submit(server_tasks.add, 1, b=2).result() == 3
    assert executor.submit("add", 1, 2).result() == 3
    assert executor.submit(server_tasks.plain_add, 1, b=2).result() == 3
    assert executor.submit(os.path.getsize, str(file)).result() == 4
    assert executor.submit(time.sleep, 0).result() is None  # which is gevent's there
    assert executor.submit(server_tasks.add.function, 1, 2).result() == 3
    assert executor.submit(functools.partial(server_tasks.add, b=5), 1).result() == 6
    assert list(executor.map(functools.partial(server_tasks.add, 1), range(3))) == [1, 2, 3]


def test_a_function_that_the_server_doesn_t_have_is_told_with_what_would_do(executor: TaskExecutor) -> None:
    with pytest.raises(UnknownTask, match=r"no task is the function 'json:loads'.*greentask serve json:loads"):
        executor.submit(json.loads, "1").result()


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (lambda: 1, r"lambda.*@task"),
        (local, "no task is the function"),
        ("a string".upper, r"upper.*@task"),
        (server_tasks.add.using(timeout=1), r"client\.using\(timeout=…\)\.executor\(\)\.submit\(add"),
        (Client, "no task is the function"),
        (5, "5 is no function"),
    ],
)
def test_what_no_server_can_have_is_refused(executor: TaskExecutor, function: Any, told: str) -> None:
    with pytest.raises((ConfigurationError, UnknownTask), match=f"(?s){told}"):
        executor.submit(function).result()


def test_a_function_of_the_program_itself_is_refused() -> None:
    source = """
from greentask import Client, ConfigurationError
def mine():
    pass
with Client("127.0.0.1:1").executor() as executor:
    try:
        executor.submit(mine)
    except ConfigurationError as error:
        assert "defined in the program that was started" in str(error)
        print("refused")
"""
    assert run_source(source) == ["refused"]


def test_errors_are_the_future_s(executor: TaskExecutor) -> None:
    assert isinstance(executor.submit(server_tasks.add).exception(), InvalidArguments)
    assert isinstance(executor.submit(server_tasks.add, {1}).exception(), InvalidArguments)
    with pytest.raises(KeyError):
        executor.submit(client_tasks.lose, "it").result()
    with pytest.raises(TypeError, match="either by position or by name"):
        executor.submit("add", 1, b=2)


def test_the_client_s_timeout_holds(client: Client) -> None:
    with client.using(timeout=0.05).executor() as executor:
        assert isinstance(executor.submit("nap", 5).exception(), DeadlineExceeded)


# ---- map


def test_map_is_that_of_an_executor(executor: TaskExecutor) -> None:
    assert list(executor.map(server_tasks.add, range(50), range(50), chunksize=7)) == list(range(0, 100, 2))
    with pytest.raises(concurrent.futures.TimeoutError):
        list(executor.map(server_tasks.nap, [0, 5], timeout=0.1))
    with pytest.raises(KeyError):
        list(executor.map(client_tasks.lose, ["a", "b"]))


@pytest.mark.parametrize("chunksize", [1, 5, 100])
def test_chunks_start_together_and_each_call_has_an_end_of_its_own(client: Client, chunksize: int) -> None:
    with client.executor(window=20) as executor:
        assert list(executor.map(server_tasks.add, range(50), [1] * 50, chunksize=chunksize)) == list(range(1, 51))
        results = executor.map(client_tasks.subtract, [3, 2, "x", 1], [1, 1, 1, 1], chunksize=chunksize)
        assert [next(results), next(results)] == [2, 1]
        with pytest.raises(TypeError):
            next(results)
    with client.using(timeout=0.05).executor() as executor, pytest.raises(DeadlineExceeded):
        list(executor.map(server_tasks.nap, [5] * 10, chunksize=chunksize))
    with pytest.raises(ValueError, match="chunksize"):
        executor.map("add", [1], chunksize=0)


def test_a_map_reads_no_further_than_its_buffer(executor: TaskExecutor) -> None:
    read: list[int] = []
    numbers = (read.append(number) or number for number in range(100))  # type: ignore[func-returns-value]
    results = executor.map(server_tasks.add, numbers, chunksize=4, buffersize=3)
    assert len(read) == 12
    assert next(results) == 0
    assert len(read) == 16
    results.close()  # type: ignore[attr-defined]
    with pytest.raises(ValueError, match="buffersize"):
        executor.map("add", [1], buffersize=0)


def test_leaving_a_map_takes_back_what_waits(client: Client) -> None:
    with client.executor(window=1) as executor:
        results = executor.map(server_tasks.nap, [0.0, 30.0, 30.0])
        assert next(results) == 0.0
        results.close()  # type: ignore[attr-defined]  # or the end of the executor would take a minute


def test_however_many_are_submitted_a_window_of_them_is_in_flight(client: Client) -> None:
    with client.executor(window=3) as executor:
        most = max(executor.map(client_tasks.overlap, ["window"] * 12, [0.02] * 12))
    assert most == 3
    with pytest.raises(ValueError, match="at least 1"):
        client.executor(window=0)


# ---- Futures


def test_a_future_s_states(client: Client) -> None:
    with client.executor(window=1) as executor:
        first, second, third = (executor.submit(client_tasks.hold, "states") for _ in range(3))
        assert (first.running(), second.running(), first.done()) == (True, False, False)
        assert third.cancel()
        assert third.cancelled()
        client.call("release", "states")
        assert (first.result(), second.result()) == ("states", "states")
        assert not first.cancel()
        assert not first.running()
        done, _ = concurrent.futures.wait([first, second, third])
        assert done == {first, second, third}
        assert set(concurrent.futures.as_completed([first, third])) == {first, third}


def test_cancelling_one_in_flight_ends_it_on_the_server(client: Client) -> None:
    with client.executor(window=1) as executor:
        first, second = executor.submit(server_tasks.nap, 30), executor.submit(server_tasks.add, 1)
        wait_until(lambda: client.call("greentask.status")["in_flight"] == 2, "it runs there")
        assert first.cancel()
        with pytest.raises(concurrent.futures.CancelledError):
            first.result()
        assert second.result() == 1  # has its turn


def test_a_task_s_deadline_holds_for_what_it_submits() -> None:
    with Client("127.0.0.1:1") as client:

        @task
        def inner() -> str:
            return "ran"

        @task(timeout=0.05)
        def outer() -> Any:
            time.sleep(0.001)
            with client.executor() as executor:
                future = executor.submit(inner)
                future.result()
                assert 0 < calls.calls_to(inner)[0].timeout < 0.05  # type: ignore[operator]
                return future.result()

        with eager(inner, outer) as calls:
            assert outer.call() == "ran"


def test_a_task_that_starts_another_one_s_call_gives_it_no_deadline() -> None:
    with Client("127.0.0.1:1") as client, client.executor(window=1) as executor:

        @task
        def plain() -> None:
            pass

        @task(timeout=20)
        def make_room() -> None:
            delayed.cancel()  # what waits is started here

        with eager(plain, make_room) as calls:
            calls.delay(plain, 60)
            delayed, waiting = executor.submit(plain), executor.submit(plain)
            make_room.call()
            assert waiting.done()
            assert [call.timeout for call in calls.calls_to(plain)] == [None, None]


# ---- Its end


def test_after_shutdown_it_takes_nothing(client: Client) -> None:
    with client.executor() as executor:
        future = executor.submit(server_tasks.nap, 0.05)
    assert future.done()
    with pytest.raises(RuntimeError, match="after shutdown"):
        executor.submit(server_tasks.add, 1)
    executor.shutdown()  # again, of no effect
    assert client.call("add", 1) == 1  # the client goes on


def test_a_shutdown_waits_for_callbacks_too(client: Client) -> None:
    order: list[str] = []
    begun = threading.Event()

    def called(_: Any) -> None:
        begun.set()
        time.sleep(0.05)
        order.append("callback")

    executor = client.executor()
    executor.submit(client_tasks.hold, "callback").add_done_callback(called)
    client.call("release", "callback")
    assert begun.wait(20)
    executor.shutdown()
    assert order == ["callback"]


def test_a_shutdown_may_take_back_what_waits(client: Client) -> None:
    executor = client.executor(window=1)
    futures = [executor.submit(client_tasks.hold, "back") for _ in range(5)]
    executor.shutdown(wait=False, cancel_futures=True)
    assert [future.cancelled() for future in futures] == [False, True, True, True, True]
    client.call("release", "back")
    executor.shutdown()
    assert futures[0].result() == "back"


def test_a_program_ends_when_what_it_submitted_has_ended(server: RunningServer) -> None:
    source = """
import sys, atexit
from greentask import Client
executor = Client(sys.argv[1]).executor(window=1)
for number in range(3):
    executor.submit("nap", 0.02).add_done_callback(lambda future: print(future.result()))
"""
    for patched in (False, True):
        assert run_source(source, server.address, patched=patched) == ["0.02"] * 3


def test_a_forked_child_has_nothing_of_its_parent_s(server: RunningServer) -> None:
    source = """
import os, sys
from greentask import Client
client = Client(sys.argv[1])
executor = client.executor(window=1)
futures = [executor.submit("nap", 0.3) for _ in range(2)]
pid = os.fork()
if not pid:
    print(executor.submit("add", 1, 2).result(), flush=True)
    executor.shutdown()
    os._exit(0)
os.waitpid(pid, 0)
print(*[future.result() for future in futures])
"""
    assert run_source(source, server.address) == ["3", "0.3", "0.3"]


# ---- In every kind of program


def test_many_threads_may_use_one(executor: TaskExecutor) -> None:
    results: list[int] = []
    threads = [
        threading.Thread(target=lambda: results.extend(executor.map(server_tasks.add, range(20)))) for _ in range(5)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted(list(range(20)) * 5)


def test_greenlets_wait_for_it_side_by_side(client: Client) -> None:
    with client.executor() as executor:
        jobs = [gevent.spawn(lambda: executor.submit(client_tasks.overlap, "side", 0.1).result()) for _ in range(5)]
        assert max(job.get() for job in jobs) > 1


def test_in_a_patched_program(server: RunningServer) -> None:
    source = """
import sys, threading, concurrent.futures
from greentask import Client
with Client(sys.argv[1]) as client, client.executor(window=2) as executor:
    futures = [executor.submit("nap", 0.01) for _ in range(5)]
    print(len(concurrent.futures.wait(futures).done))
    print(*executor.map("add", [1, 2], [3, 4]))
"""
    assert run_source(source, server.address, patched=True) == ["5", "4", "6"]


def test_in_asyncio(executor: TaskExecutor, client: Client) -> None:
    async def main() -> Any:
        loop = asyncio.get_running_loop()
        results = await asyncio.gather(*(loop.run_in_executor(executor, server_tasks.add, n, n) for n in range(5)))
        slow = loop.run_in_executor(executor, server_tasks.nap, 30)
        await asyncio.sleep(0)
        slow.cancel()
        with pytest.raises(asyncio.CancelledError):
            await slow
        return results

    assert asyncio.run(main(), debug=True) == [0, 2, 4, 6, 8]


def test_a_callback_can_t_wait_for_it(executor: TaskExecutor) -> None:
    told: list[BaseException] = []

    def wait(done: Any) -> None:
        try:
            executor.submit(server_tasks.add, 1).result()
        except RuntimeError as error:
            told.append(error)

    executor.submit(server_tasks.nap, 0.01).add_done_callback(wait)
    wait_until(lambda: told, "the callback has run")
    assert "can't wait for a call" in str(told[0])


def test_in_place_it_runs_as_well(tmp_path: Path) -> None:
    with eager("support.server_tasks", "os.path:getsize") as calls, Client("127.0.0.1:1").executor() as executor:
        assert list(executor.map(server_tasks.add, [1, 2])) == [1, 2]
        assert executor.submit(os.path.getsize, str(tmp_path)).result() > 0
        assert executor.submit(server_tasks.add.function, 4).result() == 4
        assert len(calls.calls_to(server_tasks.add)) == 3
