"""`Pool`, as a program that had a `ProcessPoolExecutor` uses it; here its I/O is in the background thread."""

import asyncio
import itertools
import multiprocessing
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent import futures
from concurrent.futures import ALL_COMPLETED, BrokenExecutor, CancelledError, Future, as_completed, wait
from pathlib import Path
from typing import Any

import psutil
import pytest

from greentask import DeadlineExceeded, Pool, PoolBroken, TaskError, WorkerLost
from support import work
from support.programs import environment, run_source
from support.waiting import wait_until


@pytest.fixture(scope="module")
def pool() -> Iterator[Pool]:
    with Pool(2, grace=0.3) as pool:
        yield pool


def is_whole(pool: Pool, size: int = 2) -> bool:
    return pool.stats().processes == size


# ---- What concurrent.futures promises


def test_results_come_back(pool: Pool) -> None:
    assert pool.submit(work.add, 1, b=2).result(10) == 3
    assert pool.submit(work.me).result(10) != os.getpid()
    assert pool.submit(work.echo, {"a": (1, {2}, b"3", None)}).result(10) == {"a": (1, {2}, b"3", None)}


def test_an_exception_has_the_remote_traceback_as_its_cause(pool: Pool) -> None:
    error = pool.submit(work.add, 1, "x").exception(10)  # type: ignore[arg-type]
    assert isinstance(error, TypeError)
    assert 'support/work.py", line' in str(error.__cause__)
    assert "return a + b" in str(error.__cause__)


def test_callbacks_wait_and_as_completed(pool: Pool) -> None:
    heard: list[Future[float]] = []
    futures = [pool.submit(work.nap, pause) for pause in (0.2, 0.01)]
    for future in futures:
        future.add_done_callback(heard.append)
    assert sorted(future.result() for future in as_completed(futures, 10)) == [0.01, 0.2]
    assert wait(futures, 10, ALL_COMPLETED).done == set(futures)
    wait_until(lambda: len(heard) == 2)


def test_asyncio_can_await_it(pool: Pool) -> None:
    async def main() -> int:
        return await asyncio.get_running_loop().run_in_executor(pool, work.add, 1, 2)

    assert asyncio.run(main()) == 3


def test_what_waits_can_be_cancelled_and_what_runs_cannot(pool: Pool, tmp_path: Path) -> None:
    running = [pool.submit(work.hold, str(tmp_path / "began"), 0.5) for _ in range(2)]
    wait_until(lambda: (tmp_path / "began").exists() and (tmp_path / "began").stat().st_size == 2)
    waiting = pool.submit(work.mark, str(tmp_path / "ran"))
    assert not running[0].cancel()
    assert running[0].running()
    assert waiting.cancel()
    assert waiting.cancelled()
    assert wait([waiting], 10).done == {waiting}
    with pytest.raises(CancelledError):
        waiting.result()
    for future in running:
        future.result(10)
    pool.submit(work.me).result(10)
    assert not (tmp_path / "ran").exists()


def test_what_runs_can_be_stopped(pool: Pool, tmp_path: Path) -> None:
    future = pool.schedule(work.hold, (str(tmp_path / "began"), 30))
    wait_until((tmp_path / "began").exists)
    future.stop()
    with pytest.raises(CancelledError):
        future.result(10)


def test_map_is_in_order_and_raises_in_its_turn(pool: Pool) -> None:
    assert list(pool.map(work.add, range(50), range(50))) == [2 * number for number in range(50)]
    assert list(pool.map(work.add, range(50), range(50), chunksize=7)) == [2 * number for number in range(50)]
    results = pool.map(divmod, [1, 1, 1], [2, 0, 5])
    assert next(results) == (0, 1)
    with pytest.raises(ZeroDivisionError):
        next(results)
    with pytest.raises(ValueError, match="chunksize"):
        pool.map(work.add, [1], [1], chunksize=0)


def test_what_is_submitted_before_a_shutdown_is_done_before_its_end() -> None:
    heard, go_on = threading.Event(), threading.Event()
    with Pool(1) as pool:
        for _ in range(50):
            pool.submit(work.add, 1, 2).result(10)
        pool.submit(work.nap, 0.1)
        first, *_ = [pool.submit(work.add, 1, 2) for _ in range(3)]  # sent ahead, and answered together
        first.add_done_callback(lambda _: (heard.set(), go_on.wait(10)))  # holds the I/O
        assert heard.wait(10)
        last = pool.submit(work.nap, 0.2)
        shutting = [threading.Thread(target=pool.shutdown) for _ in range(3)]
        for thread in shutting:
            thread.start()
        wait_until(lambda: pool._is_shut_down)
        go_on.set()
        for thread in shutting:
            thread.join(10)
        assert last.done()
        assert pool.pids() == []


def test_who_waits_hears_at_once_of_one_that_was_cancelled_before_the_pool_had_it() -> None:
    heard, go_on = threading.Event(), threading.Event()
    with Pool(1) as pool:
        pool.submit(work.add, 1, 2).add_done_callback(lambda _: (heard.set(), go_on.wait(10)))
        assert heard.wait(10)
        busy = pool.submit(work.nap, 0.5)
        late = pool.submit(work.add, 1, 2)
        assert late.cancel()
        go_on.set()
        assert wait([late], 10).done == {late}
        assert not busy.done()


