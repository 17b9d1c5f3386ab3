"""The end of the background's thread, and its next beginning: what comes and goes with it, and that no post is lost."""

import os
import random
import threading
import time
from collections.abc import Iterator

import gevent
import gevent.os
import pytest

from greentask.hub import home as home_module
from greentask.hub.bell import Bell
from greentask.hub.home import Background
from support.conditions import wait_until
from support.programs import run_at_once, run_source


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Background]:
    """One that nobody else uses, and that ends a moment after the last of what lives there."""
    monkeypatch.setattr(home_module, "_LINGERS", 0.001)
    background = Background()
    yield background
    background.stop()


def wait_for_end(home: Background) -> None:
    wait_until(lambda: home.is_deserted() and not home._there.locked(), "its end")


def test_it_begins_with_a_post_and_ends_with_the_last_of_what_lives_there(home: Background) -> None:
    fds, ran = len(os.listdir("/proc/self/fd")), list[object]()
    assert home.is_deserted()
    for number in range(20):
        home.post(ran.append, number)
        assert not home.is_deserted()
        wait_for_end(home)
    assert ran == list(range(20))
    assert (home.hub, home.thread) == (None, 0)
    assert len(os.listdir("/proc/self/fd")) <= fds  # what tests before it have left may be collected meanwhile


def test_whatever_waits_there_keeps_it(home: Background) -> None:
    told = list[str]()
    ours, theirs = os.pipe()

    def live() -> None:
        gevent.sleep(0.03)
        told.append("slept")
        gevent.get_hub().threadpool.apply(told.append, ("a thread of gevent's",))
        gevent.os.tp_read(ours, 1)
        told.append("read")
        asked.wait(20)  # with nothing in the loop
        told.append("rung")

    asked = Bell(home)
    fds, tasks = len(os.listdir("/proc/self/fd")), len(os.listdir("/proc/self/task"))
    home.post(gevent.spawn, live)
    wait_until(lambda: len(told) == 2)
    os.write(theirs, b".")
    wait_until(lambda: asked.wakes)
    thread = home.thread
    time.sleep(0.02)  # many times as long as it lingers
    assert home.thread == thread
    asked.ring()
    wait_for_end(home)
    assert told == ["slept", "a thread of gevent's", "read", "rung"]
    wait_until(lambda: len(os.listdir("/proc/self/task")) <= tasks, "the end of gevent's threads")
    # Fewer, where something of an earlier test has ended meanwhile.
    wait_until(lambda: len(os.listdir("/proc/self/fd")) <= fds, "the end of its descriptors")
    os.close(ours)
    os.close(theirs)


def test_it_lives_on_for_what_it_is_told_to_keep(home: Background) -> None:
    kept = Bell()
    home.post(home.keep)
    home.post(kept.ring)
    assert kept.wait(20)
    thread = home.thread
    time.sleep(0.02)  # many times as long as it lingers
    assert home.thread == thread
    home.post(home.let_go)
    wait_for_end(home)


def test_one_that_is_used_every_now_and_then_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a program that makes a client for each request: half a second is more than most of them are apart."""
    home, threads = Background(), set[int]()
    assert home_module._LINGERS == 0.5
    monkeypatch.setattr(home_module, "_LINGERS", 20.0)  # the pauses here may be longer than they are to be
    try:
        for _ in range(12):
            ran = Bell()
            home.post(ran.ring)
            assert ran.wait(20)
            threads.add(home.thread)
            time.sleep(0.02)  # it doesn't end meanwhile
        assert len(threads) == 1
    finally:
        home.stop()


class _Watched:
    """The lock of a background, and what happens right before and after its thread gives it back."""

    def __init__(self, home: Background, before: object, after: object) -> None:
        self._lock = home._tended
        self._steps = before, after
        self.acquire, self.locked = self._lock.acquire, self._lock.locked

    def release(self) -> None:
        before, after = self._steps
        self._steps = None, None  # once
        for step in (before, self._lock.release, after):
            if callable(step):
                step()


@pytest.mark.parametrize("elsewhere", [False, True], ids=["in its own thread", "in another one"])
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_is_posted_in_the_midst_of_its_end_is_run(home: Background, when: str, elsewhere: bool) -> None:
    ran = list[str]()

    def post() -> None:
        if elsewhere:
            thread = threading.Thread(target=home.post, args=(ran.append, "posted"))
            thread.start()
            thread.join(20)
        else:
            home.post(ran.append, "posted")  # of what was garbage, say

    home._tended = _Watched(home, *((post, None) if when == "before" else (None, post)))
    home.post(ran.append, "first")
    wait_until(lambda: len(ran) == 2)
    wait_for_end(home)
    assert ran == ["first", "posted"]


def test_where_no_thread_can_be_started_who_posts_is_told(home: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[str]()

    def fail(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as without:
        without.setattr(home_module, "_start_thread", fail)
        with pytest.raises(RuntimeError, match="can't start"):
            home.post(ran.append, "in vain")
    home.post(ran.append, "later")
    wait_until(lambda: ran)
    wait_for_end(home)
    assert ran == ["later"]


def test_a_ctrl_c_as_it_starts_leaves_it_usable(home: Background, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[str]()

    def interrupt(*_: object) -> int:
        monkeypatch.undo()
        raise KeyboardInterrupt

    monkeypatch.setattr(home_module, "_start_thread", interrupt)
    with pytest.raises(KeyboardInterrupt):
        home.post(ran.append, "first")
    home.post(ran.append, "second")
    wait_until(lambda: len(ran) == 2)


def test_where_there_is_no_descriptor_for_its_hub_it_waits_for_one(
    home: Background, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    settle, left, ran = home_module.Home._settle, [None, None], list[str]()

    def fail(self: home_module.Home) -> None:
        if left:
            left.pop()
            raise OSError(24, "Too many open files")
        settle(self)

    monkeypatch.setattr(home_module, "_TRIED_EVERY", 0.001)
    monkeypatch.setattr(Background, "_settle", fail)
    home.post(ran.append, "run")
    wait_until(lambda: ran)
    assert [record.levelname for record in caplog.records] == ["ERROR"] * 2


def test_it_ends_where_its_hub_can_not_be_taken_apart(home: Background, caplog: pytest.LogCaptureFixture) -> None:
    ran = list[str]()

    def break_hub() -> None:
        hub = home.hub
        destroy = hub.destroy

        def fail(**options: object) -> None:
            destroy(**options)
            raise OSError("it is stuck")

        hub.destroy = fail
        ran.append("first")

    home.post(break_hub)
    wait_for_end(home)
    home.post(ran.append, "second")
    wait_for_end(home)
    assert ran == ["first", "second"]
    assert ["could not take its hub apart" in record.message for record in caplog.records] == [True]


RACES = """
import os, random, signal, sys, threading, time
from greentask.hub import home as homes
from support.conditions import wait_until
seed, count = int(sys.argv[1]), int(sys.argv[2])
sys.setswitchinterval(1e-5)
homes._LINGERS = 0.001
home, ran, starts, sent = homes.find_home(), [], [], [0] * (count + 1)
start = homes._start_thread
homes._start_thread = lambda *args: starts.append(1) or start(*args)
class Garbage:
    def __init__(self, what): self.what = what
    def __del__(self): home.post(ran.append, self.what)
