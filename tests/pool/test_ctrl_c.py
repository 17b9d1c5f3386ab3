"""Ctrl-C at any moment, caught by the main greenlet: every call ends, none runs twice, and the pool goes on."""

import os
import random
import select
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from gevent.hub import get_hub

from greentask.errors import WorkerLost
from greentask.hub import mending
from greentask.pool import calls as calls_module
from greentask.pool import process as process_module
from greentask.pool import processes as processes_module
from greentask.pool.mending import mend
from greentask.pool.setup import Setup
from support import process_tasks as tasks
from support.interrupting import at_each_moment
from support.pools import Asked, ask, children, lines, processes, wait_for_lines
from support.programs import run_source
from support.waiting import wait_until

# ---- At random moments

INTERRUPTED = """
import logging, sys, warnings
import gevent
from greentask import Pool
from support.ctrl_c import call_under_ctrl_c
from support.work import mark_number
folder, seed, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
logging.disable(logging.WARNING)  # that processes are lost
warnings.simplefilter("ignore", ResourceWarning)  # a socket that was being made when it came
pool, wrong = Pool(2), []

def call(number, turn):
    what = f"{number}-{turn}"
    got = pool.submit(mark_number, folder, what, 0).result()
    if got != what: wrong.append((what, got))

pool.submit(mark_number, folder, "first", 0).result()
left = call_under_ctrl_c(8, call, lambda: gevent.sleep(0.001), seed=seed, seconds=seconds)
print("left", len(left), "wrong", wrong, "goes on", pool.submit(mark_number, folder, "last", 0).result(20), flush=True)
pool.shutdown()
"""


@pytest.mark.parametrize("runs", [1, pytest.param(8, marks=pytest.mark.slow)])
def test_every_call_of_other_greenlets_ends_and_the_pool_goes_on(tmp_path: Path, runs: int) -> None:
    for number in range(runs):
        seed = random.randrange(10**6)
        print(f"seed {seed}")
        folder = tmp_path / str(number)
        folder.mkdir()
        program = [INTERRUPTED, str(folder), str(seed), "1" if runs == 1 else "3"]
        assert run_source(*program, patched=True) == ["left", "0", "wrong", "[]", "goes", "on", "last"]
        assert {each.stat().st_size for each in folder.iterdir()} <= {0, 1}, "a task ran twice"


# ---- At each moment, one after the other


def check(asked: list[Asked], path: Path) -> None:
    """Each has ended, once, and has run at most once; those whose answer has come, for certain."""
    for one in asked:
        wait_until(lambda one=one: one.answers, 10, "an answer")  # type: ignore[misc]
    ran = Counter(lines(path))
    for number, one in enumerate(asked):
        assert ran[str(number)] <= 1, (number, ran)
        kinds = [kind for kind, _ in one.answers]
        assert kinds in (["result"], ["error"], ["result", "error"]), kinds  # the last: told in other words
        if kinds[0] == "result":
            assert ran[str(number)] == 1
        else:
            assert isinstance(one.error(), WorkerLost)


@pytest.fixture
def quickly_mended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mending, "MENDED_EVERY", 0.02)


@pytest.mark.usefixtures("quickly_mended")
def test_a_call_that_is_handed_over_is_not_lost(tmp_path: Path) -> None:
    asked: list[Asked] = []
    path = tmp_path / "ran"
    with processes(1) as pool:
        for run in at_each_moment(processes_module, process_module, calls_module):
            wait_until(lambda: pool._idle, 10, "a process")
            pool._dispatching = True  # they wait
            asked += [ask(pool, tasks.tiny, str(path), str(number)) for number in range(len(asked), len(asked) + 2)]
            pool._dispatching = False
            run(pool._dispatch)
            check(asked, path)
    assert len(asked) > 40


@pytest.mark.usefixtures("quickly_mended")
def test_a_call_whose_answer_is_heard_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(get_hub(), "handle_error", lambda *_: None)  # it would hand it on to the main greenlet: to us
    asked: list[Asked] = []
    path = tmp_path / "ran"
    with processes(1) as pool:
        for run in at_each_moment(processes_module, process_module, calls_module):
            (process,) = wait_until(lambda: [*pool._idle.values()], 10, "a process")
            asked += [ask(pool, tasks.tiny, str(path), str(number)) for number in range(len(asked), len(asked) + 2)]
            select.select([process._fd], [], [], 10)  # and not the hub
            run(process._readable)
            process._watcher.stop()  # as gevent does where it has called us
            check(asked, path)
    assert len(asked) > 40


@pytest.mark.usefixtures("quickly_mended")
def test_who_looks_after_them_starts_no_process_before_its_pause_is_over(tmp_path: Path) -> None:
    dies, starts = tmp_path / "dies", tmp_path / "starts"
    with processes(setup=Setup("support.raw_handlers:die_at_start_while", (str(dies), str(starts)))) as pool:
        dies.touch()
        os.kill(pool.pids()[0], signal.SIGKILL)
        wait_until(lambda: not pool._idle, 10, "its end is noticed")
        asked = Asked()
        pool.submit("anything", b"1", asked)
        *_, before, last = map(float, wait_for_lines(starts, 5))
        dies.unlink()
        assert asked.wait() == ("result", b"1")
    assert last - before > 0.35, "the fifth start, after a pause of 0.4 s"


def test_a_process_that_has_died_gets_no_call_from_who_looks_after_them() -> None:
    """Its socket has ended, and the template has not told yet how it did."""
    before = children()
    with processes(1) as pool:
        [pid] = pool.pids()
        [template] = children() - before - {pid}
        os.kill(template, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not pool._idle, 10, "its end is noticed")
            asked = ask(pool, tasks.echo, 1)
            assert mend(pool)
            assert not pool._idle
        finally:
            os.kill(template, signal.SIGCONT)
        assert asked.result() == 1


def test_a_process_whose_watcher_was_stopped_is_heard_again() -> None:
    with processes(1) as pool:
        (process,) = pool._population.members.values()
        asked = ask(pool, tasks.echo, 1)
        process._watcher.stop()  # where the Ctrl-C came before our first instruction
        assert asked.result() == 1


def test_a_template_whose_word_was_lost_is_started_anew() -> None:
    with processes(1) as pool:
        before = pool.pids()
        link: Any = pool._population._link

        def lost(*_: object) -> None:
            del link._take  # once: what follows is heard
            raise KeyboardInterrupt

        link._take = lost
        asked = ask(pool, tasks.kill_self, 9)
        with pytest.raises(KeyboardInterrupt):
            asked.wait()
        assert isinstance(asked.error(), WorkerLost)
        assert ask(pool, tasks.echo, 1).result() == 1
        assert pool.pids() != before
