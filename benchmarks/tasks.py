"""The tasks that are measured."""

import time

from greentask import task


@task
def ping() -> str:
    return "pong"


@task(process=True)
def compute(seconds: float) -> float:
    """Hold a processor for so long."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return seconds
