"""The pool's engine with real processes: what calls hear, what processes are told, and that nothing is left behind."""

import contextlib
import gc
import json
import os
import random
import resource
import signal
import time
import weakref
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import gevent
import psutil
import pytest

from greentask.errors import Cancelled, DeadlineExceeded, GreentaskError, PoolBroken, WorkerLost
from greentask.pool.frames import MOST_ITEMS, Body
from greentask.pool.processes import Processes
from greentask.pool.setup import Setup
from greentask.tasks.processes import setup_for
from support import process_tasks as tasks
from support.listener import Listener
from support.parts import descriptors
from support.pools import (
    TASKS,
    Asked,
    ask,
    children,
    is_alive,
    lines,
    open_files,
    opened_since,
    processes,
    wait_for_lines,
    wait_until_whole,
)
from support.programs import TESTS, program, run_source
from support.waiting import wait_until


def soon(seconds: float) -> float:
    """The moment so many seconds from now, for a deadline."""
    return time.monotonic() + seconds


def wait_for_losses(pool: Processes, count: int) -> None:
    wait_until(lambda: pool.stats().lost == count, 10, f"loss {count}")


# ---- Calls and results


def test_results_come_back() -> None:
    with processes() as pool:
        for value in (None, True, 1, -0.5, "é☃", [1, [2]], {"a": {"b": None}}):
            assert ask(pool, tasks.echo, value).result() == value


def test_the_callers_bytes_reach_the_process_untouched_and_so_do_the_results() -> None:
    payloads = [b"", b"\0", bytes(range(256)), b'{"args": [1],\t"id" :1}\r', os.urandom(100_000)]
    with processes(setup=Setup("support.raw_handlers:give_back")) as pool:
        for payload in payloads:
            listener = Listener()
            pool.submit("anything", payload, listener)
            assert listener.wait() == ("result", payload)
    with processes(setup=Setup("support.raw_handlers:give_back_as_error")) as pool:
        listener = Listener()
        pool.submit("anything", payloads[2], listener)
        assert listener.wait() == ("error", payloads[2])


def test_results_are_bytes_as_they_were_encoded_there() -> None:
    with processes() as pool:
        assert ask(pool, tasks.echo, "é/☃").wait() == ("result", '"é/☃"'.encode())
        assert ask(pool, tasks.echo, {"a": [1, 2.5]}).wait() == ("result", b'{"a":[1,2.5]}')


