"""Signal handlers that use a pool, wherever they come in the main thread: they run in the midst of anything."""

import pytest

from support.programs import run_source

ANYWHERE = """
import faulthandler, signal
faulthandler.dump_traceback_later(30, exit=True)  # what hangs is told
from concurrent.futures import as_completed, wait
from greentask import Pool
from support.work import echo
handled = number = 0
is_busy = False

def handle(_number, _frame):
    global handled, is_busy
    if not is_busy:  # else they would come one above the other, as deep as Python's stack
        is_busy = True
        future = pool.submit(echo, handled)
        try:
            assert future.result() == handled
            handled += 1
        except RuntimeError as error:  # in a patched program it may have come in the hub
            assert "in the hub itself" in str(error), error
        is_busy = False

pool = Pool(1)  # what is held back by the interrupted code can't run elsewhere
pool.submit(echo, 1).result()
signal.signal(signal.SIGALRM, handle)
signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
while handled < 100:
    number += 1
    assert pool.submit(echo, number).result() == number
    futures = [pool.submit(echo, number) for _ in range(3)]
    futures[-1].cancel()
    assert all(future.cancelled() or future.result() == number for future in as_completed(futures))
    assert not wait([pool.submit(echo, 1), pool.submit(echo, 2)]).not_done
    assert list(pool.map(echo, range(3))) == list(range(3))
    assert pool.stats().processes == 1
signal.setitimer(signal.ITIMER_REAL, 0)
pool.shutdown()
print("all")
"""

# What the main thread holds in the moment of the signal, while what ends or begins there is told.
HOLDING = """
import faulthandler
faulthandler.dump_traceback_later(30, exit=True)
from concurrent.futures import _base, wait
from greentask import Pool
from support.work import echo, nap
pool = Pool(2)
pool.submit(echo, 1).result()

def in_the_midst_of(lock, future):
    with lock:
        assert pool.submit(nap, 0.1).result() == 0.1  # as a handler would; the future ends meanwhile
    assert future.result() == 0.05
    print("ended")

def waiting_for(*futures):
    return _base._create_and_install_waiters(futures, _base._AS_COMPLETED)

future = pool.submit(nap, 0.05)
in_the_midst_of(future._condition, future)
future = pool.submit(nap, 0.05)
in_the_midst_of(waiting_for(future).lock, future)
future = pool.submit(nap, 0.05)
waiter = waiting_for(future)
in_the_midst_of(getattr(waiter.event, "_cond", waiter.lock), future)
first, second = pool.submit(nap, 0.3), pool.submit(nap, 0.3)
third = pool.submit(nap, 0.05)
with third._condition:
    assert pool.submit(nap, 0.05).result() == 0.05  # third begins before it
    assert third.cancel() is False
assert third.result() == 0.05
first, second = pool.submit(nap, 0.3), pool.submit(nap, 0.3)
third = pool.submit(nap, 0.05)
with third._condition:
    assert third.cancel() is True  # in the handler
    assert pool.submit(nap, 0.05).result() == 0.05
assert not wait([third], 20).not_done and third.cancelled()
future = pool.submit(nap, 0.05)
future.add_done_callback(lambda _: pool.shutdown(wait=False))
with pool._lock:
    while not future.done(): nap(0.01)
pool.shutdown()
print("closed")
"""


@pytest.mark.parametrize("patched", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_signal_handler_may_wait_in_the_midst_of_anything(patched: bool) -> None:
    assert run_source(ANYWHERE, patched=patched) == ["all"]


@pytest.mark.parametrize("patched", [False, True])
def test_nothing_waits_for_a_lock_that_the_interrupted_code_may_hold(patched: bool) -> None:
    assert run_source(HOLDING, patched=patched) == ["ended"] * 3 + ["closed"]
