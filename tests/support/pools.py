"""Task processes as the tests start them."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from greentask.pool.calls import PoolCall
from greentask.pool.processes import DEFAULT_GRACE, Processes
from greentask.pool.setup import Setup
from greentask.tasks.processes import setup_for
from greentask.tasks.task import Task
from support import process_tasks
from support.listener import Listener
from support.waiting import wait_until

TASKS = [value for value in vars(process_tasks).values() if isinstance(value, Task)]


class Asked(Listener):
    """A listener and its call."""

    call: PoolCall


@contextmanager
def processes(size: int = 1, *, grace: float = DEFAULT_GRACE, setup: Setup | None = None) -> Iterator[Processes]:
    """A pool that runs support.process_tasks, closed at the end."""
    pool = Processes(setup or setup_for(TASKS), size, grace=grace)
    pool.start()
    try:
        yield pool
    finally:
        pool.close()


def ask(pool: Processes, task: Task[..., Any], *args: Any, **options: Any) -> Asked:
    """Submit a call; who hears of it."""
    asked = Asked()
    asked.call = pool.submit(task.name, json.dumps({"args": args}).encode(), asked, **options)
    return asked


def wait_until_whole(pool: Processes, within: float = 10.0) -> None:
    """Wait until all processes are there."""
    wait_until(lambda: is_whole(pool), within, "a whole pool")


def is_whole(pool: Processes) -> bool:
    """Whether all processes are there, alive and without a call."""
    stats = pool.stats()
    return stats.processes == pool.size and stats.busy == 0 and all(map(is_alive, pool.pids()))


def is_alive(pid: int) -> bool:
    """Whether the process runs; one that only waits to be waited for doesn't."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def lines(path: Path) -> list[str]:
    """What tasks have noted in a file so far."""
    return path.read_text().splitlines() if path.exists() else []


def wait_for_lines(path: Path, count: int = 1) -> list[str]:
    """Wait until tasks have noted so many lines."""
    wait_until(lambda: len(lines(path)) >= count, what=f"line {count} of {path.name}")
    return lines(path)


def open_files() -> dict[int, str]:
    """This process's descriptors, and what they are."""
    found = {}
    for name in os.listdir("/proc/self/fd"):
        try:
            found[int(name)] = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:
            pass  # that of the listing itself
    return found


def opened_since(before: dict[int, str]) -> dict[int, str]:
    """What was opened since then and still is. Others may go: what earlier tests have dropped ends in its thread."""
    return dict(open_files().items() - before.items())


def children() -> set[int]:
    """The process ids of this process's children and theirs, zombies too."""
    return {child.pid for child in psutil.Process().children(recursive=True)}