@pytest.mark.parametrize("timeout", [0, -1])
def test_a_map_without_time_says_so(pool: Pool, timeout: float) -> None:
    with pytest.raises(futures.TimeoutError):
        next(pool.map(work.nap, [0.2], timeout=timeout))


def test_the_time_of_a_map_is_limited() -> None:
    with Pool(1) as pool, pytest.raises(futures.TimeoutError):  # the builtin one only since Python 3.11
        list(pool.map(work.nap, [0.0, 1.0], timeout=0.3))


def test_map_with_a_buffer_reads_only_so_far(pool: Pool) -> None:
    read = []

    def numbers() -> Iterator[int]:
        number = 0
        while True:
            read.append(number)
            yield number
            number += 1

    results = pool.map(work.echo, numbers(), buffersize=5)
    assert [next(results) for _ in range(20)] == list(range(20))
    assert len(read) <= 26
    results.close()  # type: ignore[attr-defined]


def test_after_a_shutdown_nothing_is_taken_and_what_was_is_finished(tmp_path: Path) -> None:
    pool = Pool(1)
    futures = [pool.submit(work.hold, str(tmp_path / "ran"), 0.05) for _ in range(4)]
    pool.shutdown(wait=True)
    assert all(future.done() for future in futures)
    assert (tmp_path / "ran").stat().st_size == 4
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(work.me)
    pool.shutdown()


def test_a_shutdown_can_cancel_what_waits(tmp_path: Path) -> None:
    pool = Pool(1)
    first, *others = [pool.submit(work.hold, str(tmp_path / "ran"), 0.5) for _ in range(5)]
    wait_until((tmp_path / "ran").exists)
    pool.shutdown(cancel_futures=True)
    assert first.result(0) > 0
    assert all(future.cancelled() for future in others)
    assert (tmp_path / "ran").stat().st_size == 1


def test_one_that_is_not_used_starts_nothing() -> None:
    before = psutil.Process().children(recursive=True)
    with Pool(2) as pool:
        assert pool.stats().processes == 0
    assert not set(psutil.Process().children(recursive=True)) - set(before)


