"""Tasks for the tests of the testing aids: run in place and on a server, what comes of them is the same."""

import asyncio
import time
from collections.abc import Iterator
from contextvars import ContextVar
from typing import Any

from greentask import CallInfo, Middleware, Overloaded, Tasks, current, task

whose: ContextVar[str] = ContextVar("whose", default="nobody's")
closed: list[str] = []


class OddError(Exception):
    pass


@task
def add(a: int, b: int = 0) -> int:
    return a + b


@task
def give(kind: str) -> Any:
    return {"tuple": (1, (2,)), "set": {1}, "keys": {1: 2}, "nan": float("nan"), "none": None}[kind]


@task
def fail(kind: str) -> None:
    raise {"key": KeyError("k"), "odd": OddError("so odd"), "value": ValueError("no"), "ours": Overloaded("me")}[kind]


@task
def nap(seconds: float) -> str:
    time.sleep(seconds)
    return "slept"


@task(timeout=0.15)
def oversleep() -> None:
    time.sleep(10)


@task
def count(to: int, name: str = "") -> Iterator[int]:
    try:
        for number in range(to):
            current().progress(number, to)
            yield number
    finally:
        closed.append(name)


@task
def report() -> str:
    current().progress(1, 2, "half")
    current().progress(2, 2)
    return "done"


@task(process=True)
async def wait(seconds: float) -> str:
    await asyncio.sleep(seconds)
    return "waited"


@task(process=True)
def where() -> list[Any]:
    left = current().remaining()
    return [current().name, left is not None and 0 < left < 30, whose.get()]


@task
def of_a_name_that_nothing_else_has() -> str:
    return "found"


@task
def nested() -> Any:
    return [add.using(timeout=5).call(1, 2), current().name]


class Seen(Middleware):
    """Refuses one, and writes down what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def before_call(self, call: CallInfo) -> None:
        if call.task == "refused":
            raise Overloaded("not today")

    def before_task(self, call: CallInfo) -> None:
        self.heard.append(f"{call.task} begins")

    def task_failed(self, call: CallInfo, error: BaseException) -> None:
        self.heard.append(f"{call.task} raised {type(error).__name__}")

    def after_call(self, call: CallInfo) -> None:
        self.heard.append(f"{call.task}: {call.outcome}")


seen = Seen()
tasks = Tasks(middleware=[seen])


@tasks.task
def watched(kind: str = "") -> str:
    if kind:
        raise OddError(kind)
    return "well"


@tasks.task
def refused() -> None:
    raise AssertionError("it must not run")


@tasks.task
def watched_items() -> Iterator[int]:
    yield 1
