"""The items of a line that run: how many at once, and how they end."""

from types import SimpleNamespace
from typing import Any

import gevent
from gevent.lock import Semaphore

from greentask.server.items import WINDOW, Items
from greentask.server.limits import Limits


class Running:
    cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


def server(**limits: int) -> Any:
    limited = Limits(**limits)  # type: ignore[arg-type]
    return SimpleNamespace(limits=limited, item_slots=Semaphore(limited.max_calls))


def session(server: Any) -> Any:
    return SimpleNamespace(server=server, item_slots=Semaphore(server.limits.max_in_flight))


def take_all(items: Items, count: int = 2 * WINDOW) -> list[int]:
    """The indexes that got room without anybody's end; the last one still waits for it."""
    taken: list[int] = []

    def take() -> None:
        for index in range(count):
            items.take(index)
            taken.append(index)

    gevent.spawn(take)
    gevent.idle()
    return taken


def test_there_is_room_for_some_of_a_line() -> None:
    assert len(take_all(Items(session(server())))) == WINDOW
    assert len(take_all(Items(session(server(max_in_flight=3))))) == 3


def test_there_is_room_for_so_many_of_all_lines_of_a_connection() -> None:
    one = session(server(max_in_flight=300))
    first, second = Items(one), Items(one)
    assert len(take_all(first, WINDOW)) == WINDOW
    taken = take_all(second)
    assert len(taken) == 300 - WINDOW
    first.ended(1)
    gevent.idle()
    assert len(taken) == 300 - WINDOW + 1, "the next one has the room of the one that has ended"


def test_there_is_room_for_so_many_of_all_lines() -> None:
    one = server(max_calls=5)
    first, second = Items(session(one)), Items(session(one))
    assert len(take_all(first, 3)) == 3
    taken = take_all(second)
    assert len(taken) == 2
    first.ended(1)
    gevent.idle()
    assert len(taken) == 3, "the next one has the room of the one that has ended"


def test_who_waits_for_the_last_one_goes_on_when_it_has_ended() -> None:
    items = Items(session(server()))
    items.wait()  # none has begun
    take_all(items, 2)
    waiting = gevent.spawn(items.wait)
    items.ended(1)
    gevent.idle()
    assert not waiting.dead
    items.ended(0)
    gevent.idle()
    assert waiting.dead


def test_those_that_run_are_cancelled_and_those_that_have_ended_are_not() -> None:
    items = Items(session(server()))
    take_all(items, 3)
    runs, has_ended = Running(), Running()
    items.started(0, runs)
    items.ended(1)
    items.started(1, has_ended)  # it ended while it was being started
    items.cancel()
    assert items.are_cancelled
    assert (runs.cancelled, has_ended.cancelled) == (1, 0)
