"""What can happen to a task process, caused for real: what its caller hears, and that the pool goes on."""

import json
import os
import resource
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gevent
import psutil
import pytest

from greentask.errors import DeadlineExceeded, InvalidResult, PoolBroken, TaskError, WorkerLost
from greentask.pool.processes import Processes
from greentask.pool.setup import Setup
from greentask.tasks.processes import setup_for
from support import process_tasks as tasks
from support.listener import Listener
from support.pools import (
    TASKS,
    Asked,
    ask,
    children,
    is_alive,
    is_whole,
    lines,
    processes,
    wait_for_lines,
    wait_until_whole,
)
from support.programs import TESTS, program
from support.waiting import wait_until

MB = 1024 * 1024


def check_lost(pool: Processes, victim: Asked, others: list[Asked], words: str) -> None:
    """The victim's caller is told, the others' calls run elsewhere, and there is a new process: within a second."""
    error = victim.error(1.0)
    assert isinstance(error, WorkerLost)
    assert words in str(error)
    assert error.started is True
    wait_until_whole(pool, 1.0)
    assert [each.result() for each in others] == list(range(len(others)))


@contextmanager
def largest_gap() -> Iterator[list[float]]:
    """For how long other greenlets couldn't run, in seconds, at most; known at the end."""
    gaps: list[float] = []

    def watch() -> None:
        last = time.monotonic()
        while True:
            gevent.sleep(0.001)
            now = time.monotonic()
            gaps.append(now - last)
            last = now

    found: list[float] = []
    watcher = gevent.spawn(watch)
    try:
        yield found
    finally:
        watcher.kill()
        found.append(max(gaps))


def test_p1_sigkill_while_a_task_runs(tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with processes() as pool:
        victim = ask(pool, tasks.hold, str(started), str(release))
        others = [ask(pool, tasks.echo, number) for number in range(20)]
        [pid] = wait_for_lines(started)
        os.kill(int(pid), signal.SIGKILL)
        check_lost(pool, victim, others, "signal 9 (SIGKILL)")
        assert lines(started) == [pid]  # it was not tried again
        assert pool.pids() != [int(pid)]


def test_p2_segfault_exit_and_abort() -> None:
    real_time = int(signal.SIGRTMIN) + 1  # a signal without a name
    cases: list[tuple[Any, tuple[int, ...], str]] = [
        (tasks.segfault, (), "signal 11 (SIGSEGV)"),
        (tasks.exit_at_once, (3,), "exited with code 3"),
        (tasks.exit_at_once, (0,), "exited with code 0"),
        (tasks.abort, (), "signal 6 (SIGABRT)"),
        (tasks.kill_self, (real_time,), f"signal {real_time}"),
    ]
    soft, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    try:
        with processes() as pool:
            for task, args, words in cases:
                victim = ask(pool, task, *args)
                others = [ask(pool, tasks.echo, number) for number in range(20)]
                check_lost(pool, victim, others, words)
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, (soft, hard))


def test_p3_memory_past_the_limit() -> None:
    with processes() as pool:
        [pid] = pool.pids()
        assert isinstance(ask(pool, tasks.eat_memory, 64 * MB).error(), MemoryError)
        assert ask(pool, tasks.pid).result() == pid  # an error like another: the process lives
        victim = ask(pool, tasks.eat_memory_until_killed, 64 * MB)
        others = [ask(pool, tasks.echo, number) for number in range(20)]
        wait_until(lambda: victim.answers)
        check_lost(pool, victim, others, "signal 9 (SIGKILL)")
    limited = Processes(setup_for(TASKS), 2, max_memory=200 * MB)
    limited.start()
    try:
        victim = ask(limited, tasks.large, 400 * MB)
        others = [ask(limited, tasks.echo, number) for number in range(20)]
        wait_until(lambda: victim.answers)
        check_lost(limited, victim, others, "more than max_memory (209,715,200)")
    finally:
        limited.close()


