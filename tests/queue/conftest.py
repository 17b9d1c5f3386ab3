"""Queues in files of their own, with clocks that a test sets."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from greentask.queue.sqlite import SQLiteQueue
from support.queues import FakeClock, close_stores


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "tasks.db"


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(autouse=True)
def no_store_left() -> Iterator[None]:
    yield
    close_stores()


@pytest.fixture
def queue(path: Path, clock: FakeClock) -> Iterator[SQLiteQueue]:
    queue = SQLiteQueue(path, clock=clock.as_clock())
    queue.open()
    yield queue
    queue.close()
