"""What the examples of the JSON-RPC 2.0 specification call, and some more."""

import os
import time
from typing import Any

from greentask import task


@task
def subtract(minuend: int, subtrahend: int) -> int:
    return minuend - subtrahend


@task(name="sum")
def sum_(*numbers: int) -> int:
    return sum(numbers)


@task
def get_data() -> list[Any]:
    return ["hello", 5]


@task
def notify_hello(*args: Any) -> None:
    write("notify_hello", args)


@task
def update(*args: Any) -> None:
    write("update", args)


def write(name: str, args: tuple[Any, ...]) -> None:
    path = os.environ.get("GREENTASK_TEST_NOTES")
    if path:
        with open(path, "a") as file:
            file.write(f"{name}{args}\n")


@task(process=True)
def subtract_in_process(minuend: int, subtrahend: int) -> int:
    return minuend - subtrahend


@task
def greet(from_: str) -> str:
    return f"from {from_}"


@task
def nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task(timeout=0.1)
def short_nap(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


@task
def fail() -> None:
    raise LookupError("no stock")


@task(process=True)
def die() -> None:
    os._exit(3)


@task
def large(size: int) -> str:
    return "x" * size