def test_p4_sigstop() -> None:
    with processes(2, grace=0.3) as pool:
        began = time.monotonic()
        victim = ask(pool, tasks.stop_self, limit=0.3)
        error = victim.error()
        assert isinstance(error, DeadlineExceeded)
        assert error.started is True
        assert victim.answered_at - began >= 0.6
        wait_until_whole(pool)
        # One that is stopped between two calls holds up the next, which has its limit as well.
        pid = ask(pool, tasks.pid).result()
        os.kill(pid, signal.SIGSTOP)
        wait_until(lambda: psutil.Process(pid).status() == psutil.STATUS_STOPPED)
        asked = [ask(pool, tasks.nap, 0, limit=0.3) for _ in range(2)]
        assert sorted(asked[number].wait()[0] for number in range(2)) == ["error", "result"]
        wait_until_whole(pool)
        assert pid not in pool.pids()


def test_p5_endless_loops(tmp_path: Path) -> None:
    with processes(grace=0.3) as pool:
        [pid] = pool.pids()
        error = ask(pool, tasks.spin, str(tmp_path / "python"), limit=0.2).error()
        assert isinstance(error, DeadlineExceeded)
        assert error.started is True
        assert ask(pool, tasks.pid).result() == pid  # in Python it can be interrupted
        began = time.monotonic()
        victim = ask(pool, tasks.spin_in_c, str(tmp_path / "c"), limit=0.2)
        error = victim.error()
        assert isinstance(error, DeadlineExceeded)
        assert error.started is True
        assert victim.answered_at - began >= 0.5
        assert ask(pool, tasks.pid).result() != pid
        assert not is_alive(pid)


def test_p6_a_task_that_ignores_everything(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with processes(grace=0.3) as pool:
        [pid] = pool.pids()
        victim = ask(pool, tasks.ignore_everything, str(notes), limit=0.3)
        wait_for_lines(notes)
        os.kill(pid, signal.SIGTERM)
        assert isinstance(victim.error(), DeadlineExceeded)
        assert "TimeLimit" in lines(notes)  # it was asked first
        wait_until(lambda: not is_alive(pid), what="the end of the process")
        wait_until_whole(pool)


def test_p7_processes_that_fail_at_start(tmp_path: Path) -> None:
    with pytest.raises(PoolBroken, match="RuntimeError: not on a Monday"):
        Processes(Setup("support.raw_handlers:fail_at_import", ("not on a Monday",)), 2).start()

    forks, switch = tmp_path / "forks", tmp_path / "switch"
    setup = Setup("support.raw_handlers:die_at_start", (str(forks), str(switch)))

    def forked() -> int:
        return len(lines(forks)[0]) if lines(forks) else 0

    switch.touch()
    began = time.monotonic()
    with pytest.raises(PoolBroken, match="die at once"):
        Processes(setup, 2).start()
    assert time.monotonic() - began < 10
    assert forked() < 20  # no fork loop

    switch.unlink()
    with processes(2, setup=setup) as pool:
        switch.touch()
        forks.unlink()
        for pid in pool.pids():
            os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not pool.pids())
        for _ in range(2):
            listener = Listener()
            pool.submit("anything", b"", listener)
            error = listener.error()
            assert isinstance(error, WorkerLost)
            assert error.started is not False or "die at once" in str(error)
            assert "can't be started" in str(error)
        so_far, began = forked(), time.monotonic()
        wait_until(lambda: forked() >= so_far + 4)  # it is tried on,
        assert time.monotonic() - began > 0.5  # but not in a loop
        switch.unlink()
        wait_until_whole(pool)  # what was wrong has been put right
        listener = Listener()
        pool.submit("anything", b"it runs", listener)
        assert listener.wait() == ("result", b"it runs")


def test_p8_results_that_json_cannot_carry() -> None:
    cases = {
        "object": "result['rows'][1]['when'] is an object",
        "bytes": "result is a bytes",
        "nan": "result[1] is nan",
        "surrogate": "result is '\\ud800'",
        "circle": "result[1] contains itself",
        "own": "OwnJSON",
    }
    with processes() as pool:
        [pid] = pool.pids()
        for what, words in cases.items():
            error = ask(pool, tasks.give, what).error()
            assert isinstance(error, InvalidResult)
            assert words in str(error)
        error = ask(pool, tasks.stream_what_cannot_be_sent, window=10).error()
        assert isinstance(error, InvalidResult)
        assert "object" in str(error)
        assert ask(pool, tasks.pid).result() == pid


