"""Functions in greenlets that are used again, where nobody can tell them from new ones."""

import contextvars
import gc
import time
import weakref
from collections.abc import Callable
from typing import Any

import gevent
import gevent.local
import pytest
from gevent.event import Event

from greentask.hub.spawner import Spawner
from support.waiting import wait_until

# Things that a function may leave on its greenlet, or with somebody else, who then knows that greenlet.
_local = gevent.local.local()
_variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="nothing")
_kept: list[Any] = []


def in_turn(*functions: Callable[[], object]) -> list[Any]:
    """What they return, each spawned behind the one before; all run in one turn where none waits."""
    spawner, returned = Spawner(), {}
    for function in functions:
        spawner.spawn(lambda function=function: returned.update({function: function()}))  # type: ignore[misc]
    wait_until(lambda: len(returned) == len(functions))
    return [returned[function] for function in functions]


def test_functions_run_in_order_and_share_a_greenlet() -> None:
    numbers: list[int] = []
    spawner = Spawner()
    greenlets = []
    for number in range(3000):
        spawner.spawn(lambda number=number: numbers.append(number))  # type: ignore[misc]
        spawner.spawn(lambda: greenlets.append(id(gevent.getcurrent())))
    wait_until(lambda: len(numbers) == 3000)
    assert numbers == list(range(3000))
    assert len(set(greenlets)) == 1
    spawner.spawn(lambda: greenlets.append(id(gevent.getcurrent())))
    wait_until(lambda: len(greenlets) == 3001)
    assert greenlets[-1] == greenlets[0]  # in another turn, too


def test_one_that_waits_holds_up_no_other() -> None:
    first, second = Event(), Event()
    spawner = Spawner()
    order: list[str] = []

    def wait_first() -> None:
        first.wait()
        order.append("first")

    def wait_second() -> None:
        second.wait()
        order.append("second")

    for function in (wait_first, wait_second, lambda: order.append("third")):
        spawner.spawn(function)
    wait_until(lambda: order)
    second.set()
    wait_until(lambda: len(order) == 2)
    first.set()
    wait_until(lambda: order == ["third", "second", "first"])


def set_local() -> None:
    _local.value = 1


def set_attribute() -> None:
    gevent.getcurrent().mine = 1  # type: ignore[attr-defined]


def set_tree_local() -> None:
    gevent.getcurrent().spawn_tree_locals["value"] = 1  # type: ignore[attr-defined]


def leave_timeout() -> None:
    gevent.Timeout.start_new(60)


def be_linked() -> None:
    gevent.getcurrent().link(print)  # type: ignore[attr-defined]


def be_known() -> None:
    _kept.append(gevent.getcurrent())


def be_known_weakly() -> None:
    _kept.append(weakref.ref(gevent.getcurrent()))


def be_killed_later() -> None:
    gevent.getcurrent().kill(block=False)  # type: ignore[attr-defined]


def have_children() -> None:
    _kept.append(gevent.spawn(gevent.sleep, 60))


def wait() -> None:
    gevent.sleep(0)


@pytest.mark.parametrize(
    "leave",
    [
        *(set_local, set_attribute, set_tree_local, leave_timeout, be_linked),
        *(be_known, be_known_weakly, be_killed_later, have_children, wait),
    ],
)
def test_a_greenlet_that_somebody_knows_is_not_used_again(leave: Callable[[], None]) -> None:
    def look() -> list[Any]:
        me: Any = gevent.getcurrent()
        seen = [{*me.__dict__} - {"_run"}, me.spawn_tree_locals, me.has_links()]
        return [getattr(_local, "value", None), *seen, any(me is kept for kept in _kept)]

    _, seen = in_turn(leave, look)
    assert seen == [None, set(), {}, False, False]
    gevent.killall([kept for kept in _kept if isinstance(kept, gevent.Greenlet)], block=False)
    _kept.clear()


def test_context_variables_are_each_functions_own() -> None:
    def look() -> tuple[str, int]:
        return _variable.get(), len(contextvars.copy_context())

    seen = in_turn(lambda: _variable.set("mine") and None, look)
    assert seen[1] == ("nothing", 0)


def test_a_pending_timeout_hits_nobody_else() -> None:
    """It would be raised in whatever the greenlet does then."""
    ended: list[str] = []

    def wait_a_little() -> None:
        gevent.sleep(0.1)
        ended.append("well")

    spawner = Spawner()
    spawner.spawn(lambda: gevent.Timeout.start_new(0.02))
    spawner.spawn(wait_a_little)
    wait_until(lambda: ended)


def test_what_a_function_raises_is_reported_and_the_others_run(capfd: pytest.CaptureFixture[str]) -> None:
    ran: list[int] = []
    spawner = Spawner()

    def fail() -> None:
        raise ValueError("of the function")

    spawner.spawn(fail)
    spawner.spawn(lambda: ran.append(1))
    wait_until(lambda: ran)
    assert "ValueError: of the function" in capfd.readouterr().err


def test_many_quick_ones_let_the_loop_turn() -> None:
    turns: list[float] = []
    spawner = Spawner()
    done: list[int] = []

    def hold() -> None:
        until = time.perf_counter() + 0.0005
        while time.perf_counter() < until:
            pass
        done.append(1)

    def tick() -> None:
        while len(done) < 100:
            gevent.sleep(0.001)
            turns.append(len(done))

    ticker = gevent.spawn(tick)
    gevent.sleep(0)
    for _ in range(100):
        spawner.spawn(hold)
    ticker.join(10)
    assert len(turns) >= 5


def test_a_forgotten_spawner_leaves_no_greenlet() -> None:
    spawner: Spawner | None = Spawner()
    ran: list[Any] = []
    assert spawner is not None
    spawner.spawn(lambda: ran.append(1))
    wait_until(lambda: ran)
    gevent.sleep(0)
    spare = weakref.ref(spawner._spare)  # type: ignore[type-var]
    assert spare() is not None
    spawner = None
    wait_until(lambda: gc.collect() >= 0 and spare() is None)
