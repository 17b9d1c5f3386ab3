"""Tasks to look at while they run."""

import os
import signal
import time

from greentask import task


@task
def nap(seconds: float, note: str = "") -> float:
    time.sleep(seconds)
    return seconds


@task
def compute_in_the_loop(seconds: float) -> float:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return seconds


@task(process=True)
def compute(seconds: float) -> float:
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return seconds


@task(process=True)
def stop_me() -> None:
    os.kill(os.getpid(), signal.SIGSTOP)


@task
def fail(text: str = "no stock") -> None:
    raise ValueError(text)
