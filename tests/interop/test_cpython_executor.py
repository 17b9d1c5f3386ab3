"""CPython's own tests of executors, with `Pool` as the executor. Where they don't fit, docs/pool.md says why.

They come with Python's standard library (`test.test_concurrent_futures`), or don't, as with Debian's.
"""

import importlib
import multiprocessing
import unittest
from typing import Any

import pytest

from greentask import Pool

pytestmark = [pytest.mark.interop, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

PACKAGE = "test.test_concurrent_futures"

CLASSES = (("executor", "ExecutorTest"), ("test_wait", "WaitTests"), ("test_as_completed", "AsCompletedTests"))
#: Tests that ask for something else than we do.
NOT_OURS = {"test_max_workers_negative"}  # for its message: the parameter is called processes here


class Executor(Pool):
    """With `ProcessPoolExecutor`'s parameters."""

    def __init__(self, max_workers: int | None = None, **options: Any) -> None:
        super().__init__(max_workers, **options)


class Mixin:
    executor_type = Executor
    worker_count = 5
    executor: Executor

    def setUp(self) -> None:
        self.executor = self.executor_type(max_workers=self.worker_count)

    def tearDown(self) -> None:
        self.executor.shutdown(wait=True)


def find(module: str, name: str) -> Any:
    """A class of tests: in Python 3.13 they are a package, before that they were one module."""
    for path in (f"{PACKAGE}.{module}", PACKAGE):
        try:
            found = getattr(importlib.import_module(path), name, None)
        except ImportError:
            continue
        if found is not None:
            return found
    return None


def cases() -> list[Any]:
    found = []
    for module, name in CLASSES:
        tests = find(module, name)
        if tests is None:
            continue
        case = type(f"Pool{name}", (Mixin, tests, unittest.TestCase), {"__module__": __name__})
        for test in unittest.defaultTestLoader.getTestCaseNames(case):
            if test not in NOT_OURS:
                found.append(pytest.param(case, test, id=f"{name}.{test}"))
    without = pytest.mark.skip("by design: this Python comes without its own tests")
    return found or [pytest.param(None, "", marks=without)]


@pytest.mark.parametrize(("case", "test"), cases())
def test_cpython(case: Any, test: str) -> None:
    result = unittest.TestResult()
    case(test).run(result)
    assert not result.errors, result.errors[0][1]
    assert not result.failures, result.failures[0][1]
    assert result.testsRun == 1


def test_nothing_is_left_of_multiprocessing() -> None:
    assert multiprocessing.active_children() == []
