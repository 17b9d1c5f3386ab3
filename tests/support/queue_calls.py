"""Enqueueing and asking for results, on the wire."""

from collections.abc import Iterator
from typing import Any

import pytest

from greentask import Client
from support.servers import LineClient, RunningServer, serving

__all__ = ["enqueue", "outcome", "queue_client", "queue_server"]


def enqueue(peer: LineClient, function: str, *args: object, **options: object) -> str:
    """Its id."""
    reply = peer.ask({"function": function, "args": args, "id": 1, "enqueue": options or True})
    assert set(reply) == {"id", "result"}, reply
    return str(reply["result"]["task"])


def outcome(peer: LineClient, task: str, wait: object = True) -> dict[str, Any]:
    """What `greentask.result` says."""
    found: dict[str, Any] = peer.call("greentask.result", task=task, wait=wait)
    return found


@pytest.fixture(scope="module")
def queue_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """A server with a queue of its own, for the tests of a module."""
    path = tmp_path_factory.mktemp("queue") / "tasks.db"
    with serving("--queue", str(path), apps=("support.durable_tasks",)) as server:
        yield server


@pytest.fixture
def queue_client(server: RunningServer) -> Iterator[Client]:
    """A client of that server."""
    with Client(server.address, timeout=20) as client:
        yield client
