"""What the unit and the image serve; yours go in its place."""

import time

from greentask import task


@task
def hello(name: str) -> str:
    """Change this text, and reload."""
    return f"hello {name}"


@task
def nap(seconds: float) -> float:
    """Waits: to see that a stop and a reload wait for it."""
    time.sleep(seconds)
    return seconds


@task(process=True)
def squares(n: int) -> int:
    """Computes, in a task process."""
    return sum(k * k for k in range(n))
