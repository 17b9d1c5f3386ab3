"""One server for the tests of a module, and for each test a client, which leaves the server as it was found."""

from collections.abc import Iterator

import pytest

from greentask import Client
from support.servers import LineClient, RunningServer, serving, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving(apps=["support.server_tasks", "support.client_tasks"]) as running:
        yield running


@pytest.fixture(scope="module")
def observer(server: RunningServer) -> Iterator[LineClient]:
    """Somebody else who asks the server."""
    with server.connect() as observer:
        yield observer


@pytest.fixture
def client(server: RunningServer, observer: LineClient) -> Iterator[Client]:
    """A client with a connection of its own; when it is gone, none of its calls may be left on the server."""
    with Client(server.address) as client:
        yield client
    wait_until(lambda: observer.call("greentask.status")["in_flight"] == 1, "the server is idle")
