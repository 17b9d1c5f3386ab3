"""Questions and answers over a real pair of sockets, both ways."""

from collections.abc import Iterator
from typing import Any

import gevent
import pytest
from gevent.socket import socketpair

from greentask.errors import ConfigurationError
from greentask.master.channel import Channel, ChannelError
from support.waiting import wait_until


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel, list[Any]]]:
    ours, theirs = socketpair()
    heard: list[Any] = []

    def fail() -> None:
        raise ConfigurationError("it is like that")

    def break_down() -> None:
        raise ZeroDivisionError("oh")

    def wait(seconds: float) -> None:
        heard.append("wait")
        gevent.sleep(seconds)

    handlers = {
        "add": lambda a, b: a + b,
        "fail": fail,
        "break": break_down,
        "hear": lambda number: heard.append(number),
        "wait": wait,
    }
    one, other = Channel(ours, {}), Channel(theirs, handlers)
    yield one, other, heard
    one.close()
    other.close()


def test_questions_are_answered_in_any_order(pair: tuple[Channel, Channel, list[Any]]) -> None:
    one, _, _ = pair
    slow = gevent.spawn(one.ask, "wait", seconds=0.05)
    assert one.ask("add", a=1, b=2) == 3
    assert not slow.ready()
    assert slow.get(timeout=5) is None


def test_what_is_told_is_heard_in_order(pair: tuple[Channel, Channel, list[Any]]) -> None:
    one, _, heard = pair
    for number in range(100):
        one.tell("hear", number=number)
    one.ask("add", a=1, b=2)
    assert heard == list(range(100))


def test_errors_come_back_in_words(pair: tuple[Channel, Channel, list[Any]]) -> None:
    one, _, _ = pair
    with pytest.raises(ChannelError, match="it is like that"):
        one.ask("fail")
    with pytest.raises(ChannelError, match="ZeroDivisionError: oh"):
        one.ask("break")
    with pytest.raises(ChannelError, match="no 'such' here"):
        one.ask("such")
    with pytest.raises(ChannelError, match=r"no answer to 'wait' within 0\.01 s"):
        one.ask("wait", seconds=5, within=0.01)


def test_the_end_of_the_other_side_ends_what_is_asked(pair: tuple[Channel, Channel, list[Any]]) -> None:
    one, other, heard = pair
    asked = gevent.spawn(one.ask, "wait", seconds=60)
    wait_until(lambda: heard == ["wait"], what="it is asked")
    other.close()
    with pytest.raises(ChannelError, match="gone"):
        asked.get(timeout=5)
    one.wait_closed(5)
    with pytest.raises(ChannelError, match="gone"):
        one.ask("add", a=1, b=2)
