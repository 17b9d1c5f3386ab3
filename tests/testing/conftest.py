"""One server for the tests of a module, and what holds for calls in place and on it."""

from collections.abc import Iterator

import pytest

from greentask.testing import Calls, LocalServer, eager

APP = "support.tested_tasks"


@pytest.fixture(scope="module")
def server() -> Iterator[LocalServer]:
    server = LocalServer(APP)
    yield server
    server.stop()


@pytest.fixture(params=["in place", "on a server"])
def calls(request: pytest.FixtureRequest) -> Iterator[Calls]:
    """The tests that use it hold for both."""
    if request.param == "in place":
        with eager(APP) as calls:
            yield calls
    else:
        with request.getfixturevalue("server").used() as calls:
            yield calls
