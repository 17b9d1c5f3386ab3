"""Tasks with middleware that refuses some of what is enqueued, and tells in a file what it sees."""

import json
import os

from greentask import CallInfo, Middleware, Overloaded, Tasks

SEEN = "GREENTASK_TEST_SEEN"


class Guard(Middleware):
    """Refuses what is ``secret``, and more than ten at once, unless the queue has it run."""

    def before_call(self, call: CallInfo) -> None:
        self.note("before", call)
        if call.peer != "queue" and (call.task == "secret" or call.enqueues > 10):
            raise Overloaded(f"{call.peer} may not have {call.enqueues} of {call.task}")

    def call_failed(self, call: CallInfo) -> None:
        self.note("failed", call)

    def after_call(self, call: CallInfo) -> None:
        self.note("after", call)

    def note(self, hook: str, call: CallInfo) -> None:
        with open(os.environ[SEEN], "a") as file:
            file.write(json.dumps([hook, call.task, call.id, call.peer == "queue", call.enqueues, call.outcome]) + "\n")


tasks = Tasks(middleware=[Guard()])


@tasks.task
def add(a: int, b: int = 1) -> int:
    return a + b


@tasks.task(process=True)
def add_in_process(a: int, b: int = 1) -> int:
    return a + b


@tasks.task
def secret(a: int = 0) -> int:
    return a
