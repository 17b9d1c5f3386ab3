"""The home of I/O: where it is in each kind of program, and ``Bell``, the way of waiting for it that suits them all."""

import os
import sys
import threading
import time
from collections.abc import Callable

import gevent
import pytest

from greentask.hub import home as home_module
from greentask.hub.bell import Bell
from greentask.hub.home import find_home
from support.interrupting import at_each_moment
from support.programs import run_at_once, run_source
from support.waiting import wait_until

# ---- Home


def test_a_plain_program_has_one_home_in_the_background() -> None:
    home = find_home()
    assert not home.is_here()
    assert home.pid == os.getpid()
    assert find_home() is home


def test_threads_that_come_at_once_start_one_thread_for_it() -> None:
    program = """
import os, threading
from greentask.hub.home import find_home
from support.conditions import wait_until
found, ready = [], threading.Barrier(20)
def find():
    ready.wait(20)
    home = find_home()
    found.append(home)
    home.run(found.append, home)
threads = [threading.Thread(target=find) for _ in range(20)]
for thread in threads: thread.start()
for thread in threads: thread.join(20)
found[0].post(found[0].keep)
wait_until(lambda: len(os.listdir("/proc/self/task")) == 2, "the callers' threads are gone, and one is left")
wait_until(lambda: len(found) == 40, "all of it was run")
print(len(set(map(id, found))))
"""
    assert run_source(program) == ["1"]


def test_a_function_runs_in_the_homes_thread_in_its_turn() -> None:
    home, ran, done = find_home(), list[tuple[str, int]](), Bell()

    def note(name: str) -> None:
        ran.append((name, threading.get_native_id()))

    for name in "abc":
        home.run(note, name)
    home.run(done.ring)
    assert done.wait(20)
    assert [name for name, _ in ran] == ["a", "b", "c"]
    threads = {thread for _, thread in ran}
    assert len(threads) == 1
    assert threads != {threading.get_native_id()}


def test_in_its_own_thread_a_function_runs_at_once() -> None:
    home, ran, done = find_home(), list[str](), Bell()

    def outer() -> None:
        home.run(ran.append, "inner")
        ran.append("after it")
        done.ring()

    home.run(outer)
    assert done.wait(20)
    assert ran == ["inner", "after it"]


def test_what_runs_soon_does_not_run_in_the_midst_of_anything() -> None:
    home, ran, done = find_home(), list[str](), Bell()

    def outer() -> None:
        home.soon(ran.append, "inner")
        home.soon(done.ring)
        ran.append("before it")

    home.soon(outer)
    assert done.wait(20)
    assert ran == ["before it", "inner"]


def test_at_the_exit_it_is_here_and_no_thread_is_left() -> None:
    """One that wakes while the interpreter is taken apart crashes it; which is why none is started any more, either."""
    program = """
import atexit, os, sys
from support.conditions import wait_until
def last():
    wait_until(lambda: len(os.listdir("/proc/self/task")) == 1, "only the main thread is left")
    print(find_home().is_here(), find_home().has_ended, len(os.listdir("/proc/self/task")))
atexit.register(last)
from greentask.hub.home import find_home
if sys.argv[1] == "used":
    find_home()
"""
    assert run_at_once(program, [["used"], ["unused"]]) == [["True", "False", "1"]] * 2


def test_an_exit_in_a_callback_is_not_the_end_of_the_background(caplog: pytest.LogCaptureFixture) -> None:
    home, done = find_home(), Bell()
    home.run(sys.exit)
    home.run(lambda: gevent.spawn(sys.exit, 3))
    home.run(lambda: gevent.spawn_later(0.05, done.ring))
    assert done.wait(20)
    assert find_home() is home
    assert [record.levelname for record in caplog.records] == ["ERROR", "ERROR"]


def test_in_a_patched_program_it_is_the_main_threads_hub() -> None:
    program = """
import gevent, threading
from greentask.hub.home import find_home
places = [find_home().is_here(), gevent.spawn(lambda: find_home().is_here()).get()]
thread = threading.Thread(target=lambda: places.append(find_home().hub is gevent.get_hub()))  # a greenlet
thread.start(); thread.join()
print(*places)
"""
    assert run_source(program, patched=True) == ["True"] * 3


