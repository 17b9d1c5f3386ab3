"""What holds for every test: reproducible randomness, no silent skips in CI, no process left behind."""

import contextlib
import gc
import os
import random
import subprocess
import sys
import time
import uuid
from collections import Counter
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from gevent.hub import Hub
from hypothesis import settings

# Where PYTHONDONTWRITEBYTECODE is set, as in many an image of a container, each worker would rewrite every test anew,
# and each server that a test starts compile all of greentask: that is most of what the tests cost.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

pytest.register_assert_rewrite("support")  # before any of it is imported

from support import preloaded  # noqa: E402
from support.compiling import compile_part  # noqa: E402
from support.failures import Failures  # noqa: E402
from support.parts import in_ci  # noqa: E402
from support.servers import LineClient, RunningServer, free_port  # noqa: E402

# pytest-timeout raises its failure wherever the alarm finds the main thread, which may be gevent's hub or a
# greenlet. Unless gevent takes it for a system error, it prints it and waits on.
Hub.SYSTEM_ERROR = (*Hub.SYSTEM_ERROR, pytest.fail.Exception)

settings.register_profile("local", max_examples=12, deadline=None, print_blob=True)
settings.register_profile("ci", max_examples=100, deadline=None, print_blob=True, derandomize=False)
settings.load_profile("ci" if in_ci() else "local")

MARK = "GREENTASK_TEST_RUN"  # in the environment of every process that the tests start
GRACE = 5.0


# ---- Options


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--failures-to", type=Path, metavar="FILE", help="append what failed and what was run once more, a line each"
    )


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # A fixed seed keeps Hypothesis from using its database of failures, which only CI can do without.
    if in_ci() and config.getoption("hypothesis_seed", None) is None:
        config.option.hypothesis_seed = str(random.SystemRandom().getrandbits(32))
    # Real processes on a machine that others use as well: once more, and told at the end (R), for it is to be mended.
    if in_ci() and config.getoption("reruns", None) is None:
        config.option.reruns = 1
    file = config.getoption("failures_to")
    workerinput: dict[str, Any] | None = getattr(config, "workerinput", None)
    if workerinput is not None:
        compile_part(int(workerinput["workerid"].removeprefix("gw")), workerinput["workercount"])
    elif file is not None:  # who has the workers hears of it all
        config.pluginmanager.register(Failures(file))


def pytest_report_header(config: pytest.Config) -> str:
    seed = config.getoption("hypothesis_seed", None)
    said = f"--hypothesis-seed={seed}" if seed is not None else "seed: its own (told when a test fails)"
    return f"hypothesis: {said}, max_examples={settings().max_examples}"


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the files that take long: the last file of all keeps one process busy, and the others have no more."""
    cost: Counter[Path] = Counter()
    for item in items:
        cost[item.path] += 100 if item.get_closest_marker("slow") else 1
    items.sort(key=lambda item: -cost[item.path])


def pytest_collection_finish() -> None:
    """Leave out of all collections what stays to the end: thousands of tests, and every module that they import."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """Say how a process of pytest-xdist ended that died: of a signal's default action nothing else is seen."""
    if error:
        with contextlib.suppress(AttributeError, subprocess.TimeoutExpired):  # execnet's own affair
            code = node.gateway._io.popen.wait(5)
            print(f"\n{node.gateway.id} ended with {code}, at {time.strftime('%H:%M:%S')}", flush=True)


# ---- Skips


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if not hasattr(report, "wasxfail"):
        no_skip_in_ci(report)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    no_skip_in_ci(report)
    return report


def no_skip_in_ci(report: pytest.TestReport | pytest.CollectReport) -> None:
    """CI has every part, so a skip there hides something."""
    if in_ci() and report.skipped:
        skip = report.longrepr
        reason = (skip[2] if isinstance(skip, tuple) else str(skip)).removeprefix("Skipped: ")
        report.outcome = "failed"
        report.longrepr = f"Skipped in CI, where nothing may be missing: {reason}"


# ---- Servers


@pytest.fixture
def peer(server: RunningServer) -> Iterator[LineClient]:
    """A connection to the server of the test's module."""
    with server.connect() as peer:
        yield peer


# ---- Processes


@pytest.fixture(scope="session", autouse=True)
def no_process_left() -> Iterator[None]:
    """Fail the run when a process that the tests started outlives them, as a child or as an orphan."""
    os.environ[MARK] = run = uuid.uuid4().hex
    yield
    preloaded.end()
    give_up = time.monotonic() + GRACE
    while (left := list(started_by(run))) and time.monotonic() < give_up:
        time.sleep(0.05)
    if left:
        pytest.fail("processes left behind by the tests:\n" + "\n".join(map(describe, left)), pytrace=False)


def started_by(run: str) -> Iterator[psutil.Process]:
    me = psutil.Process()
    children = set(me.children(recursive=True))
    for process in children.union(psutil.process_iter()) - {me}:
        try:
            ours = process in children or process.environ().get(MARK) == run
            if ours and "multiprocessing.resource_tracker" not in " ".join(process.cmdline()):
                yield process
        except psutil.ZombieProcess:
            if process in children:
                yield process
        except psutil.Error:
            pass  # gone meanwhile, or somebody else's


def describe(process: psutil.Process) -> str:
    try:
        with process.oneshot():
            return f"  {process.pid} {process.status()} {' '.join(process.cmdline()) or process.name()}"
    except psutil.Error as error:
        return f"  {process.pid} {error}"


# ---- What many tests need


@pytest.fixture
def unused_port() -> int:
    """A port on which nobody listens."""
    return free_port()
