"""CPython's own tests of executors, with `client.executor()` as the executor: what is submitted runs on a server."""

import importlib
from collections.abc import Iterator
from typing import Any

import pytest

from greentask import Client
from support.cpython import DEBIANS, cases, run
from support.parts import require
from support.servers import RunningServer, serving

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

#: Those for any executor.
CLASSES = (
    ("executor", "ExecutorTest"),
    ("test_wait", "WaitTests"),
    ("test_as_completed", "AsCompletedTests"),
    ("test_shutdown", "ExecutorShutdownTest"),
)
_BY_NAME = "starts a program that imports the executor from concurrent.futures"
#: Tests that are left out, and why.
NOT_OURS = {
    "test_submit_keyword": "mixes arguments by position with others for a **kwargs, and wants a tuple back",
    "test_map_exception": "wants tuples back",
    "test_max_workers_negative": "for its message: the parameter is called `window` here",
    "test_no_stale_references": "submits an object's method",
    "test_free_reference": "wants objects back",
    "test_swallows_falsey_exceptions": "submits a function of its own",
    "test_map_recursive_submit": "submits a function of its own",
    "test_interpreter_shutdown": _BY_NAME,
    "test_submit_after_interpreter_shutdown": _BY_NAME,
    "test_hang_gh83386": _BY_NAME,
}


class Mixin:
    worker_count = 5
    server: RunningServer

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        self.client = Client(self.server.address)
        self.executor = self.client.executor(window=self.worker_count)

    def tearDown(self) -> None:
        self.executor.shutdown(wait=True)
        self.client.close()
        super().tearDown()  # type: ignore[misc]


CASES = [pytest.param(case, test, id=f"{case.__name__}.{test}") for case, test in cases(CLASSES, Mixin, NOT_OURS)]


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving(apps=["support.cpython_tasks", "time:sleep"]) as running:
        yield running


@pytest.mark.parametrize(("case", "test"), CASES or [pytest.param(None, "", id="none")])
def test_cpython(case: Any, test: str, server: RunningServer) -> None:
    require(case, f"CPython's tests of executors (Debian has them in {DEBIANS})")
    importlib.import_module(getattr(case, test).__module__)
    case.server = server
    run(case, test)
