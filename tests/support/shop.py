"""A small module of tasks, as a user would write it: the command line's tests serve it."""

import os
import signal
import time

from greentask import current, task


@task
def add(a: int, b: int = 0) -> int:
    """Add two numbers.

    What stands further down is not listed.
    """
    return a + b


@task
def kinds(**values: object) -> dict[str, str]:
    return {name: type(value).__name__ for name, value in values.items()}


@task
def accent() -> str:
    return "tâche terminée"


@task(process=True, timeout=60)
def report(year: int) -> int:
    """Compute for a while."""
    return year * 2


@task
def count(to: int) -> int:
    for done in range(1, to + 1):
        current().progress(done, to, "counting")
        time.sleep(0.01)
    return to


@task
def fail(text: str) -> None:
    raise ValueError(text)


@task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task(process=True)
def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
