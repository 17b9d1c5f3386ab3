"""CPython's own tests of executors, with `Pool` as the executor. Where they don't fit, docs/pool.md says why."""

import importlib
import multiprocessing
import pickle
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any
from unittest import mock

import pytest

from greentask import Pool, WorkerLost
from support.cpython import DEBIANS, cases, run
from support.parts import require
from support.programs import ROOT

pytestmark = [pytest.mark.interop, pytest.mark.cpython, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

#: The modules and classes of those tests that are for any executor, or for one with processes.
CLASSES = (
    ("executor", "ExecutorTest"),
    ("test_wait", "WaitTests"),
    ("test_as_completed", "AsCompletedTests"),
    ("test_shutdown", "ExecutorShutdownTest"),
    ("test_init", "InitializerMixin"),
    ("test_deadlock", "ExecutorDeadlockTest"),
    ("test_process_pool", "ProcessPoolExecutorTest"),
)

_BY_NAME = "starts a program that imports the executor from concurrent.futures"
_PRIVATE = "looks into ProcessPoolExecutor's private attributes"
#: Tests that are left out, and why: docs/pool.md has the same.
NOT_OURS = {
    "test_max_workers_negative": "for its message: the parameter is called `processes` here",
    "test_max_workers_too_large": "is of Windows",
    "test_interpreter_shutdown": _BY_NAME,
    "test_submit_after_interpreter_shutdown": _BY_NAME,
    "test_hang_gh83386": _BY_NAME,
    "test_shutdown_deadlock_pickle": _PRIVATE,
    "test_gh105829_should_not_deadlock_if_wakeup_pipe_full": _PRIVATE,
    "test_traceback": _PRIVATE,
    "test_killed_child": _PRIVATE,
    "test_idle_process_reuse_one": _PRIVATE,
    "test_idle_process_reuse_multiple": _PRIVATE,
    "test_saturation": _PRIVATE,
    "test_python_finalization_error": _PRIVATE,
    "test_max_tasks_per_child": "`max_tasks` here, and it " + _PRIVATE,
    "test_max_tasks_per_child_defaults_to_spawn_context": "`max_tasks` here, and it " + _PRIVATE,
    "test_max_tasks_early_shutdown": "`max_tasks` here, and it " + _PRIVATE,
}
#: What we raise where they expect `BrokenProcessPool`: only the task that is to blame fails, with its own error.
OUR_ERRORS: dict[str, type[BaseException]] = {
    "test_exit_at_task_unpickle": SystemExit,
    "test_error_at_task_unpickle": pickle.UnpicklingError,
    "test_exit_during_result_unpickle_in_result_handler": SystemExit,
    "test_error_during_result_unpickle_in_result_handler": pickle.UnpicklingError,
}


class Executor(Pool):
    """With `ProcessPoolExecutor`'s parameters."""

    def __init__(self, max_workers: int | None = None, mp_context: object = None, **options: Any) -> None:
        super().__init__(max_workers, preload=["support.cpython"], **options)


class Mixin:
    executor_type = Executor
    executor_kwargs: Mapping[str, Any] = MappingProxyType({})
    worker_count = 5
    executor: Executor | None

    def setUp(self) -> None:
        super().setUp()  # type: ignore[misc]
        if not any(base.__name__ == "ExecutorMixin" for base in type(self).__mro__):  # which makes one itself
            self.executor = self.executor_type(max_workers=self.worker_count, **self.executor_kwargs)
            self.executor.submit(id, None).result()  # some tests expect that a part of what they submit has begun

    def tearDown(self) -> None:
        if self.executor is not None:
            self.executor.shutdown(wait=True)
        super().tearDown()  # type: ignore[misc]

    def get_context(self) -> Any:
        """For what tests make besides executors."""
        return multiprocessing.get_context("spawn")


CASES = [
    pytest.param(case, test, id=f"{case.__name__}.{test}")
    for case, test in cases(CLASSES, Mixin, NOT_OURS, executor_type=Executor)
]


@pytest.mark.parametrize(("case", "test"), CASES or [pytest.param(None, "", id="none")])
def test_cpython(case: Any, test: str) -> None:
    require(case, f"CPython's tests of executors (Debian has them in {DEBIANS})")
    module = importlib.import_module(getattr(case, test).__module__)
    with mock.patch.object(module, "BrokenProcessPool", OUR_ERRORS.get(test, WorkerLost), create=True):
        run(case, test)


def test_what_is_left_out_is_told() -> None:
    told = Path(ROOT, "docs", "pool.md").read_text(encoding="utf-8")
    assert [test for test in [*NOT_OURS, *OUR_ERRORS] if f"`{test}`" not in told] == []


def test_nothing_is_left_of_multiprocessing() -> None:
    assert multiprocessing.active_children() == []
