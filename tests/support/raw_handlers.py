"""Handlers of task processes that know nothing of tasks, for tests of the pool alone."""

import os
import time
from collections.abc import Callable

from greentask.errors import Interrupt, ended_by, refusal
from greentask.pool.child import Handler, Job
from greentask.wire.json import dumps


class Plain:
    """A handler of one function."""

    def __init__(self, function: Callable[[Job], tuple[bool, bytes]]) -> None:
        self.run = function

    def prepare(self) -> None:
        pass

    def finish(self) -> None:
        pass

    def interrupted(self, interrupt: Interrupt) -> bytes:
        return dumps(refusal(ended_by(interrupt)))


def give_back() -> Handler:
    """A handler whose result is the call's payload."""
    return Plain(lambda job: (True, bytes(job.call.payload)))


def give_back_as_error() -> Handler:
    return Plain(lambda job: (False, bytes(job.call.payload)))


def fail_at_import(message: str) -> Handler:
    raise RuntimeError(message)


def wait_at_import(path: str) -> Handler:
    """Never come to an end of importing; ``path`` tells the template's process id."""
    with open(path, "w") as file:
        file.write(f"{os.getpid()}\n")
    while True:
        time.sleep(60)


def wait_at_import_while(path: str) -> Handler:
    """Importing takes as long as that file is there."""
    while os.path.exists(path):
        time.sleep(0.01)
    return give_back()


def die_at_start_while(path: str, starts: str) -> Handler:
    """Processes note their starts, and end with them as long as that file is there."""

    class Dying(Plain):
        def prepare(self) -> None:
            with open(starts, "a") as file:
                file.write(f"{time.monotonic()}\n")
            if os.path.exists(path):
                os._exit(3)

    return Dying(lambda job: (True, bytes(job.call.payload)))


def fail_in_handler() -> Handler:
    def handle(job: Job) -> tuple[bool, bytes]:
        raise RuntimeError("a handler may not raise")

    return Plain(handle)


def die_at_start(path: str, switch: str) -> Handler:
    """Processes that end before they are ready, while the file ``switch`` is there; ``path`` counts the forks."""

    def forked() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, b"x")
        os.close(fd)
        if os.path.exists(switch):
            os._exit(7)

    os.register_at_fork(after_in_child=forked)
    return Plain(lambda job: (True, bytes(job.call.payload)))