@pytest.mark.slow
def test_p8_a_result_of_200_mb() -> None:
    with processes() as pool, largest_gap() as gap:
        kind, body = ask(pool, tasks.large, 200 * MB).wait(60)
    assert kind == "result"
    assert body == b'"' + b"x" * (200 * MB) + b'"'
    assert gap[0] < 1.0


def test_p9_exceptions_that_the_caller_cannot_make() -> None:
    cases: dict[str, tuple[type[Exception], str]] = {
        "local": (TaskError, "Local: 3 of 5"),
        "mute": (TaskError, "Mute: <its message can't be shown: RuntimeError>"),
        "unicode": (TaskError, "UnicodeDecodeError: 'utf-8' codec can't decode byte 0xff"),
        "surrogate": (ValueError, "?"),
        "group": (TaskError, "GroupLike: ('two', [ValueError('a'), KeyError('b')])"),
        "ours": (TaskError, "greentask.InvalidResult: the task's own"),
    }
    with processes() as pool:
        [pid] = pool.pids()
        for what, (cls, words) in cases.items():
            error = ask(pool, tasks.fail, what).error()
            assert type(error) is cls
            assert str(error).startswith(words)
        assert ask(pool, tasks.pid).result() == pid


def test_p10_what_ends_a_program_does_not_end_the_pool() -> None:
    cases = {
        "sys.exit": "SystemExit: 3",
        "sys.exit with words": "SystemExit: that's it",
        "SystemExit": "SystemExit",
        "KeyboardInterrupt": "KeyboardInterrupt",
        "GeneratorExit": "GeneratorExit",
        "BaseException": "BaseException: the root",
        "StopIteration": "StopIteration",
        "TimeLimit": "the time ran out while the task ran",
        "CancelRequest": "cancelled while it ran",
    }
    with processes() as pool:
        for how, words in cases.items():
            assert str(ask(pool, tasks.leave, how).error()) == words
            assert ask(pool, tasks.echo, 1).result() == 1
            os.kill(pool.pids()[0], signal.SIGINT)  # as from a terminal, to the whole group
            assert ask(pool, tasks.echo, 2).result() == 2


def test_p11_recursion_without_end() -> None:
    with processes() as pool:
        [pid] = pool.pids()
        assert isinstance(ask(pool, tasks.recurse).error(), RecursionError)
        error = ask(pool, tasks.give, "deep").error()
        assert isinstance(error, InvalidResult)
        assert "nested deeper than 500" in str(error)
        assert ask(pool, tasks.pid).result() == pid


def test_p12_what_a_task_changes_in_its_process() -> None:
    cases: list[tuple[Any, tuple[int, ...]]] = [
        (tasks.write_to_standard_streams, ()),
        (tasks.close_descriptors, (256,)),
        (tasks.change_surroundings, ()),
        (tasks.take_signals, ()),
    ]
    with processes(grace=0.3) as pool:
        for task, args in cases:
            [pid] = pool.pids()
            assert ask(pool, task, *args).result() is None
            assert ask(pool, tasks.pid).result() == pid  # the channel is unharmed
            error = ask(pool, tasks.nap, 60, limit=0.1).error()  # an interruption, or else the grace, still ends a task
            assert isinstance(error, DeadlineExceeded)
            wait_until_whole(pool, 1.0)
            assert ask(pool, tasks.echo, "é").result() == "é"


def test_p12_a_task_that_closes_every_descriptor() -> None:
    with processes() as pool:
        [pid] = pool.pids()
        error = ask(pool, tasks.close_descriptors, 10_000).error()
        assert isinstance(error, WorkerLost)
        wait_until_whole(pool, 1.0)
        assert pool.pids() != [pid]
        assert ask(pool, tasks.echo, 1).result() == 1


def test_p12_a_task_that_writes_into_every_descriptor() -> None:
    with processes() as pool:
        [pid] = pool.pids()
        error = ask(pool, tasks.write_into_descriptors, 1000).error(2.0)
        assert isinstance(error, WorkerLost)
        wait_until_whole(pool, 1.0)
        assert pool.pids() != [pid]
        assert ask(pool, tasks.echo, 1).result() == 1


