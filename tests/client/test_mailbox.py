"""``Mailbox``: events in their order, from one thread to another."""

import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator

import pytest

from greentask.client.mailbox import Mailbox
from greentask.client.receivers import Ended, EventReceiver, Item, Progress
from support.conditions import wait_until


@pytest.fixture
def often_switching() -> Iterator[None]:
    """Threads take turns as often as they can, so that what may come between does."""
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(interval)


def test_what_was_put_first_is_taken_first() -> None:
    mailbox: Mailbox[int] = Mailbox()
    for number in range(5):
        mailbox.put(number)
    assert [mailbox.take() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_who_takes_waits_for_what_comes() -> None:
    mailbox: Mailbox[str] = Mailbox()
    taken: list[str] = []
    taker = threading.Thread(target=lambda: taken.append(mailbox.take()))
    taker.start()
    wait_until(lambda: mailbox._bell, "somebody waits")
    assert taken == []
    mailbox.put("it")
    taker.join(20)
    assert taken == ["it"]


@pytest.mark.usefixtures("often_switching")
def test_nothing_is_lost_or_mixed_up_between_threads() -> None:
    mailbox: Mailbox[int] = Mailbox()
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.extend(mailbox.take() for _ in range(3000)))
    taker.start()
    for number in range(3000):
        mailbox.put(number)
    taker.join(60)
    assert taken == list(range(3000))


def test_the_newest_takes_the_place_of_the_last_where_too_many_wait() -> None:
    mailbox: Mailbox[int | str] = Mailbox()
    for number in range(10):
        mailbox.put_latest(number, 3)
    assert [mailbox.take() for _ in range(3)] == [0, 1, 9]
    mailbox.put_latest(10, 3)
    assert mailbox.take() == 10


def test_only_what_is_of_the_same_kind_is_replaced() -> None:
    mailbox: Mailbox[int | str] = Mailbox()
    mailbox.put("the end")
    mailbox.put_latest(1, 1)
    mailbox.put_latest(2, 1)
    assert [mailbox.take(), mailbox.take()] == ["the end", 2]


@pytest.mark.usefixtures("often_switching")
def test_the_newest_arrives_however_fast_it_is_taken() -> None:
    """The mailbox may be emptied between two looks at it."""
    mailbox: Mailbox[int] = Mailbox()
    taken: list[int] = []

    def take_all() -> None:
        while not taken or taken[-1] < 20_000:
            taken.append(mailbox.take())

    taker = threading.Thread(target=take_all)
    taker.start()
    for number in range(1, 20_001):
        mailbox.put_latest(number, 1)
    taker.join(60)
    assert taken == sorted(set(taken))
    assert taken[-1] == 20_000


class Look(deque[int]):
    """Events; at one of the looks at how many there are, something happens right after it."""

    def __init__(self, at: int, happens: Callable[[], object]) -> None:
        super().__init__()
        self._looks_left = at
        self._happens = happens

    def __len__(self) -> int:
        count = super().__len__()
        self._looks_left -= 1
        if self._looks_left == 0:
            self._happens()
        return count

    def __bool__(self) -> bool:  # Python 3.10's deque has one of its own
        return len(self) > 0


@pytest.mark.parametrize("look", [1, 2])
def test_what_is_put_between_two_looks_is_not_slept_through(look: int) -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox._events = Look(look, lambda: mailbox.put(7))
    taken: list[int] = []
    taker = threading.Thread(target=lambda: taken.append(mailbox.take()))
    taker.start()
    taker.join(3)
    in_time = list(taken)
    mailbox.put(8)  # wakes it in any case
    taker.join(20)
    assert in_time == [7]


def test_what_is_taken_between_two_looks_is_not_replaced() -> None:
    mailbox: Mailbox[int] = Mailbox()
    mailbox._events = events = Look(2, lambda: events.clear())
    mailbox.put_latest(1, 1)
    mailbox.put_latest(2, 1)
    assert list(events) == [2]


def test_a_call_that_nobody_looks_at_keeps_a_hundred_reports_and_its_end() -> None:
    receiver = EventReceiver(window=64)
    for done in range(1000):
        receiver.progress({"done": done})
    receiver.item("one")
    receiver.ended(7, None)
    events = [receiver.mailbox.take() for _ in range(102)]
    assert [event.report["done"] for event in events if isinstance(event, Progress)] == [*range(99), 999]
    assert isinstance(events[100], Item)
    end = events[101]
    assert isinstance(end, Ended)
    assert end.result() == 7


def test_an_end_may_be_an_error() -> None:
    with pytest.raises(ValueError, match="no stock"):
        Ended(None, ValueError("no stock")).result()
