"""Tasks with middleware that writes down what it sees: a line of JSON for each hook, in a file of the environment's."""

import json
import os
import time
from collections.abc import Iterator
from typing import Any

from greentask import CallInfo, Middleware, Overloaded, Tasks

LOG = "GREENTASK_TEST_HOOKS"


def write(hook: str, **what: Any) -> None:
    path = os.environ.get(LOG)
    if path:
        line = json.dumps({"hook": hook, "pid": os.getpid(), **what}) + "\n"
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, line.encode())
        os.close(fd)


class Recorder(Middleware):
    def server_started(self, server: Any) -> None:
        write("server_started", addresses=len(server.addresses))

    def process_started(self, group: str) -> None:
        write("process_started", group=group)

    def before_call(self, call: CallInfo) -> None:
        call.state["mark"] = call.task
        write("before_call", task=call.task, id=call.id, item=call.item, peer=call.peer, group=call.group)

    def before_task(self, call: CallInfo) -> None:
        write("before_task", task=call.task, id=call.id, where=call.where, mark=call.state.get("mark"))

    def task_failed(self, call: CallInfo, error: BaseException) -> None:
        write("task_failed", task=call.task, outcome=call.outcome, error=type(error).__name__)

    def after_task(self, call: CallInfo) -> None:
        write("after_task", task=call.task, outcome=call.outcome)

    def call_failed(self, call: CallInfo) -> None:
        write("call_failed", task=call.task, outcome=call.outcome, error=(call.error or {}).get("type"))

    def after_call(self, call: CallInfo) -> None:
        write("after_call", task=call.task, id=call.id, item=call.item, outcome=call.outcome, took=call.duration)

    def process_stopped(self, group: str) -> None:
        write("process_stopped", group=group)

    def server_stopped(self, server: Any) -> None:
        write("server_stopped")


class Guard(Middleware):
    """Refuses what is called with the id ``no``, and breaks down over the id ``oh``."""

    def before_call(self, call: CallInfo) -> None:
        if call.id == "no":
            raise Overloaded("not today")
        if call.id == "oh":
            raise ZeroDivisionError("a defect of the hook")


tasks = Tasks(middleware=[Recorder(), Guard()])


@tasks.task
def add(a: int, b: int = 0) -> int:
    return a + b


@tasks.task
def fail() -> None:
    raise ValueError("no stock")


@tasks.task
def nap(seconds: float) -> None:
    time.sleep(seconds)


@tasks.task
def count(to: int) -> Iterator[int]:
    yield from range(to)


@tasks.task(process=True)
def add_in_process(a: int, b: int = 0) -> int:
    return a + b


@tasks.task(process=True)
def fail_in_process() -> None:
    raise ValueError("no stock")


@tasks.task(process=True)
def die() -> None:
    os._exit(3)
