"""Nothing is answered before it is on disk: what a real server says, beside when its syncs began and ended."""

import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.durable_tasks import marks
from support.held_sync import HeldSync
from support.queue_calls import enqueue, outcome
from support.servers import LineClient, RunningServer, serving, wait_until

APPS = ("support.durable_tasks",)


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> HeldSync:
    return HeldSync(tmp_path_factory.mktemp("disk"))


@pytest.fixture(scope="module")
def server(disk: HeldSync, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    path = tmp_path_factory.mktemp("queue") / "tasks.db"
    with serving("--queue", str(path), apps=APPS, **disk.environment) as server:
        yield server


@pytest.fixture
def peer(server: RunningServer) -> Iterator[LineClient]:
    with server.connect() as peer:
        yield peer


def is_silent(peer: LineClient, seconds: float = 0.3) -> bool:
    return not select.select([peer.socket], [], [], seconds)[0]


def was_synced(disk: HeldSync, after: float, before: float) -> bool:
    """Whether a whole sync was between these moments."""
    return any(after <= one.began and one.ended <= before for one in disk.syncs())


def enqueued(peer: LineClient) -> tuple[float, float, str]:
    """When a task was sent, and when it was answered."""
    sent = time.monotonic()
    task = enqueue(peer, "now")
    return sent, time.monotonic(), task


def test_a_receipt_leaves_after_the_sync(disk: HeldSync, server: RunningServer, peer: LineClient) -> None:
    with server.connect() as other:
        with disk.closed():
            before = len(disk.syncs())
            peer.send({"function": "add", "args": [1], "id": 1, "enqueue": True})
            wait_until(lambda: len(disk.syncs()) > before, "it is being written")
            other.send({"function": "add", "args": [2], "id": 2, "enqueue": True})
            assert is_silent(peer)
            assert is_silent(other, 0)
            with server.connect() as third:
                assert third.call("add", 1, 2) == 3, "nobody else waits for the disk"
        for one in (peer, other):
            task = one.hear()["result"]["task"]
            assert outcome(one, task)["state"] == "done"


def test_each_receipt_and_each_result_is_told_when_a_sync_is_over_that_began_after_it(
    disk: HeldSync, peer: LineClient
) -> None:
    for _ in range(5):
        sent, answered, task = enqueued(peer)
        assert was_synced(disk, sent, answered)
        returned = outcome(peer, task)["result"]
        assert was_synced(disk, returned, time.monotonic()), "its result, and that it is not to run again"


def test_a_batch_and_a_revocation_are_synced(disk: HeldSync, peer: LineClient) -> None:
    calls: list[dict[str, Any]] = [
        {"function": "add", "batch": [[1], [2]], "id": 1, "enqueue": {"delay": 60}},
        {"function": "add", "args": [1], "id": 2, "enqueue": {"delay": 60, "then": [{"function": "add"}]}},
    ]
    for call in calls:
        sent = time.monotonic()
        kept = peer.ask(call)["result"]
        assert was_synced(disk, sent, time.monotonic())
    sent = time.monotonic()
    assert peer.call("greentask.revoke", task=kept["task"])
    assert was_synced(disk, sent, time.monotonic())


def test_a_process_s_result_is_told_when_it_is_synced(disk: HeldSync, peer: LineClient, tmp_path: Path) -> None:
    task = enqueue(peer, "nap_in_process", str(file := tmp_path / "marks"), 0.3)
    wait_until(lambda: marks(file) == ["began"])
    peer.send({"function": "greentask.result", "args": {"task": task, "wait": True}, "id": 7})
    with disk.closed():
        wait_until(lambda: marks(file) == ["began", "ended"])
        wait_until(lambda: disk.syncs()[-1].ended == float("inf"), "something is being written")
        assert is_silent(peer)
    assert peer.hear()["result"]["result"] == "rested"


@pytest.mark.slow
@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_a_queue_that_does_not_sync_is_seen_by_these_tests(tmp_path: Path, synchronous: str) -> None:
    disk = HeldSync(tmp_path)
    options, environment = ("--queue", str(tmp_path / "tasks.db")), {**disk.environment, "SYNCHRONOUS": synchronous}
    with serving(*options, apps=("support.unsynced_tasks",), **environment) as server, server.connect() as peer:
        sent, answered, task = enqueued(peer)
        assert not was_synced(disk, sent, answered)
        returned = outcome(peer, task)["result"]
        assert not was_synced(disk, returned, time.monotonic())