def test_in_a_patched_programs_real_threads_it_is_in_the_background() -> None:
    program = """
import gevent
from greentask.hub.home import find_home
home = gevent.get_hub().threadpool.apply(find_home)
print(home.is_here(), find_home().is_here(), gevent.get_hub().threadpool.apply(find_home) is home)
"""
    assert run_source(program, patched=True) == ["False", "True", "True"]


def test_a_program_that_is_patched_later_has_it_here_from_then_on() -> None:
    program = """
from greentask.hub.home import find_home
before = find_home()
from gevent import monkey
monkey.patch_all()
print(before.is_here(), find_home().is_here())
"""
    assert run_source(program) == ["False", "True"]


@pytest.mark.parametrize("fork", ["os.fork", "gevent.os.fork"])
def test_a_forked_child_has_one_of_its_own(fork: str) -> None:
    program = f"""
import os
import gevent.os
from greentask.hub import home as home_module
from greentask.hub.bell import Bell
from greentask.hub.home import find_home
home = find_home()
ours, childs = os.pipe()
if not {fork}():
    mine, bell = find_home(), Bell()
    mine.run(bell.ring)
    os.write(childs, repr((mine is not home, mine.pid == os.getpid(), bell.wait(10))).encode())
    os._exit(0)
print(os.read(ours, 100).decode(), find_home() is home)
"""
    assert run_source(program) == ["(True,", "True,", "True)", "True"]


def test_a_child_of_a_patched_program_keeps_it_in_its_main_thread() -> None:
    # Not waited for by waitpid: gevent's misses a child that ends before gevent has begun to look.
    program = """
import os
from greentask.hub.home import find_home
home = find_home()
ours, childs = os.pipe()
if not os.fork():
    os.write(childs, repr((find_home().is_here(), find_home().pid == os.getpid())).encode())
    os._exit(0)
print(os.read(ours, 100).decode(), find_home().is_here())
"""
    assert run_source(program, patched=True) == ["(True,", "True)", "True"]


# ---- Bell


def test_what_has_rung_is_not_waited_for() -> None:
    bell = Bell()
    bell.ring()
    bell.ring()
    assert bell.wait()
    assert bell.wait(0)


def test_who_waits_in_vain_is_told() -> None:
    bell, began = Bell(), time.monotonic()
    assert not bell.wait(0.1)
    assert 0.09 <= time.monotonic() - began < 5
    assert not bell.wait(0)
    bell.ring()
    assert bell.wait(0.1)


def in_thread(function: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=function)
    thread.start()
    return thread


def test_another_thread_may_ring() -> None:
    for _ in range(200):
        bell = Bell()
        thread = in_thread(bell.ring)
        assert bell.wait(20)
        thread.join(20)


def test_many_threads_may_ring_at_once() -> None:
    for _ in range(20):
        bell = Bell()
        threads = [in_thread(bell.ring) for _ in range(5)]
        assert bell.wait(20)
        for thread in threads:
            thread.join(20)


def test_in_a_greenlet_others_go_on_meanwhile() -> None:
    """In a thread of its own, so that the main thread of the tests stays without a hub."""
    steps: list[str] = []
    bell = Bell()

    def others() -> None:
        for _ in range(3):
            gevent.sleep(0.01)
            steps.append("step")
        thread = in_thread(bell.ring)
        thread.join(20)

    def run() -> None:
        waiter = gevent.spawn(lambda: steps.append(f"rung {bell.wait(20)}"))
        in_vain = gevent.spawn(lambda: steps.append(f"rung {Bell().wait(0.001)}"))
        gevent.joinall([waiter, in_vain, gevent.spawn(others)], timeout=20)

    in_thread(run).join(30)
    assert steps[-1] == "rung True"
    assert sorted(steps[:-1]) == ["rung False", "step", "step", "step"]


def test_a_greenlet_that_is_ended_while_it_waits_does_no_harm() -> None:
    outcome: list[str] = []
    bell = Bell()

    def wait() -> None:
        try:
            with gevent.Timeout(0.01):
                bell.wait()
        except gevent.Timeout:
            outcome.append("timed out")
        bell.ring()
        outcome.append(f"rung {bell.wait()}")

    in_thread(lambda: gevent.spawn(wait).join(20)).join(30)
    assert outcome == ["timed out", "rung True"]


def test_the_hub_itself_may_not_wait() -> None:
    told: list[str] = []

    def wait() -> None:
        try:
            Bell().wait()
        except RuntimeError as error:
            told.append(str(error))

    def run() -> None:
        gevent.get_hub().loop.run_callback(wait)
        gevent.sleep(0)  # behind it

    in_thread(run).join(20)
    assert len(told) == 1
    assert "in a greenlet" in told[0]


