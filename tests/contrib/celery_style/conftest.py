"""One server of `support.celery_tasks` for a module's tests, which the default client calls."""

from collections.abc import Iterator

import pytest

from greentask import Client, configure
from greentask.client import default
from support.servers import RunningServer, serving


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving(apps=["support.celery_tasks"]) as running:
        yield running


@pytest.fixture
def client(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> Iterator[Client]:
    monkeypatch.setattr(default, "_client", None)
    with configure(server.address) as client:
        yield client