def test_calls_run_side_by_side_in_as_many_processes_as_there_are(tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with processes(3) as pool:
        asked = [ask(pool, tasks.hold, str(started), str(release)) for _ in range(5)]
        wait_for_lines(started, 3)
        stats = pool.stats()
        assert (stats.processes, stats.busy, stats.waiting, stats.lost) == (3, 3, 2, 0)
        assert sorted(map(int, lines(started))) == sorted(pool.pids())
        release.touch()
        assert {each.result() for each in asked} == set(pool.pids())
        stats = pool.stats()
        assert (stats.busy, stats.waiting) == (0, 0)


def test_calls_begin_in_the_order_in_which_they_came(tmp_path: Path) -> None:
    with processes() as pool:
        asked = [ask(pool, tasks.effect, str(tmp_path / "order"), str(number)) for number in range(50)]
        for each in asked:
            each.result()
        assert lines(tmp_path / "order") == [str(number) for number in range(50)]


def test_who_hears_of_an_end_may_submit_the_next_call() -> None:
    class Chain(Listener):
        def done(self, result: Body) -> None:
            super().done(result)
            if result != b"0" and isinstance(result, bytes):
                pool.submit("echo", json.dumps({"args": [int(result) - 1]}).encode(), nexts[int(result) - 1])

    with processes() as pool:
        nexts = [Chain() for _ in range(100)]
        pool.submit("echo", b'{"args":[99]}', nexts[99])
        assert [each.result() for each in nexts[::-1]] == list(range(99, -1, -1))


def test_a_listener_that_raises_costs_no_process(capfd: pytest.CaptureFixture[str]) -> None:
    class Raising(Listener):
        def done(self, result: Body) -> None:
            super().done(result)
            raise LookupError("a listener's own defect")

    with processes() as pool:
        raising = Raising()
        pool.submit("echo", b'{"args":[1]}', raising)
        assert ask(pool, tasks.echo, 2).result() == 2
        assert raising.result() == 1
    assert "a listener's own defect" in capfd.readouterr().err


def test_large_payloads_and_results_arrive_whole() -> None:
    with processes(2) as pool:
        sizes = [0, 1, 65_535, 65_536, 262_144, 3_000_000]
        asked = [ask(pool, tasks.echo, "x" * size) for size in sizes]
        assert [len(each.result()) for each in asked] == sizes


def test_a_size_of_no_process_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one process, not 0"):
        Processes(setup_for(TASKS), 0)
    assert Processes(setup_for(TASKS)).size == len(os.sched_getaffinity(0))


# ---- Processes die, and others take their place


def test_pids_change_after_a_death_and_the_pool_is_whole_again() -> None:
    with processes(3) as pool:
        before = set(pool.pids())
        victim = pool.pids()[1]
        os.kill(victim, signal.SIGKILL)
        wait_until(lambda: victim not in pool.pids(), what="the death")  # of an idle process, too
        wait_until_whole(pool)
        after = set(pool.pids())
        assert before - after == {victim}
        assert len(after - before) == 1
        assert pool.stats().lost == 1
        assert {each.result() for each in [ask(pool, tasks.nap, 0.1) for _ in range(3)]} == after


def test_only_the_call_that_was_running_fails(tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with processes() as pool:
        victim = ask(pool, tasks.hold, str(started), str(release))
        others = [ask(pool, tasks.echo, number) for number in range(10)]
        [pid] = wait_for_lines(started)
        os.kill(int(pid), signal.SIGKILL)
        error = victim.error()
        assert isinstance(error, WorkerLost)
        assert str(error) == "the process that ran hold was killed by signal 9 (SIGKILL)"
        assert [each.result() for each in others] == list(range(10))


@pytest.mark.slow
def test_an_answer_that_was_given_before_the_death_counts(tmp_path: Path) -> None:
    with processes() as pool:
        for number in range(10):
            notes = tmp_path / str(number)
            [pid] = pool.pids()
            asked = ask(pool, tasks.tiny, str(notes), "done")
            gevent.sleep(0)  # it is sent; from now on, the pool hears nothing
            give_up = time.monotonic() + 10
            while not lines(notes) or psutil.Process(pid).status() != psutil.STATUS_SLEEPING:
                assert time.monotonic() < give_up, "it has not answered"
            os.kill(pid, signal.SIGKILL)
            while is_alive(pid):
                assert time.monotonic() < give_up, "it has not died"
            assert asked.result() == "done"
            wait_for_losses(pool, number + 1)
            wait_until_whole(pool)


def test_all_calls_are_told_when_the_template_is_killed_and_the_pool_is_whole_again() -> None:
    before = children()
    with processes(2) as pool:
        [template] = children() - before - set(pool.pids())
        asked = [ask(pool, tasks.nap, 60) for _ in range(2)]
        waiting = ask(pool, tasks.echo, "waited")
        old = set(pool.pids())
        os.kill(template, signal.SIGKILL)
        for each in asked:
            error = each.error()
            assert isinstance(error, WorkerLost)
            assert "died with the whole pool" in str(error)
        assert waiting.result() == "waited"
        wait_until_whole(pool)
        assert not old & set(pool.pids())
        assert not any(map(is_alive, old))
        wait_until(lambda: template not in children(), what="nobody waits for the template")
    assert children() == before


def test_a_pool_without_a_free_descriptor_is_whole_again_when_there_is_one() -> None:
    with processes(2) as pool:
        victim, other = pool.pids()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # what is open stays open, and nothing is opened
        try:
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in pool.pids())
            for number in range(100):
                assert ask(pool, tasks.echo, number).result() == number
            assert pool.pids() == [other]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        wait_until_whole(pool)


def test_a_pool_starts_in_a_program_that_has_many_descriptors_open() -> None:
    """A server with a thousand connections whose template has died: the new one's socket has a high number."""
    with descriptors(1200), contextlib.ExitStack() as stack:
        for _ in range(1100):
            stack.callback(os.close, os.open(os.devnull, os.O_RDONLY))
        with processes() as pool:
            assert ask(pool, tasks.echo, "there").result() == "there"


def test_a_process_that_is_killed_has_no_group_to_hide_in(tmp_path: Path) -> None:
    with processes(grace=0.1) as pool:
        [pid] = pool.pids()
        asked = ask(pool, tasks.ignore_everything, str(tmp_path / "notes"), limit=0.2)
        assert isinstance(asked.error(), DeadlineExceeded)
        wait_until(lambda: not is_alive(pid), what="the end of the process")
        wait_until_whole(pool)


def test_a_handler_that_raises_ends_its_process_and_is_told() -> None:
    with processes(setup=Setup("support.raw_handlers:fail_in_handler")) as pool:
        listener = Listener()
        pool.submit("anything", b"", listener)
        error = listener.error()
        assert isinstance(error, WorkerLost)
        assert "exited with code 1" in str(error)
        wait_until_whole(pool)


# ---- Time


def test_a_call_whose_deadline_passes_while_it_waits_never_runs(tmp_path: Path) -> None:
    notes, started, release = tmp_path / "notes", tmp_path / "started", tmp_path / "release"
    with processes() as pool:
        first = ask(pool, tasks.hold, str(started), str(release))
        late = ask(pool, tasks.effect, str(notes), "late", deadline=soon(0.05))
        error = late.error()
        assert isinstance(error, DeadlineExceeded)
        assert error.started is False
        assert not first.answers  # it was told at its deadline, not when the process was free
        release.touch()
        first.result()
        ask(pool, tasks.effect, str(notes), "after").result()
        assert lines(notes) == ["after"]


def test_a_call_whose_deadline_has_passed_already_never_runs(tmp_path: Path) -> None:
    with processes() as pool:
        for number in range(20):
            error = ask(pool, tasks.effect, str(tmp_path / "notes"), "late", deadline=soon(-number)).error()
            assert isinstance(error, DeadlineExceeded)
            assert error.started is False
        assert ask(pool, tasks.echo, 1).result() == 1
        assert not lines(tmp_path / "notes")


def test_a_deadline_raises_time_limit_in_the_task_which_may_clean_up(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with processes() as pool:
        [pid] = pool.pids()
        asked = ask(pool, tasks.wait_for_signal, str(notes), deadline=soon(0.2))
        error = asked.error()
        assert isinstance(error, DeadlineExceeded)
        assert error.started is True
        assert lines(notes) == ["waits", "TimeLimit"]
        assert ask(pool, tasks.pid).result() == pid  # the process lives


def test_a_limit_counts_from_the_start_of_the_task(tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with processes() as pool:
        first = ask(pool, tasks.hold, str(started), str(release))
        asked = ask(pool, tasks.wait_for_signal, str(tmp_path / "notes"), limit=0.3)
        brief = ask(pool, tasks.echo, "in time", limit=0.3)
        gevent.sleep(0.35)  # longer than the limit
        assert not asked.answers
        began = time.monotonic()
        release.touch()
        first.result()
        error = asked.error()
        assert isinstance(error, DeadlineExceeded)
        assert error.started is True
        assert asked.answered_at - began > 0.3
        assert brief.result() == "in time"


def test_of_deadline_and_limit_the_first_counts_and_the_task_knows_it() -> None:
    with processes() as pool:
        far, near = soon(1000), soon(500)
        assert ask(pool, tasks.deadline).result() is None
        assert ask(pool, tasks.deadline, deadline=far).result() == pytest.approx(far)
        assert ask(pool, tasks.deadline, deadline=near, limit=1000).result() == pytest.approx(near)
        for deadline in (far, None):
            before = soon(500)
            known = ask(pool, tasks.deadline, deadline=deadline, limit=500).result()
            assert before <= known <= soon(500)


def test_a_result_within_the_grace_counts(tmp_path: Path) -> None:
    with processes() as pool:
        [pid] = pool.pids()
        assert ask(pool, tasks.give_what_there_is, str(tmp_path / "notes"), limit=0.1).result() == "half of it"
        assert ask(pool, tasks.pid).result() == pid


def test_a_task_that_goes_on_is_killed_after_the_grace(tmp_path: Path) -> None:
    with processes(grace=0.3) as pool:
        [pid] = pool.pids()
        began = time.monotonic()
        error = (asked := ask(pool, tasks.spin_in_c, str(tmp_path / "notes"), limit=0.2)).error()
        assert isinstance(error, DeadlineExceeded)
        assert error.started is True
        assert asked.answered_at - began >= 0.5
        wait_until(lambda: not is_alive(pid), what="the end of the process")
        wait_until_whole(pool)
        assert pool.pids() != [pid]


# ---- Cancelling


def test_a_waiting_call_that_is_cancelled_never_runs(tmp_path: Path) -> None:
    notes, started, release = tmp_path / "notes", tmp_path / "started", tmp_path / "release"
    with processes() as pool:
        first = ask(pool, tasks.hold, str(started), str(release))
        asked = ask(pool, tasks.effect, str(notes), "cancelled")
        pool.cancel(asked.call)
        assert asked.answers  # at once
        error = asked.error()
        assert isinstance(error, Cancelled)
        assert error.started is False
        release.touch()
        first.result()
        ask(pool, tasks.effect, str(notes), "after").result()
        assert lines(notes) == ["after"]


def test_a_call_may_be_held_when_a_process_is_to_get_it(tmp_path: Path) -> None:
    notes, is_held = tmp_path / "notes", [True]
    with processes() as pool:

        def held(name: str, **options: Any) -> Asked:
            return ask(pool, tasks.effect, str(notes), name, on_sent=lambda: None if is_held[0] else True, **options)

        resumed, late, cancelled, withdrawn = held("resumed"), held("late", deadline=soon(0.05)), held("2"), held("3")
        assert ask(pool, tasks.effect, str(notes), "other").result() == "other", "it goes by those that are held"
        assert (pool.stats().waiting, pool.is_waiting(resumed.call)) == (4, True)
        pool.cancel(cancelled.call)
        assert pool.withdraw(withdrawn.call)
        for one, kind in ((late, DeadlineExceeded), (cancelled, Cancelled)):
            error = one.error()
            assert isinstance(error, kind)
            assert error.started is False
        pool.resume(resumed.call)
        assert pool.is_waiting(resumed.call), "it is held again"
        is_held[0] = False
        for one in (resumed, late, cancelled, withdrawn):
            pool.resume(one.call)
        resumed.result()
        assert lines(notes) == ["other", "resumed"]
        is_held[0] = True
        left = held("never")
    assert isinstance(left.error(), Cancelled)
    assert not withdrawn.answers


def test_a_call_that_was_never_sent_leaves_nothing_for_the_garbage_collector(tmp_path: Path) -> None:
    class Caller:
        asked: Asked

        def holds(self) -> None:
            """Nobody is to get it for now."""

    def hold() -> weakref.ref[Caller]:
        caller = Caller()
        caller.asked = ask(pool, tasks.effect, str(tmp_path / "notes"), "never", on_sent=caller.holds)
        pool.cancel(caller.asked.call)
        return weakref.ref(caller)

    with processes() as pool:
        gc.disable()
        try:
            assert hold()() is None
        finally:
            gc.enable()


def test_a_running_call_that_is_cancelled_gets_cancel_request_and_may_clean_up(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with processes() as pool:
        [pid] = pool.pids()
        asked = ask(pool, tasks.wait_for_signal, str(notes))
        wait_for_lines(notes)
        pool.cancel(asked.call)
        error = asked.error()
        assert isinstance(error, Cancelled)
        assert error.started is True
        assert lines(notes) == ["waits", "CancelRequest"]
        assert ask(pool, tasks.pid).result() == pid


def test_a_cancelled_task_that_goes_on_is_killed_after_the_grace(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with processes(grace=0.2) as pool:
        [pid] = pool.pids()
        asked = ask(pool, tasks.spin_in_c, str(notes))
        wait_for_lines(notes)
        pool.cancel(asked.call)
        pool.cancel(asked.call)  # once is enough
        error = asked.error()
        assert isinstance(error, Cancelled)
        assert error.started is True
        wait_until(lambda: not is_alive(pid), what="the end of the process")


def test_a_call_that_is_cancelled_in_the_moment_of_its_start_ends_at_once() -> None:
    """The interruption may arrive with the call, before the task runs: then it must not be overlooked."""
    with processes(grace=60) as pool:
        [pid] = pool.pids()
        for number in range(200):
            asked = ask(pool, tasks.nap, 30)
            if number % 3:
                gevent.sleep(0)
            pool.cancel(asked.call)
            assert isinstance(asked.error(5), Cancelled)
        assert pool.pids() == [pid]


def test_a_call_that_is_cancelled_while_its_payload_is_on_its_way_ends_soon() -> None:
    """The interruption waits here behind the payload: the process must not be told to look before it is there."""
    with processes(grace=60) as pool:
        for size in (100_000, 1_000_000, 5_000_000, 20_000_000):
            asked = ask(pool, tasks.size_of, "x" * size, 30)
            gevent.sleep(0)
            pool.cancel(asked.call)
            assert isinstance(asked.error(), Cancelled)


def test_cancelling_what_has_ended_hits_nothing_else() -> None:
    seed = random.getrandbits(32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    with processes(2, grace=60) as pool:
        before = pool.pids()
        for number in range(200):
            victim = ask(pool, tasks.nap, chance.random() / 1000)
            others = [ask(pool, tasks.echo, number) for _ in range(3)]
            gevent.sleep(chance.random() / 500)
            pool.cancel(victim.call)
            assert [each.result() for each in others] == [number] * 3
            kind, body = victim.wait()
            assert kind == "result" or b"Cancelled" in body
            pool.cancel(victim.call)
        assert pool.pids() == before


# ---- Calls that are sent ahead


def learn(pool: Processes, task: Any, *args: Any) -> None:
    """Let the pool find out that a task is quick."""
    for each in [ask(pool, task, *args) for _ in range(50)]:
        each.result()


def most_sent(pool: Processes, asked: list[Asked]) -> int:
    """The most calls that were sent and not answered at a time, until all have their answers."""
    most = 0

    def look() -> bool:
        nonlocal most
        most = max(most, pool.stats().sent)
        return all(each.answers for each in asked)

    wait_until(look)
    return most


def test_quick_calls_are_sent_ahead_and_others_are_not(tmp_path: Path) -> None:
    class Look(Asked):
        def done(self, result: Body) -> None:
            super().done(result)
            sent.append(pool.stats().sent)

    sent: list[int] = []
    with processes() as pool:
        for task, args in ((tasks.echo, [1]), (tasks.nap, [0.03])):
            for _ in range(2):  # the first time, nobody knows how long it takes
                sent.clear()
                looks = [Look() for _ in range(20)]
                for look in looks:
                    pool.submit(task.name, json.dumps({"args": args}).encode(), look)
                for look in looks:
                    look.wait()
            if task is tasks.echo:
                assert max(sent) > 2
            else:
                assert max(sent) == 0  # in the moment of an answer, the next call has not been sent


def test_what_waits_behind_a_call_of_some_milliseconds_stays_where_it_is() -> None:
    class Look(Asked):
        def done(self, result: Body) -> None:
            super().done(result)
            gevent.spawn_later(0.013, lambda: sent.append(pool.stats().sent))  # the next one runs still

    sent: list[int] = []
    with processes() as pool:
        for _ in range(3):  # it is learned meanwhile how long they take
            looks = [Look() for _ in range(20)]
            for each in looks:
                pool.submit(tasks.nap.name, b'{"args":[0.017]}', each)
            for each in looks:
                each.wait()
    assert median(sent) == 2, sent


def test_what_waits_behind_a_call_that_turns_out_long_runs_elsewhere_and_once(tmp_path: Path) -> None:
    with processes(2, grace=60) as pool:
        learn(pool, tasks.tiny, str(tmp_path / "learned"), "x")
        for number in range(10):
            notes = tmp_path / str(number)
            texts = [str(text) for text in range(30)]
            long = None
            asked = []
            for text in texts:
                if text == "4":
                    long = ask(pool, tasks.tiny, str(notes), text, 30)
                else:
                    asked.append(ask(pool, tasks.tiny, str(notes), text))
            for each in asked:
                each.result()
            assert long is not None
            assert not long.answers  # it still holds its process
            assert sorted(lines(notes)) == sorted(texts)
            pool.cancel(long.call)
            assert isinstance(long.error(), Cancelled)


def test_what_waits_behind_a_call_that_tells_its_progress_runs_elsewhere_too() -> None:
    with processes(2, grace=60) as pool:
        learn(pool, tasks.steps, 1)
        for _ in range(20):
            asked = [ask(pool, tasks.steps, 1) for _ in range(4)]
            long = ask(pool, tasks.steps, 1_000_000, 0.0001, progress=True)
            asked += [ask(pool, tasks.steps, 1) for _ in range(20)]
            for each in asked:
                each.result()
            assert not long.answers
            pool.cancel(long.call)
            assert isinstance(long.error(), Cancelled)


def test_of_what_was_sent_to_a_process_that_dies_only_the_first_fails(tmp_path: Path) -> None:
    with processes(2) as pool:
        learn(pool, tasks.tiny, str(tmp_path / "learned"), "x")
        ahead = 0
        for number in range(10):
            notes = tmp_path / str(number)
            texts = [str(text) for text in range(40)]
            asked = [ask(pool, tasks.tiny, str(notes), text, "die" if text == "4" else 0) for text in texts]
            ahead = max(ahead, most_sent(pool, asked) - 2)
            for text, each in zip(texts, asked):
                if text == "4":
                    assert isinstance(each.error(), WorkerLost)
                else:
                    assert each.result() == text
            assert sorted(lines(notes)) == sorted(texts)
            wait_until_whole(pool)
        assert ahead > 0  # else nothing was put to the test


def test_a_call_that_was_sent_ahead_has_the_whole_of_its_limit(tmp_path: Path) -> None:
    with processes(1) as pool:
        learn(pool, tasks.tiny, str(tmp_path / "learned"), "x")
        asked = [ask(pool, tasks.tiny, str(tmp_path / "notes"), str(text), 0.1, limit=0.5) for text in range(10)]
        assert [each.result() for each in asked] == [str(text) for text in range(10)]


# ---- Progress and streams


def test_progress_is_told_in_order_and_before_the_end() -> None:
    with processes() as pool:
        asked = ask(pool, tasks.steps, 500, progress=True)
        assert asked.result() == 500
        assert asked.reports == [{"done": done, "total": 500, "note": "a step"} for done in range(500)]


def test_progress_that_nobody_asked_for_is_not_told() -> None:
    with processes() as pool:
        asked = ask(pool, tasks.steps, 500)
        assert asked.result() == 500
        assert asked.reports == []


def test_a_generator_that_is_not_streamed_gives_an_array() -> None:
    with processes() as pool:
        assert ask(pool, tasks.stream, 5).result() == [0, 1, 2, 3, 4]


def test_a_stream_gives_its_items_and_then_their_number() -> None:
    with processes() as pool:
        asked = ask(pool, tasks.stream, 1000, window=1000)
        assert asked.result() == {"items": 1000}
        assert asked.items == list(range(1000))


def test_a_stream_stops_when_nobody_grants_and_goes_on_when_somebody_does(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with processes(2) as pool:
        asked = ask(pool, tasks.produce, str(notes), 50, window=5)
        asked.wait_for_items(5)
        for granted in (5, 10, 20):
            wait_for_lines(notes, granted + 1)  # one is made and not taken yet
            for _ in range(50):
                ask(pool, tasks.echo, 1).result()  # time enough for another, if it could
            assert len(lines(notes)) == granted + 1
            assert asked.items == list(range(granted))
            pool.grant(asked.call, granted)
        assert not asked.answers
        pool.grant(asked.call, 1000)
        assert asked.result() == {"items": 50}
        assert asked.items == list(range(50))
        assert lines(notes)[-1] == "end"


@pytest.mark.parametrize("window", [1, 5])
def test_no_grant_is_lost_however_many_there_are(window: int) -> None:
    class Reader(Asked):
        def item(self, item: bytes) -> None:
            super().item(item)
            pool.grant(self.call, 1)

    with processes() as pool:
        reader = Reader()
        reader.call = pool.submit("stream", b'{"args":[3000]}', reader, window=window)
        assert reader.result(60) == {"items": 3000}
        assert reader.items == list(range(3000))


def test_a_stream_that_waits_for_its_reader_can_be_cancelled(tmp_path: Path) -> None:
    notes = tmp_path / "notes"
    with processes(grace=60) as pool:
        [pid] = pool.pids()
        for _ in range(20):
            notes.unlink(missing_ok=True)
            asked = ask(pool, tasks.produce, str(notes), 50, window=2)
            asked.wait_for_items(2)
            pool.cancel(asked.call)
            assert isinstance(asked.error(), Cancelled)
            assert lines(notes)[-1] == "end"  # it was closed, as a generator is
        assert pool.pids() == [pid]


def test_a_stream_under_many_interruptions_keeps_its_frames_whole() -> None:
    """Interrupted in the middle of a frame, it must neither cut it nor send it twice."""
    seed = random.getrandbits(32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    with processes(grace=60) as pool:
        before = pool.pids()
        for _ in range(80):
            asked = ask(pool, tasks.stream, 10_000_000, window=MOST_ITEMS)
            asked.wait_for_items(1)
            gevent.sleep(chance.random() / 200)
            pool.cancel(asked.call)
            assert isinstance(asked.error(), Cancelled)
            assert asked.items == list(range(len(asked.items)))
        assert pool.pids() == before


def test_what_is_granted_while_the_call_waits_counts(tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with processes() as pool:
        ask(pool, tasks.hold, str(started), str(release))
        asked = ask(pool, tasks.stream, 10, window=3)
        pool.grant(asked.call, 4)
        release.touch()
        asked.wait_for_items(7)
        pool.grant(asked.call, 3)
        assert asked.result() == {"items": 10}


@pytest.mark.parametrize("is_handed_back", [False, True])
def test_what_is_granted_while_the_call_waits_in_a_process_counts(is_handed_back: bool) -> None:
    with processes() as pool:
        learn(pool, tasks.stream, 1)
        quick, first = ask(pool, tasks.stream, 1), ask(pool, tasks.stream, 2, window=1)
        second = ask(pool, tasks.stream, 10, window=3)
        wait_until(lambda: second.call.process is not None)  # sent ahead, behind one that waits for its reader
        pool.grant(second.call, 4)
        pool.grant(second.call, 3)
        if is_handed_back:
            wait_until(lambda: pool.is_waiting(second.call))
        pool.grant(first.call, 1)
        assert (quick.result(), first.result()) == ([0], {"items": 2})
        assert second.result() == {"items": 10}


def test_grants_beyond_all_bounds_harm_nobody(tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with processes() as pool:
        ask(pool, tasks.hold, str(started), str(release))
        asked = ask(pool, tasks.stream, 10, window=MOST_ITEMS)
        pool.grant(asked.call, 1_000_000)
        release.touch()
        assert asked.result() == {"items": 10}


def test_a_grant_does_not_make_a_stream_of_another_call(tmp_path: Path) -> None:
    started, release = tmp_path / "started", tmp_path / "release"
    with processes() as pool:
        ask(pool, tasks.hold, str(started), str(release))
        waiting = ask(pool, tasks.echo, 1)
        pool.grant(waiting.call, 10)
        release.touch()
        assert waiting.result() == 1
        pool.grant(waiting.call, 10)


def test_an_alarm_of_the_tasks_own_in_a_waiting_stream_is_the_tasks_error() -> None:
    with processes() as pool:
        [pid] = pool.pids()
        asked = ask(pool, tasks.stream_with_alarm, 100, window=3)
        assert str(asked.error()) == "Alarm: too slow a reader"
        assert asked.items == [0, 1, 2]
        assert ask(pool, tasks.pid).result() == pid


# ---- Coroutines


def test_coroutines_of_a_process_share_one_event_loop() -> None:
    with processes() as pool:
        first = ask(pool, tasks.meet).result()
        assert [ask(pool, tasks.meet).result() for _ in range(5)] == [first] * 5


def test_a_coroutine_that_is_interrupted_leaves_the_loop_usable(tmp_path: Path) -> None:
    with processes(grace=60) as pool:
        first = ask(pool, tasks.meet).result()
        for number in range(10):
            notes = tmp_path / str(number)
            asked = ask(pool, tasks.wait_in_loop, str(notes))
            wait_for_lines(notes)
            pool.cancel(asked.call)
            assert isinstance(asked.error(), Cancelled)
            assert lines(notes) == ["waits", "cleaned up"]
        assert isinstance(ask(pool, tasks.wait_in_loop, str(tmp_path / "limit"), limit=0.1).error(), DeadlineExceeded)
        assert ask(pool, tasks.meet).result() == first


# ---- Start and close


@pytest.mark.slow
def test_close_leaves_no_process_no_zombie_and_no_descriptor() -> None:
    with processes():
        pass  # what is made once for all (the hub's own descriptors) is made now
    files, before = open_files(), children()
    for _ in range(20):
        with processes(2) as pool:
            ask(pool, tasks.echo, 1).result()
            ask(pool, tasks.nap, 60)
            pids = pool.pids()
        assert not any(map(is_alive, pids))
        assert children() == before
    assert opened_since(files) == {}


def test_the_end_of_a_socket_is_not_put_off_until_the_loop_goes_round() -> None:
    program = """
import _socket, gevent
from greentask.pool.process import Process
ours, theirs = _socket.socketpair()
Process(gevent.get_hub().loop, 0, 0, ours.detach(), None).close()
print(theirs.recv(1, _socket.MSG_DONTWAIT))
theirs.close()
"""
    assert run_source(program, patched=True) == ["b''"]


def test_close_tells_whoever_waits() -> None:
    with processes() as pool:
        running, waiting = ask(pool, tasks.nap, 60), ask(pool, tasks.nap, 60)
        began = time.monotonic()
        pool.close()
        assert time.monotonic() - began < 30, "it does not wait for what runs"
        for asked, started in ((running, True), (waiting, False)):
            error = asked.error()
            assert isinstance(error, Cancelled)
            assert error.started is started
        pool.close()
        with pytest.raises(GreentaskError, match="the pool is closed"):
            ask(pool, tasks.echo, 1)
        assert pool.pids() == []


def test_close_ends_a_pool_that_was_never_started() -> None:
    before = children()
    Processes(setup_for(TASKS), 2).close()
    assert children() == before


def test_close_ends_processes_that_do_not_want_to(tmp_path: Path) -> None:
    before = children()
    with processes(3) as pool:
        ask(pool, tasks.spin_in_c, str(tmp_path / "notes"))
        ask(pool, tasks.ignore_everything, str(tmp_path / "notes"))
        ask(pool, tasks.stop_self)
        wait_for_lines(tmp_path / "notes", 2)
    assert children() == before


def test_code_that_fails_at_import_breaks_the_start_with_its_traceback() -> None:
    with processes():
        pass
    files, before = open_files(), children()
    for _ in range(5):
        pool = Processes(Setup("support.raw_handlers:fail_at_import", ("no licence é",)), 2)
        with pytest.raises(PoolBroken) as caught:
            pool.start()
        assert 'raw_handlers.py", line' in str(caught.value)
        assert "RuntimeError: no licence é" in str(caught.value)
    assert children() == before  # no zombie either
    assert opened_since(files) == {}


def test_a_long_traceback_arrives_whole() -> None:
    pool = Processes(Setup("support.raw_handlers:fail_at_import", ("x" * 1_000_000 + " the end",)), 2)
    with pytest.raises(PoolBroken, match="x the end"):
        pool.start()


def test_a_module_that_is_not_there_breaks_the_start() -> None:
    with pytest.raises(PoolBroken, match=r"No module named 'support\.nowhere'"):
        Processes(Setup("support.nowhere:make"), 1).start()


def test_a_template_that_hangs_as_it_is_started_anew_is_given_up_and_another_one_tried(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    hangs, before = tmp_path / "hangs", children()
    setup = Setup("support.raw_handlers:wait_at_import_while", (str(hangs),))

    def give_time(seconds: float) -> None:
        object.__setattr__(setup, "start", seconds)

    with processes(setup=setup) as pool:
        [template] = children() - before - set(pool.pids())
        hangs.touch()
        give_time(1.0)
        os.kill(template, signal.SIGKILL)
        wait_until(lambda: not pool.pids(), what="it is gone")
        waiting = Asked()
        pool.submit("task", b"waits", waiting)
        error = waiting.error()
        assert isinstance(error, WorkerLost)
        assert "did not load within 1 s (start_timeout=, --start-timeout)" in str(error)
        told = [capfd.readouterr().err]
        give_time(5.0)  # on a busy machine it has not come so far in that second, and the next one will tell it
        wait_until(lambda: told.append(capfd.readouterr().err) or "wait_at_import_while" in "".join(told), 30)
        give_time(60.0)
        hangs.unlink()
        wait_until_whole(pool)
        after = Asked()
        pool.submit("task", b"after", after)
        assert after.wait() == ("result", b"after")
    assert children() == before


def test_a_start_that_hangs_is_given_up(tmp_path: Path) -> None:
    (tmp_path / "hangs").touch()
    before = children()
    setup = Setup("support.raw_handlers:wait_at_import_while", (str(tmp_path / "hangs"),), start=0.5)
    with pytest.raises(PoolBroken, match=r"did not load within 0\.5 s"):
        Processes(setup, 1).start()
    assert children() == before


def test_a_start_that_is_given_up_leaves_nothing_behind() -> None:
    before = children()
    with pytest.raises(gevent.Timeout), gevent.Timeout(0.01):
        Processes(setup_for(TASKS), 2).start()
    assert children() == before


@pytest.mark.slow
@pytest.mark.parametrize(("size", "within"), [(100, 5.0), (400, 30.0)])
def test_many_processes_start(size: int, within: float) -> None:
    before = children()
    began = time.monotonic()
    with descriptors(size + 101), processes(size) as pool:
        took = time.monotonic() - began
        print(f"{size} processes in {took:.2f} s")
        assert took < within
        asked = [ask(pool, tasks.nap, 1) for _ in range(size)]
        assert {each.result(60) for each in asked} == set(pool.pids())
        assert len(set(pool.pids())) == size
    assert children() == before


# ---- Forks of the owner


def test_a_fork_of_the_owner_refuses_and_the_owner_goes_on(tmp_path: Path) -> None:
    with program(str(TESTS / "support" / "pool_owner.py"), str(tmp_path), "fork", stop_with=signal.SIGKILL) as (
        line,
        owner,
    ):
        told: dict[str, Any] = json.loads(line)
        try:
            assert told["the child heard"] == (
                "GreentaskError: this process was forked from the pool's owner: make a pool of its own here"
            )
            assert told["and of the parent's call"] == 0
            assert told["a call that was out of time"] == "the time ran out before the task started"
            assert sorted(told["calls that were running"]) == sorted(told["processes"])
            assert told["the parent's next call"] == "goes on"
            assert told["the parent's next calls"] == list(range(20))
            assert all(map(is_alive, told["processes"]))
            owner.kill()
            # The child has a copy of every socket that the owner had, unless it let go of them.
            gone = [*told["template"], *told["processes"], *told["forked by a task"], *told["daemons"]]
            wait_until(lambda: not any(map(is_alive, gone)), what="the end of the owner's processes")
            assert is_alive(told["child"])
        finally:
            os.kill(told["child"], signal.SIGKILL)


# ---- Chance


def under_chance(folder: Path, seconds: float, size: int) -> None:
    """Quick calls and long ones, deadlines, limits, cancels, kills of processes and of the template at random.

    Every answer is true: each call has one, and none runs twice; one that has a result ran, and one that is said not
    to have started didn't.
    """
    seed = random.getrandbits(32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    notes = folder / "notes"
    notes.touch()
    asked: list[Asked] = []
    killed: set[int] = set()
    others_children = children()  # a manager's of multiprocessing, say
    stop = time.monotonic() + seconds
    with processes(size, grace=0.5) as pool:

        def kill() -> None:
            while time.monotonic() < stop:
                gevent.sleep(chance.expovariate(20))
                victims = chance.sample(pool.pids(), min(len(pool.pids()), chance.choice([1, 1, 1, size])))
                if chance.random() < 0.05:
                    victims = list({child.pid for child in psutil.Process().children()} - others_children)
                for pid in victims:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.add(pid)

        def cancel() -> None:
            while time.monotonic() < stop:
                gevent.sleep(chance.expovariate(100))
                for each in asked[-100:]:
                    if not each.answers and chance.random() < 0.1:
                        pool.cancel(each.call)

        others = [gevent.spawn(kill), gevent.spawn(cancel)]
        while time.monotonic() < stop:
            for _ in range(chance.choice([1, 1, 10, 50])):
                then = chance.choices([0, 0.001, 0.02, "die"], [100, 5, 2, 1])[0]
                options: dict[str, float] = {}
                if chance.random() < 0.1:
                    options["limit"] = chance.choice([0.01, 0.1])
                if chance.random() < 0.1:
                    options["deadline"] = soon(chance.choice([-1, 0, 0.001, 0.05]))
                asked.append(ask(pool, tasks.tiny, str(notes), str(len(asked)), then, **options))
            gevent.sleep(chance.choice([0, 0, 0.001, 0.01, 0.03]))
        gevent.joinall(others, raise_error=True)
        # Where the machine is busy, none may have lived for long enough.
        asked += [ask(pool, tasks.tiny, str(notes), str(len(asked) + more), 0) for more in range(5)]
        for each in asked:
            each.wait(30)
        wait_until(lambda: not killed & set(pool.pids()), 10, "the news of the deaths")
        wait_until_whole(pool, 10)
        assert ask(pool, tasks.echo, "still here").result() == "still here"
        assert (pool.stats().sent, pool.stats().waiting) == (0, 0)
    ran = set(lines(notes))
    assert len(lines(notes)) == len(ran), "a task ran twice"
    ends: Counter[str] = Counter()
    for number, each in enumerate(asked):
        kind, body = each.wait()
        if kind == "result":
            assert body == json.dumps(str(number)).encode()
            assert str(number) in ran
            ends["done"] += 1
        else:
            error = each.error()
            assert isinstance(error, WorkerLost | Cancelled | DeadlineExceeded), body
            if not error.started:
                assert str(number) not in ran, body
            ends[f"{type(error).__name__}, started: {error.started}"] += 1
    print(f"{len(asked)} calls, {len(ran)} ran, {len(killed)} kills; {dict(ends)}")
    assert ends["done"]
    assert len(ends) > 3


def test_whatever_chance_does_every_answer_is_true(tmp_path: Path) -> None:
    under_chance(tmp_path, 1.5, 3)


@pytest.mark.slow
@pytest.mark.parametrize("size", [1, 2, 4])
def test_whatever_chance_does_for_a_while_every_answer_is_true(tmp_path: Path, size: int) -> None:
    under_chance(tmp_path, 6, size)


# ---- Random kills


def under_random_kills(folder: Path, seconds: float, size: int) -> None:
    """Calls with an effect, while processes are killed at random: one answer each, and no task runs twice."""
    seed = random.getrandbits(32)
    print(f"seed: {seed}")
    chance = random.Random(seed)
    notes = folder / "effects"
    notes.touch()
    asked: list[Asked] = []
    killed: set[int] = set()
    stop = time.monotonic() + seconds
    with processes(size) as pool:

        def kill() -> None:
            while time.monotonic() < stop:
                gevent.sleep(chance.expovariate(50))
                for pid in chance.sample(pool.pids(), min(len(pool.pids()), chance.choice([1, 1, 1, size]))):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                        killed.add(pid)

        killer = gevent.spawn(kill)
        while time.monotonic() < stop:
            pause = chance.choice([0, 0, 0.001, 0.01])
            asked.append(ask(pool, tasks.effect, str(notes), str(len(asked)), pause))
            gevent.sleep(chance.choice([0, 0, 0.001, 0.005]))
        killer.get()
        for each in asked:
            each.wait(30)
        wait_until(lambda: not killed & set(pool.pids()), 10, "the news of the deaths")
        wait_until_whole(pool, 10)
        assert ask(pool, tasks.echo, "still here").result() == "still here"
        ran = lines(notes)
        lost = pool.stats().lost
    assert len(ran) == len(set(ran)), "a task ran twice"
    done = 0
    for number, each in enumerate(asked):
        kind, body = each.wait()  # exactly one, or it fails
        if kind == "result":
            assert body == json.dumps(str(number)).encode()
            assert str(number) in ran
            done += 1
        else:
            assert isinstance(each.error(), WorkerLost), body
    print(f"{len(asked)} calls, {done} done, {len(ran)} ran, {lost} processes lost")
    assert done > 0
    assert done < len(asked)


@pytest.mark.slow
def test_random_kills_for_a_while_lose_no_caller_and_run_no_task_twice(tmp_path: Path) -> None:
    under_random_kills(tmp_path, 8, 4)
