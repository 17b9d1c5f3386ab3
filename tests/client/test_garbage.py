"""What calls leave behind: nothing that only Python's garbage collection finds."""

import gc
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from greentask import Client, gather, wait
from support.conditions import wait_until

WAYS: dict[str, Callable[[Client], Any]] = {
    "call": lambda client: client.call("fail"),
    "a call that reports": lambda client: client.using(progress=lambda report: None).call("fail"),
    "submit": lambda client: client.submit("fail").result(),
    "map": lambda client: list(client.map("fail", [1])),
    "map, unordered": lambda client: list(client.map("fail", [1], unordered=True)),
    "a map that shares lines": lambda client: list(client.map("add", range(300))),
    "map, errors as results": lambda client: list(client.map("fail", [1], return_exceptions=True)),
    "stream": lambda client: list(client.stream("count_badly", 1)),
    "gather": lambda client: gather(client.submit("fail"), client.submit("add", 1)),
    "wait": lambda client: wait([client.submit("fail")]),
    "then": lambda client: client.submit("fail").then("echo").result(),
    "executor": lambda client: client.executor().submit("fail").result(),
    "an executor's map": lambda client: list(client.executor().map("fail", [1])),
    "an executor's map that shares lines": lambda client: list(client.executor().map("add", range(40), chunksize=8)),
    "an executor's result": lambda client: client.executor().submit("add", 1).result(),
}


@pytest.fixture
def uncollected() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("uncollected")
@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_nothing_is_left_in_a_circle(client: Client, way: Callable[[Client], Any]) -> None:
    """An error refers to the frames that it went through, and those would to the future that has it."""

    def go() -> None:
        with suppress(ValueError, TypeError):
            way(client)

    def left() -> int:
        for _ in range(20):
            go()
        return gc.collect()

    go()
    wait_until(lambda: not gc.collect(), "what the client of the test before has left is gone")
    # It may come later, all the same, as one lump: its connection ends when the background gets to that.
    assert min(left() for _ in range(3)) < 20
