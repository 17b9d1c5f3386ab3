"""The tasks that are called."""

import os
import time
from typing import Any

import gevent

from greentask import task


@task
def echo(**args: Any) -> dict[str, Any]:
    return args


@task(process=True)
def echo_in_process(**args: Any) -> dict[str, Any]:
    return args


@task
def size(value: Any) -> int:
    return len(value)


@task(process=True)
def size_in_process(value: Any) -> int:
    return len(value)


@task
def give_back(value: Any) -> Any:
    return value


@task
def wait_for(path: str) -> None:
    """Wait until there is such a file."""
    while not os.path.exists(path):
        gevent.sleep(0.005)


@task(process=True)
def wait_for_in_process(path: str) -> None:
    while not os.path.exists(path):
        time.sleep(0.005)