@pytest.mark.parametrize(
    "wrong",
    [{"processes": 0}, {"max_tasks": 0}, {"max_memory": -1}, {"timeout": 0}, {"initializer": 3}, {"grace": -1}],
)
def test_wrong_arguments_are_named(wrong: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        Pool(**wrong)


def test_many_threads_get_their_own_answers(pool: Pool) -> None:
    wrong: list[object] = []

    def ask(thread: int) -> None:
        for number in range(100):
            if pool.submit(work.add, thread, number).result(20) != thread + number:
                wrong.append((thread, number))

    threads = [threading.Thread(target=ask, args=(1000 * number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- Fates of a process


@pytest.mark.parametrize(
    ("function", "args", "said"),
    [
        (work.kill_me, (), r"killed by signal 9 \(SIGKILL\)"),
        (work.crash, (), r"killed by signal 11 \(SIGSEGV\)"),
        (work.leave, (3,), "exited with code 3"),
        (work.close_everything, (), "exited with code|killed by signal"),
    ],
)
def test_a_dead_process_costs_its_task_and_nothing_else(pool: Pool, function: Any, args: Any, said: str) -> None:
    others = [pool.submit(work.nap, 0.05) for _ in range(10)]
    with pytest.raises(WorkerLost, match=said):
        pool.submit(function, *args).result(10)
    assert [future.result(10) for future in others] == [0.05] * 10
    wait_until(lambda: is_whole(pool))


def test_a_stopped_process_does_not_stop_the_limit(pool: Pool) -> None:
    future = pool.schedule(work.kill_me, (signal.SIGSTOP,), timeout=0.3)
    with pytest.raises(DeadlineExceeded):
        future.result(10)
    wait_until(lambda: is_whole(pool))
    assert pool.submit(work.add, 1, 2).result(10) == 3


@pytest.mark.parametrize(
    ("function", "args", "error"),
    [
        (work.picky, (), TaskError),
        (work.unpicklable, (), Exception),
        (work.recurse, (), RecursionError),
        (work.leave_politely, (), SystemExit),
    ],
)
def test_what_is_odd_is_an_error_to_its_caller(pool: Pool, function: Any, args: Any, error: Any) -> None:
    assert isinstance(pool.submit(function, *args).exception(10), error)
    assert pool.submit(work.add, 1, 2).result(10) == 3


def test_an_exception_that_cannot_be_made_again_keeps_its_name_and_traceback(pool: Pool) -> None:
    error = pool.submit(work.picky).exception(10)
    assert isinstance(error, TaskError)
    assert (error.type, error.args) == ("Picky", ("ab",))
    assert "in picky" in str(error.__cause__)


def test_arguments_that_cannot_be_pickled_are_the_callers_error(pool: Pool) -> None:
    assert pool.submit(work.echo, lambda: None).exception(10) is not None
    assert pool.submit(work.add, 1, 2).result(10) == 3


def test_what_it_writes_does_not_harm_the_channel(pool: Pool) -> None:
    assert pool.submit(work.talk, "hello\n").result(10) == "hello\n"
    assert pool.submit(work.install_handlers).result(10) is None
    assert pool.submit(work.add, 1, 2).result(10) == 3


def test_what_a_task_forked_ends_with_its_process(tmp_path: Path) -> None:
    with Pool(1) as pool:
        child = pool.submit(work.fork_children, str(tmp_path / "pid")).result(10)
        assert psutil.pid_exists(child)
    wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)


def test_an_initializer_runs_in_each_process() -> None:
    with Pool(2, initializer=work.initialize, initargs=(1, "a")) as pool:
        assert pool.submit(work.what_was_initialized).result(10) == [1, "a"]


def test_an_initializer_that_fails_is_a_clear_error_and_no_fork_loop() -> None:
    with Pool(2, initializer=work.fail_to_initialize) as pool:
        with pytest.raises(PoolBroken, match="no model file") as broken:
            pool.submit(work.me).result(10)
        assert isinstance(broken.value, BrokenExecutor)


def test_an_initializer_that_hangs_is_given_up_and_another_process_tried(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    gate.touch()
    with Pool(1, initializer=work.wait_at, initargs=(str(gate), str(log)), start_timeout=1.0) as pool:
        told = ""

        def is_told() -> bool:  # on a busy machine, what the processes import may take so long the first time
            nonlocal told
            error = pool.submit(work.me).exception(20)
            assert isinstance(error, PoolBroken)
            told = str(error)
            return "initializer" in told

        wait_until(is_told, 30)
        assert "took longer than 1 s (start_timeout=, --start-timeout): its stack is on stderr" in told
        assert "in wait_at" in capfd.readouterr().err
        gate.unlink()
        wait_until(lambda: pool.submit(work.me).exception(20) is None, 30, "another process")


def test_a_module_to_preload_that_is_not_there_is_a_clear_error() -> None:
    with Pool(1, preload=["there_is_none"]) as pool, pytest.raises(PoolBroken, match="there_is_none"):
        pool.submit(work.me).result(10)


def test_nothing_leaks() -> None:
    def fds() -> int:
        return len(os.listdir("/proc/self/fd"))

    with Pool(2) as pool:
        pool.submit(work.me).result(10)
    before, children = fds(), psutil.Process().children(recursive=True)
    for _ in range(5):
        with Pool(2) as pool:
            pool.submit(work.me).result(10)
            assert pool.submit(work.leave, 1).exception(10) is not None
    assert fds() <= before
    assert psutil.Process().children(recursive=True) == children


# ---- Limits


def test_a_large_task_that_was_sent_ahead_does_not_keep_a_limit_from_the_one_before_it(tmp_path: Path) -> None:
    with Pool(1, grace=20) as pool:
        for _ in range(50):
            pool.submit(work.mark_if_limited, "", 0.001, b"").result(
                10
            )  # known to be short: the next one is sent ahead
        mark = tmp_path / "limited"
        limited = pool.schedule(work.mark_if_limited, (str(mark), 60, b""), timeout=0.2)
        behind = pool.submit(work.mark_if_limited, "", 0.0, b"x" * 50_000_000)
        with pytest.raises(DeadlineExceeded):
            limited.result(10)
        assert mark.exists()
        behind.result(10)
        assert pool.stats().lost == 0


def test_a_task_may_clean_up_when_its_time_is_up(pool: Pool, tmp_path: Path) -> None:
    with pytest.raises(DeadlineExceeded):
        pool.schedule(work.clean_up_after_limit, (str(tmp_path / "cleaned"),), timeout=0.1).result(10)
    assert (tmp_path / "cleaned").stat().st_size == 1


def test_one_that_ignores_it_is_killed_after_the_grace(pool: Pool) -> None:
    began = time.monotonic()
    with pytest.raises(DeadlineExceeded):
        pool.schedule(work.ignore_the_limit, timeout=0.1).result(10)
    assert time.monotonic() - began > 0.3
    wait_until(lambda: is_whole(pool))


def test_too_much_memory_while_a_task_runs_kills_it() -> None:
    with Pool(1, max_memory=200_000_000) as pool:
        with pytest.raises(WorkerLost, match="max_memory"):
            pool.submit(work.eat, 300_000_000).result(10)
        assert pool.submit(work.add, 1, 2).result(10) == 3


def test_too_much_memory_between_tasks_replaces_the_process() -> None:
    with Pool(1) as pool:
        usual = psutil.Process(pool.submit(work.me).result(10)).memory_info().rss
    with Pool(1, max_memory=usual + 5_000_000) as pool:
        while (
            not pool.stats().recycled
        ):  # the look at its memory may fall into the task's few milliseconds, and kill it
            lost = pool.stats().lost
            kept = pool.submit(work.keep, 10_000_000)
            kept.exception(10)
            wait_until(lambda lost=lost: pool.stats().recycled or pool.stats().lost > lost)  # type: ignore[misc]
        assert pool.submit(work.me).result(10) != kept.result()


def test_a_process_is_replaced_after_max_tasks() -> None:
    with Pool(1, max_tasks=3) as pool:
        pids = [pool.submit(work.me).result(10) for _ in range(9)]
        assert len(set(pids)) == 3
        assert pids == sorted(pids, key=pids.index)
        assert pool.stats().lost == 0


def test_resize_and_restart() -> None:
    with Pool(2) as pool:
        assert pool.submit(work.add, 1, 2).result(10) == 3
        before = set(pool.pids())
        pool.resize(3)
        wait_until(lambda: is_whole(pool, 3))
        pool.resize(1)
        wait_until(lambda: is_whole(pool, 1))
        pool.resize(2)
        wait_until(lambda: is_whole(pool, 2))
        pool.restart()
        wait_until(lambda: is_whole(pool, 2) and not before & set(pool.pids()))
        assert pool.submit(work.add, 1, 2).result(10) == 3


def test_one_that_is_resized_before_its_first_use_starts_as_large() -> None:
    with Pool(2) as pool:
        pool.resize(3)
        assert pool.stats().processes == 0
        pool.submit(work.me).result(10)
        wait_until(lambda: is_whole(pool, 3))


def test_resizing_up_and_down_leaves_as_many_as_were_asked_for_last() -> None:
    with Pool(1) as pool:
        pool.submit(work.me).result(10)
        for size in (6, 1, 5, 2):
            pool.resize(size)
        wait_until(lambda: pool.stats().processes > 1)
        wait_until(lambda: is_whole(pool) and len(pool.pids()) == 2)


def test_a_process_works_on_until_its_successor_is_ready(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    with Pool(1, initializer=work.wait_at, initargs=(str(gate), str(log))) as pool:
        before = pool.submit(work.me).result(10)
        gate.touch()
        pool.restart()
        wait_until(lambda: log.stat().st_size == 2, what="a successor that gets ready")
        assert [pool.submit(work.me).result(10) for _ in range(20)] == [before] * 20
        gate.unlink()
        wait_until(lambda: pool.submit(work.me).result(10) != before, what="the successor's work")
        assert (pool.stats().recycled, pool.stats().lost) == (1, 0)


def test_a_successor_that_is_outdated_before_it_is_ready_gets_no_task(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    with Pool(1, initializer=work.wait_at, initargs=(str(gate), str(log))) as pool:
        before = pool.submit(work.me).result(10)
        gate.touch()
        long = pool.submit(work.hold, str(tmp_path / "long"), 0.3)  # so that it is the successor that is let go
        pool.restart()
        wait_until(lambda: log.stat().st_size == 2, what="a successor that gets ready")
        pool.restart()
        gate.unlink()
        assert [pool.submit(work.add, number, 1).result(10) for number in range(50)] == list(range(1, 51))
        assert long.result(10) == before
        wait_until(lambda: is_whole(pool, 1) and before not in pool.pids())


def test_the_successor_of_one_that_reaches_max_tasks_is_there_in_time(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    with Pool(1, max_tasks=20, initializer=work.wait_at, initargs=(str(gate), str(log))) as pool:
        before = pool.submit(work.me).result(10)
        gate.touch()
        assert [pool.submit(work.me).result(10) for _ in range(18)] == [before] * 18  # the twentieth is to come
        wait_until(lambda: log.stat().st_size == 2, what="a successor that gets ready")
        gate.unlink()
        wait_until(lambda: before not in pool.pids(), what="the successor in its place")


def test_no_process_gets_more_than_max_tasks_of_those_that_are_sent_ahead() -> None:
    with Pool(2, max_tasks=7) as pool:
        pids = [future.result(20) for future in [pool.submit(work.me) for _ in range(500)]]
    assert max(map(pids.count, set(pids))) <= 7


def test_a_rolling_restart_replaces_a_few_at_a_time(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    with Pool(16, initializer=work.wait_at, initargs=(str(gate), str(log))) as pool:
        pool.submit(work.me).result(10)
        wait_until(lambda: is_whole(pool, 16))
        before = set(pool.pids())
        gate.touch()
        pool.restart()
        wait_until(lambda: log.stat().st_size == 18, what="two successors")
        assert before < set(pool.pids())
        assert len(pool.pids()) == 18
        gate.unlink()
        wait_until(lambda: is_whole(pool, 16) and not before & set(pool.pids()))


@pytest.mark.parametrize("seconds", [1, pytest.param(15, marks=pytest.mark.slow)])
def test_every_task_ends_whatever_is_done_to_the_pool_meanwhile(seconds: float, tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    until, problems = time.monotonic() + seconds, list[str]()

    def use(number: int) -> None:
        chance = random.Random(f"{seed} {number}")
        for round in itertools.count():
            tasks = {f"{number}-{round}-{index}": chance.random() * 0.003 for index in range(chance.randrange(30))}
            futures = {
                name: pool.submit(work.mark_number, str(tmp_path), name, length) for name, length in tasks.items()
            }
            for future in futures.values():
                if chance.random() < 0.1:
                    future.cancel()
                elif chance.random() < 0.05:
                    future.stop()  # type: ignore[attr-defined]
            for name, future in futures.items():
                marks, made = tmp_path / name, 0
                try:
                    if future.result(20) != name:
                        problems.append(f"{name} has the result of another")
                    made = 1
                except CancelledError:
                    pass
                except BaseException as error:
                    problems.append(f"{name}: {error!r}")
                if not made <= (marks.stat().st_size if marks.exists() else 0) <= 1:
                    problems.append(f"{name} was not run once")
            if time.monotonic() > until or problems:
                return

    def meddle() -> None:
        chance = random.Random(f"{seed} meddler")
        while time.monotonic() < until:
            chance.choice([pool.restart, lambda: pool.resize(chance.randrange(1, 5)), pool.stats, pool.pids])()
            time.sleep(chance.random() * 0.05)

    with Pool(3, max_tasks=9) as pool:
        threads = [threading.Thread(target=use, args=(number,)) for number in range(4)]
        threads.append(threading.Thread(target=meddle))
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert problems == [], f"seed {seed}"
        pool.resize(2)
        wait_until(lambda: is_whole(pool) and len(pool.pids()) == 2)
        assert pool.stats().lost == 0


def test_less_memory_than_a_process_has_from_the_start_is_a_clear_error_and_no_fork_loop() -> None:
    with Pool(2, max_memory=1_000_000) as pool:
        wait_until(lambda: isinstance(pool.submit(work.me).exception(10), PoolBroken), what="the pool's error")
        with pytest.raises(PoolBroken, match=r"before its first task, and max_memory is 1,000,000: raise it"):
            pool.submit(work.me).result(10)


def test_processes_that_die_as_soon_as_they_are_ready_are_started_more_and_more_slowly(tmp_path: Path) -> None:
    log = tmp_path / "log"
    with Pool(1, initializer=work.die_soon, initargs=(str(log),)) as pool:
        began = time.monotonic()
        pool.submit(work.me).exception(10)
        wait_until(lambda: log.stat().st_size >= 6, what="the sixth")
        assert time.monotonic() - began > 0.05 + 0.1 + 0.2 + 0.4


def test_a_process_without_work_sleeps(pool: Pool) -> None:
    for _ in range(100):  # while it is asked again at once, it looks for the next call
        pool.submit(work.me).result(10)
    for process in map(psutil.Process, pool.pids()):
        wait_until(lambda process=process: process.status() == psutil.STATUS_SLEEPING, what="sleep")
        before = process.num_ctx_switches().voluntary
        assert {process.status() for _ in range(100)} == {psutil.STATUS_SLEEPING}
        assert process.num_ctx_switches().voluntary == before


def test_a_callback_may_ask_how_the_pool_is(pool: Pool) -> None:
    heard: list[int] = []
    future = pool.submit(work.nap, 0.05)
    future.add_done_callback(lambda _: heard.append(pool.stats().processes + len(pool.pids())))
    future.result(10)
    wait_until(lambda: heard == [4])


def test_one_argument_that_is_no_sequence_is_told(pool: Pool) -> None:
    with pytest.raises(TypeError, match=r"args has the call's arguments, as in \(0\.1,\), and is not 0\.1"):
        pool.schedule(work.nap, 0.1, timeout=5)  # type: ignore[arg-type]


def test_progress_is_told(pool: Pool) -> None:
    reports: list[Any] = []
    assert pool.schedule(work.report, (3,), on_progress=reports.append).result(10) == "done"
    assert reports == [{"done": done, "total": 3} for done in (1, 2, 3)]


def test_coroutines_share_their_process_s_loop() -> None:
    with Pool(1) as pool:
        (one, first), (two, second) = (pool.submit(work.coroutine, value).result(10) for value in (1, 2))
    assert (one, two) == (1, 2)
    assert first == second


# ---- Sending ahead, and taking back


def test_short_tasks_do_not_wait_behind_a_long_one(pool: Pool) -> None:
    for _ in range(20):
        pool.submit(work.nap, 0.001).result(10)  # so that it is known to be short, and sent ahead
    long = pool.submit(work.nap, 2.0)
    began = time.monotonic()
    for future in [pool.submit(work.nap, 0.001) for _ in range(200)]:
        future.result(10)
    taken = time.monotonic() - began
    assert not long.done(), taken
    assert long.result(10) == 2.0


def test_none_runs_twice_whatever_dies(tmp_path: Path) -> None:
    none_runs_twice(tmp_path, rounds=30)


@pytest.mark.slow
def test_none_runs_twice_in_many_rounds(tmp_path: Path) -> None:
    none_runs_twice(tmp_path, rounds=400)


def none_runs_twice(folder: Path, rounds: int) -> None:
    """Tasks of all lengths under random kills: each gets one answer, and leaves at most one mark."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    number = 0
    with Pool(2) as pool:
        pool.submit(work.me).result(10)
        for round in range(rounds):
            marks = folder / str(round)
            marks.mkdir()
            futures = {}
            for _ in range(chance.randrange(1, 30)):
                number += 1
                pause = chance.choice([0.0, 0.0, 0.0, 0.001, 0.01])
                futures[number] = pool.submit(work.mark_number, str(marks), number, pause)
            if chance.random() < 0.7:
                time.sleep(chance.random() * 0.01)
                for pid in pool.pids():
                    if chance.random() < 0.5:
                        try:
                            os.kill(pid, signal.SIGKILL)
                        except ProcessLookupError:
                            pass
            for asked, future in futures.items():
                ran = marks / str(asked)
                try:
                    assert future.result(20) == asked
                    assert ran.stat().st_size == 1, f"{asked} ran {ran.stat().st_size} times"
                except WorkerLost:
                    # It may have died before it left its mark, or between making the file and writing to it.
                    assert not ran.exists() or ran.stat().st_size <= 1, f"{asked} ran {ran.stat().st_size} times"


# ---- Everywhere


def run(program: str, *options: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-W", "error", *options, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )


PATCHED = "from gevent import monkey; monkey.patch_all()\n"


@pytest.mark.parametrize(
    "program",
    [
        "from greentask import Pool\nwith Pool(2) as pool: print(pool.submit(pow, 2, 5).result())",
        PATCHED + "from greentask import Pool\nwith Pool(2) as pool: print(pool.submit(pow, 2, 5).result())",
        "from greentask import Pool\npool = Pool(2); print(pool.submit(pow, 2, 5).result())",
        PATCHED + "from greentask import Pool\npool = Pool(2); print(pool.submit(pow, 2, 5).result())",
    ],
    ids=["plain", "patched", "plain, never shut down", "patched, never shut down"],
)
def test_it_works_and_ends_under_python_c(program: str) -> None:
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "32\n", "")


def test_in_a_patched_program_greenlets_go_on_while_one_waits() -> None:
    done = run(
        PATCHED
        + """
import gevent, time
from greentask import Pool
from support import work
ticks = []
def tick():
    while True:
        ticks.append(time.monotonic())
        gevent.sleep(0.001)
with Pool(2) as pool:
    pool.submit(work.me).result()
    ticker = gevent.spawn(tick)
    futures = [pool.submit(work.spin, 0.3) for _ in range(2)]
    assert [future.result() for future in futures] == [0.3, 0.3]
    ticker.kill()
assert len(ticks) > 50, len(ticks)
import threading
def from_threads():
    import gevent
    pool = gevent.get_hub().threadpool
    with Pool(2) as executor:
        assert executor.submit(work.add, 1, 1).result() == 2
        return [r.get() for r in [pool.spawn(lambda n: executor.submit(work.add, n, n).result(), n) for n in range(8)]]
assert from_threads() == [2 * n for n in range(8)]
print("ok")
"""
    )
    assert (done.returncode, done.stdout) == (0, "ok\n"), done.stderr


@pytest.mark.parametrize("head", ["", pytest.param(PATCHED, marks=pytest.mark.slow)], ids=["plain", "patched"])
def test_large_values_are_there_no_more_than_three_times(head: str) -> None:
    done = run(
        head
        + """
from greentask import Pool
from support import work
size = 64_000_000
with Pool(1) as pool:
    theirs = pool.submit(work.memory_for, b"").result()[1]
    ours, value = work.peak_memory(), b"x" * size
    back, their_peak = pool.submit(work.memory_for, value).result()
    assert back == value
copies = (work.peak_memory() - ours + their_peak - theirs) / size
assert copies < 3.2, copies
"""
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("patch", ["patch_all()", "patch_thread()"])
def test_in_a_patched_program_the_main_thread_may_wait_for_a_pool_of_another_thread(patch: str) -> None:
    done = run(
        f"""
from gevent import monkey
monkey.{patch}
import gevent
from concurrent import futures
from greentask import Pool
from support import work
with Pool(1) as pool:
    future = gevent.get_hub().threadpool.spawn(pool.submit, work.nap, 0.2).get()  # its home is the background thread
    assert future.result() == 0.2
    assert pool.submit(work.add, 1, 2).result() == 3
    assert isinstance(pool.submit(work.add, 1, "x").exception(5), TypeError)
    try:
        pool.submit(work.nap, 0.5).result(0.01)
    except futures.TimeoutError:
        print("ok")
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "ok\n", "")


@pytest.mark.parametrize(
    "told", ["", "multiprocessing.set_executable(python)"], ids=["found", "told by set_executable"]
)
def test_its_processes_run_python_where_the_program_is_another_one(told: str) -> None:
    """As in uWSGI, of which Python is a part: multiprocessing can't start anything there."""
    program = f"""
import sys

python, sys.executable = sys.executable, "/bin/false"
import multiprocessing

{told}
from greentask import Pool

with Pool(1) as pool:
    print(pool.submit(pow, 2, 5).result(timeout=20))
"""
    assert run_source(program) == ["32"]


AT_ONCE = "    pool = Pool(1)\n    futures = [pool.submit(say, number) for number in range(3)]\n"
BEFORE_ITS_THREADS = (
    "    import threading\n"
    "    def work():\n"
    "        import sys, time\n"
    "        while hasattr(sys.modules['__main__'], '__file__'):\n            time.sleep(0.01)\n"
    "        with Pool(1) as pool:\n            list(pool.map(say, range(3)))\n"
    "    threading.Thread(target=work).start()\n"
)
ENDING = {"at once": AT_ONCE}
if sys.version_info < (3, 12):  # from then on Python starts no thread any more by that time, nor a pool's
    ENDING["before its threads"] = BEFORE_ITS_THREADS


@pytest.mark.parametrize("program", ENDING.values(), ids=ENDING.keys())
def test_a_script_that_ends_has_its_own_functions_run(tmp_path: Path, program: str) -> None:
    """Python takes the file's name from a main module that has come to its end."""
    script = tmp_path / "script.py"
    script.write_text(
        "from greentask import Pool\n"
        "def say(number):\n    print(number, flush=True)\n"
        "if __name__ == '__main__':\n" + program
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert (done.stdout.split(), done.stderr) == (["0", "1", "2"], "")


def test_a_program_from_stdin_may_have_a_pool_but_not_of_its_own_functions() -> None:
    program = """
from greentask import Pool

def own():
    pass

with Pool(1) as pool:
    print(pool.submit(pow, 2, 5).result(timeout=20))
    for _ in range(2):  # sent whole, then by its name
        print(pool.submit(own).exception(timeout=20))
"""
    done = subprocess.run(
        [sys.executable, "-"], input=program, capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    power, *told = done.stdout.splitlines()
    assert (power, done.stderr) == ("32", "")
    assert len(told) == 2
    assert all("'__main__'" in one and "; put it at the top of a module, or" in one for one in told)


def test_a_function_below_the_guard_is_told_to_go_up(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from greentask import Pool\n"
        "if __name__ == '__main__':\n"
        "    def below():\n        pass\n"
        "    with Pool(1) as pool:\n"
        "        print(pool.submit(below).exception(timeout=20))\n"
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert "'below' on <module '__mp_main__'" in done.stdout, done.stderr
    assert '; put it at the top of a module, or of the script, not below `if __name__ == "__main__":`' in done.stdout


def test_a_script_s_arguments_are_known_in_its_processes(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import sys\n"
        "from greentask import Pool\n"
        "first = sys.argv[1]\n"
        "def get():\n    return first\n"
        "if __name__ == '__main__':\n"
        "    with Pool(1) as pool:\n"
        "        print(pool.submit(get).result())\n"
    )
    done = subprocess.run(
        [sys.executable, script, "argument"], capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "argument\n", "")


@pytest.mark.parametrize("head", ["", PATCHED], ids=["plain", "patched"])
def test_a_result_that_ends_the_program_as_it_is_unpickled_is_only_that_task_s_error(head: str) -> None:
    done = run(
        head
        + """
from greentask import Pool
from support import work
with Pool(1) as pool:
    error = pool.submit(work.exit_when_unpickled).exception(10)
    print(type(error).__name__, pool.submit(work.add, 1, 2).result(10))
"""
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "SystemExit 3\n", "")


def test_the_proxies_of_managers_work_in_tasks() -> None:
    with multiprocessing.get_context("spawn").Manager() as manager, Pool(1) as pool:
        numbers = manager.list([1, 2])
        pool.submit(work.append_to, numbers, 3).result(10)
        assert list(numbers) == [1, 2, 3]


def test_a_script_s_own_functions_and_its_guard(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "from greentask import Pool\n"
        "def double(n):\n    return 2 * n\n"
        "if __name__ == '__main__':\n"
        "    with Pool(2) as pool:\n        print(list(pool.map(double, range(4))))\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=environment())
    assert (done.stdout, done.returncode) == ("[0, 2, 4, 6]\n", 0), done.stderr


def test_a_script_without_the_guard_is_told(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from greentask import Pool\nprint(Pool(1).submit(pow, 2, 2).result())\n")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=environment())
    assert done.returncode == 1
    assert 'if __name__ == "__main__":' in done.stderr


def test_one_that_was_not_used_before_a_fork_is_the_child_s_and_the_parent_s() -> None:
    program = """
import os
from greentask import Pool
from support import work
pool = Pool(1)
child = os.fork()
assert pool.submit(work.add, 1, 2).result() == 3
pool.shutdown()
if child:
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = run(program)
    assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")


@pytest.mark.parametrize("method", ["spawn", "forkserver", "fork"])
def test_it_works_in_multiprocessing_s_processes(method: str, tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        f"""
import multiprocessing
from greentask import Pool
from support import work

def use(queue):
    with Pool(1) as pool:
        queue.put(pool.submit(work.add, 1, 2).result())

if __name__ == "__main__":
    context = multiprocessing.get_context({method!r})
    queue = context.SimpleQueue()
    process = context.Process(target=use, args=(queue,))
    process.start()
    print(queue.get())
    process.join()
"""
    )
    done = subprocess.run(
        [sys.executable, script], capture_output=True, text=True, timeout=60, env=environment(), check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_it_works_in_an_interactive_interpreter() -> None:
    lines = "from greentask import Pool\npool = Pool(1)\nprint(pool.submit(pow, 2, 5).result())\npool.shutdown()\n"
    done = subprocess.run(
        [sys.executable, "-i", "-q"], input=lines, capture_output=True, text=True, timeout=60, env=environment()
    )
    assert done.returncode == 0
    assert "32" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.interop
@pytest.mark.parametrize("preload", [[], ["--preload"]], ids=["", "preload"])
@pytest.mark.parametrize("worker", ["gevent", "gthread", "sync"])
def test_it_works_in_gunicorn_s_workers(worker: str, preload: list[str], tmp_path: Path) -> None:
    (tmp_path / "web.py").write_text(
        """
import os
from greentask import Pool
from support import work

pool = Pool(1)

def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()} {pool.submit(work.add, 1, 2).result(10)}".encode()]
"""
    )
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    command = [
        sys.executable,
        "-m",
        "gunicorn",
        "-k",
        worker,
        "-w",
        "2",
        "-b",
        f"127.0.0.1:{port}",
        "--graceful-timeout",
        "5",  # gunicorn's gevent worker misses a signal that comes while it starts, and is killed after that
        *preload,
        "web:app",
    ]
    with subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True, env=environment()) as gunicorn:
        try:

            def ask() -> "tuple[str, ...] | None":
                try:
                    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                        return tuple(answer.read().decode().split())
                except (ConnectionError, urllib.error.URLError):
                    return None

            wait_until(ask, what="an answer")
            answers = {ask() for _ in range(30)}
            assert {answer[1] for answer in answers if answer} == {"3"}
            children = psutil.Process(gunicorn.pid).children(recursive=True)
        finally:
            gunicorn.terminate()
        complaints = gunicorn.communicate(timeout=30)[1]
    assert "Traceback" not in complaints
    psutil.wait_procs(children, 10)
    assert not any(child.is_running() for child in children)


def test_a_forked_child_s_copy_refuses() -> None:
    done = run(
        """
import os, sys
from greentask import Pool
from support import work
with Pool(1) as pool:
    pool.submit(work.me).result()
    pid = os.fork()
    if pid == 0:
        refused = 0
        for ask in (lambda: pool.submit(work.me), pool.stats, pool.pids, pool.restart, lambda: pool.resize(2)):
            try:
                ask()
            except Exception as error:
                refused += "forked" in str(error)
        os._exit(refused - 5)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    print(pool.submit(work.add, 1, 2).result())
""",
        "-W",
        "ignore::DeprecationWarning",
    )
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr


def test_a_program_that_patches_itself_has_plain_processes(tmp_path: Path) -> None:
    """The template imports the program's main module; its processes have no hub all the same, and end with it."""
    script = tmp_path / "script.py"
    script.write_text(
        PATCHED
        + "import socket, time\n"
        + "from greentask import Pool\n"
        + "def kind():\n    return f'{socket.socket.__module__} {time.sleep.__module__}'\n"
        + "if __name__ == '__main__':\n"
        + "    with Pool(2) as pool:\n"
        + "        print({pool.submit(kind).result() for _ in range(20)}, pool.stats().lost)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60, env=environment())
    assert (done.stdout, done.stderr) == ("{'socket time'} 0\n", "")


def test_one_that_is_dropped_takes_its_processes_along() -> None:
    pool = Pool(1)
    pid = pool.submit(work.me).result(10)
    del pool
    wait_until(lambda: not psutil.pid_exists(pid))


def test_what_a_callback_raises_costs_no_other_its_answer() -> None:
    def leave(_: object) -> None:
        raise SystemExit(1)

    with Pool(1) as pool:
        futures = [pool.submit(work.add, number, 0) for number in range(20)]
        futures[3].add_done_callback(leave)
        assert [future.result(10) for future in futures] == list(range(20))
        assert pool.submit(work.add, 1, 2).result(10) == 3


def test_a_shutdown_waits_until_the_processes_are_gone() -> None:
    pool = Pool(2)
    pool.submit(work.me).result(10)
    pids = pool.pids()
    pool.shutdown(wait=False)
    pool.shutdown(wait=True, cancel_futures=True)
    assert not any(psutil.pid_exists(pid) for pid in pids)


def test_what_cannot_be_pickled_at_all_does_not_keep_it_from_closing() -> None:
    class Stubborn:
        def __reduce__(self) -> Any:
            raise KeyboardInterrupt

    with Pool(1) as pool, pytest.raises(KeyboardInterrupt):
        pool.submit(work.echo, Stubborn())


def test_what_a_task_forked_ends_with_a_template_that_is_killed(tmp_path: Path) -> None:
    with Pool(1) as pool:
        child = pool.submit(work.fork_children, str(tmp_path / "pid")).result(10)
        psutil.Process(pool.submit(work.me).result(10)).parent().kill()  # type: ignore[union-attr]
        wait_until(lambda: not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE)
        wait_until(lambda: is_whole(pool, 1))
        assert pool.submit(work.add, 1, 2).result(10) == 3