def test_p12_children_that_a_task_forked(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    before = children()
    with processes() as pool:
        [pid] = pool.pids()
        child = ask(pool, tasks.fork_child, str(notes)).result()
        assert ask(pool, tasks.pid).result() == pid
        # One that comes back out of the task ends there, without an answer of its own.
        assert ask(pool, tasks.fork_and_return, str(notes)).result() == pid
        both = wait_for_lines(notes, 2)
        wait_until(lambda: [is_alive(int(each)) for each in both].count(True) == 1)
        assert is_alive(child)
        # They have a copy of the process's socket: its death is noticed all the same, and they end with it.
        asked = ask(pool, tasks.nap, 60)
        os.kill(pid, signal.SIGKILL)
        assert "signal 9" in str(asked.error(1.0))
        wait_until(lambda: not is_alive(child), 1.0, "the end of the orphan")
        wait_until_whole(pool, 1.0)

        ask(pool, tasks.daemonize, str(notes)).result()
        daemon = int(wait_for_lines(notes, 3)[-1])
        assert is_alive(daemon)
        assert ask(pool, tasks.echo, 1).result() == 1
    assert not is_alive(daemon)  # it left the group, and ended with the pool
    assert children() == before


def test_p13_a_poison_task_that_kills_every_process_it_meets() -> None:
    with processes(2) as pool:
        began = time.monotonic()
        poison, others = [], []
        for number in range(200):
            if number % 10 == 0:
                poison.append(ask(pool, tasks.kill_self, int(signal.SIGKILL)))
            others.append(ask(pool, tasks.echo, number))
        assert [each.result() for each in others] == list(range(200))
        for each in poison:
            error = each.error()
            assert isinstance(error, WorkerLost)
            assert "kill_self was killed by signal 9" in str(error)
        assert time.monotonic() - began < 5
        assert pool.stats().lost == len(poison)
        wait_until_whole(pool, 1.0)


def kill_all_again_and_again(seconds: float) -> None:
    with processes(4) as pool:
        calls = [ask(pool, tasks.nap, 0.01) for _ in range(4)]
        stop = time.monotonic() + seconds
        kills = 0
        while time.monotonic() < stop:
            for pid in pool.pids():
                try:
                    os.kill(pid, signal.SIGKILL)
                    kills += 1
                except ProcessLookupError:
                    pass  # not yet told to the pool
            calls.append(ask(pool, tasks.nap, 0.01))
            gevent.sleep(0.02)
        wait_until(lambda: is_whole(pool) or pool.stats().busy, 2.0)
        for each in calls:
            kind, body = each.wait(2.0)
            assert kind == "result" or b"WorkerLost" in body
        wait_until_whole(pool, 2.0)
        release = [ask(pool, tasks.nap, 0.1) for _ in range(4)]
        assert {each.result() for each in release} == set(pool.pids())
        print(f"{kills} kills, {pool.stats().lost} processes lost")
        assert pool.stats().lost > 10


@pytest.mark.slow
def test_p14_all_processes_killed_at_once_again_and_again() -> None:
    kill_all_again_and_again(1.5)


@pytest.mark.slow
def test_p14_all_processes_killed_at_once_again_and_again_for_ten_seconds() -> None:
    kill_all_again_and_again(10)


def test_p15_the_front_dies_by_sigkill(tmp_path: Path) -> None:
    with program(str(TESTS / "support" / "pool_owner.py"), str(tmp_path), stop_with=signal.SIGKILL) as (line, front):
        told: dict[str, list[int]] = json.loads(line)
        pids = [pid for group in told.values() for pid in group]
        assert len(pids) == 5  # the template, two processes, what a task forked, a daemon
        check_end_together(front, pids)


def test_p15_the_front_dies_while_its_template_imports(tmp_path: Path) -> None:
    owner = str(TESTS / "support" / "pool_owner.py")
    with program(owner, str(tmp_path), "import", stop_with=signal.SIGKILL) as (line, front):
        check_end_together(front, json.loads(line)["template"])


def check_end_together(front: subprocess.Popen[str], pids: list[int]) -> None:
    assert all(map(is_alive, pids))
    front.kill()
    try:
        wait_until(lambda: not any(map(is_alive, pids)), 1.0, "the end of its processes")
    finally:
        for pid in filter(is_alive, pids):
            os.kill(pid, signal.SIGKILL)