PATCHED_THREADS = """
import gevent
from greentask.hub import home as home_module
from greentask.hub.bell import Bell
pool = gevent.get_hub().threadpool
for _ in range(100):  # the main thread, with nothing else to do, waits for a real one
    bell = Bell()
    pool.spawn(bell.ring)
    assert bell.wait(20)
for _ in range(100):  # and a real one for the main thread
    bell = Bell()
    waiting = pool.spawn(bell.wait, 20)
    gevent.sleep(0)
    bell.ring()
    assert waiting.get()
print("done")
"""


def test_in_a_patched_program_real_threads_and_greenlets_wait_for_each_other() -> None:
    assert run_source(PATCHED_THREADS, patched=True) == ["done"]


@pytest.mark.parametrize("patched", [False, True])
def test_ctrl_c_ends_the_waiting(patched: bool) -> None:
    program = """
import os, signal, _thread, time
from gevent import monkey
from greentask.hub import home as home_module
from greentask.hub.bell import Bell
sleep = monkey.get_original("time", "sleep")
bell = Bell()
def interrupt():
    while not bell.wakes:
        sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)
monkey.get_original("_thread", "start_new_thread")(interrupt, ())
try:
    bell.wait()
except KeyboardInterrupt:
    print("interrupted")
"""
    assert run_source(program, patched=patched) == ["interrupted"]


def test_posts_from_other_threads_leave_the_loops_count_alone() -> None:
    """gevent's own way of running a callback from another thread loses a reference now and then: the loop then ends."""
    home = home_module.Background()  # nothing but ours comes and goes in the loop of this one
    counts: list[int] = []
    ran: list[int] = []

    def expire() -> None:
        for _ in range(20):
            home.hub.loop.timer(0.0).start(lambda: None)

    def post() -> None:
        for number in range(20_000):
            home.post(ran.append, number)
            if number % 100 == 0:
                home.post(expire)

    try:
        home.post(lambda: counts.append(home.hub.loop.activecnt))  # when the loop runs, and not before
        threads = [threading.Thread(target=post) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        wait_until(lambda: len(ran) == 80_000)
        home.post(home.keep)  # else it may end, and the loop with it
        wait_until(lambda: home.hub is not None and home.hub.loop.activecnt == counts[0] + 1)
    finally:
        home.stop()


def test_what_a_thread_has_posted_is_run_where_a_ctrl_c_took_the_place_of_that() -> None:
    program = """
import gevent
from greentask.hub.bell import Bell
from greentask.hub.home import find_home
home, bell = find_home(), Bell(find_home())
def wait():
    home._posted.append((bell.ring, ()))  # and what was to look at it has not come to that
    return bell.wait(20)
print(gevent.get_hub().threadpool.spawn(wait).get())
"""
    assert run_source(program, patched=True) == ["True"]


@pytest.mark.parametrize("patched", [False, True])
def test_what_runs_soon_runs_again_where_a_ctrl_c_has_hit_it(patched: bool) -> None:
    program = """
import gevent, sys
from gevent.hub import Hub
from greentask.hub.home import Home
Hub.NOT_ERROR += (KeyboardInterrupt,)
home, ran = Home(), []
def hit():
    ran.append("hit")
    if len(ran) == 1: raise KeyboardInterrupt
home.soon(hit)
home.soon(ran.append, "next")
home.soon(sys.exit)  # is reported, and not run again
for _ in range(2):
    try:
        gevent.sleep(5)
    except KeyboardInterrupt: print("interrupted")
    except SystemExit: print("exit")
gevent.sleep(0.01)  # the hub goes on
print(*ran, home._net.active)
"""
    assert run_source(program, patched=patched) == ["interrupted", "exit", "hit", "hit", "next", "False"]


def test_what_a_thread_has_posted_is_run_again_where_a_ctrl_c_has_hit_it() -> None:
    for run in at_each_moment(home_module):
        home, ran = home_module.Home(), list[int]()
        home._wake.stop()  # we look
        for number in range(3):
            home.post(ran.append, number)
        run(home._run_posted)
        home._run_posted()
        assert sorted(set(ran)) == [0, 1, 2]
        assert ran == sorted(ran)
        assert len(ran) <= 4, "only the one that was hit runs twice"
        assert not home._posted
