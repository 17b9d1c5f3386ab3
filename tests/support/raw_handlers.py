"""Handlers of task processes that know nothing of tasks, for tests of the pool alone."""

import os

from greentask.pool.child import Handler, Job


def give_back() -> Handler:
    """A handler whose result is the call's payload."""
    return lambda job: (True, job.call.payload)


def give_back_as_error() -> Handler:
    return lambda job: (False, job.call.payload)


def fail_at_import(message: str) -> Handler:
    raise RuntimeError(message)


def fail_in_handler() -> Handler:
    def handle(job: Job) -> tuple[bool, bytes]:
        raise RuntimeError("a handler may not raise")

    return handle


def die_at_start(path: str, switch: str) -> Handler:
    """Processes that end before they are ready, while the file ``switch`` is there; ``path`` counts the forks."""

    def forked() -> None:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.write(fd, b"x")
        os.close(fd)
        if os.path.exists(switch):
            os._exit(7)

    os.register_at_fork(after_in_child=forked)
    return lambda job: (True, job.call.payload)