def post(number, as_garbage=False):
    sent[number] += 1
    if as_garbage: Garbage((number, sent[number]))
    else: home.post(ran.append, (number, sent[number]))
barrier = threading.Barrier(count)
def run(number):
    chance = random.Random(seed + number)
    for turn in range(250):
        barrier.wait(20)
        until = time.perf_counter() + chance.uniform(0.0008, 0.0026)  # the moment when it is about to end
        if number == 0: signal.setitimer(signal.ITIMER_REAL, max(1e-5, chance.uniform(0.0008, 0.0026)))
        time.sleep(max(0, until - time.perf_counter()))
        for _ in range(chance.choice([1, 1, 3])): post(number, chance.random() < 0.3)
        if number == 0: wait_until(lambda: len(ran) >= sum(sent), f"nothing is lost with seed {seed}, turn {turn}")
signal.signal(signal.SIGALRM, lambda *_: post(count))  # in the midst of anything, a post among it
threads = [threading.Thread(target=run, args=(number,)) for number in range(1, count)]
for thread in threads: thread.start()
run(0)
for thread in threads: thread.join()
signal.setitimer(signal.ITIMER_REAL, 0)
wait_until(lambda: len(set(ran)) == sum(sent) == len(ran), f"each was run, once, with seed {seed}")
assert len(starts) > 20, f"{len(starts)} starts"
wait_until(lambda: len(os.listdir("/proc/self/task")) == 1, "its thread has ended")
print("done")
"""


def test_posts_that_race_with_its_end_are_run_once_each() -> None:
    """By threads, signal handlers and what is garbage, again and again in the moment when it ends."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    assert run_at_once(RACES, [[str(seed), "1"], [str(seed), "3"]]) == [["done"]] * 2


def test_what_is_posted_in_a_forked_child_is_its_own() -> None:
    """Whatever state the parent's was in: it is there, it is about to end, it has ended."""
    program = """
import os, time
from greentask.hub import home as homes
from greentask.hub.bell import Bell
from support.conditions import wait_until
homes._LINGERS = 0.001
home, codes = homes.find_home(), []
for turn in range(60):
    ran = Bell()
    home.post(ran.ring)
    assert ran.wait(20)
    time.sleep(turn % 6 * 0.0005)
    if not (child := os.fork()):
        bell = Bell()
        home.post(bell.ring)  # the parent's, of which nothing lives here
        own = homes.find_home()
        own.post(bell.ring)
        os._exit(not bell.wait(20) or own is home)
    codes.append(os.waitpid(child, 0)[1])
    ran = Bell()
    home.post(ran.ring)
    assert ran.wait(20)
wait_until(lambda: len(os.listdir("/proc/self/task")) == 1, "its thread has ended")
print(set(codes))
"""
    assert run_source(program) == ["{0}"]


def test_the_interpreter_may_exit_at_any_moment_of_it() -> None:
    program = """
import atexit, os, sys, time
from greentask.hub import home as homes
from greentask.hub.bell import Bell
homes._LINGERS = 0.001
def use():
    home, ran = homes.find_home(), Bell()
    if home.is_here(): home.run(ran.ring)
    else: home.post(ran.ring)
    assert ran.wait(20)
def last():
    use()
    print("done", flush=True)
atexit.register(last)
use()
time.sleep(float(sys.argv[1]))
"""
    moments = [[f"{0.0005 * number:.4f}"] for number in range(8)]
    assert run_at_once(program, moments) == [["done"]] * 8
