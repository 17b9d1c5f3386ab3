"""Programs that are written for Celery run with their imports changed, and print what they print with Celery."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from support.celery_programs import PROGRAMS, change_imports, copy_programs
from support.parts import require
from support.programs import environment
from support.servers import serving

# The program, and where its application is.
EACH = {
    "first_steps": "tasks",
    "next_steps": "proj.celery",
    "canvas": "pieces",
    "calling": "tasks",
    "retrying": "tries",
}
NEEDS_QUEUE = {"calling", "retrying"}


def run(*command: str, cwd: Path, **variables: str) -> str:
    done = subprocess.run(
        [sys.executable, *command], cwd=cwd, capture_output=True, text=True, timeout=100, env=environment(**variables)
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


@contextmanager
def served(folder: Path, *options: str) -> Iterator[Path]:
    """The folder of the programs, whose tasks are served at its `tasks.socket`."""
    folder = copy_programs(folder, changed=True)
    apps = ["tasks", "proj", "pieces", "tries"]
    with serving(*options, apps=apps, listen=[f"unix://{folder}/tasks.socket"], cwd=folder):
        yield folder


@pytest.fixture(scope="module")
def called(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served(tmp_path_factory.mktemp("called")) as folder:
        yield folder


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    with served(tmp_path_factory.mktemp("kept"), "--queue", "tasks.db") as folder:
        yield folder


@pytest.mark.parametrize("name", sorted(EACH.keys() - NEEDS_QUEUE))
def test_it_runs_with_one_import_changed(called: Path, name: str) -> None:
    check(called, name)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in NEEDS_QUEUE else pytest.mark.slow) for name in EACH]
)
def test_it_runs_in_a_queue_with_one_import_changed(kept: Path, name: str) -> None:
    check(kept, name)


def check(folder: Path, name: str) -> None:
    output = run("-W", "error", f"{name}.py", cwd=folder, GREENTASK_URL=f"unix://{folder}/tasks.socket")
    assert output == (PROGRAMS / f"{name}.txt").read_text()


@pytest.mark.interop
@pytest.mark.parametrize("name", EACH)
def test_it_prints_the_same_with_celery(tmp_path: Path, name: str) -> None:
    require(importlib.util.find_spec("celery"), "no celery here: pip install celery")
    folder = copy_programs(tmp_path, changed=False)
    output = run("-m", "support.celery_worker", EACH[name], f"{name}.py", cwd=folder)
    assert output == (PROGRAMS / f"{name}.txt").read_text()


def test_only_imports_are_changed() -> None:
    source = "from celery import Celery\nfrom celery.result import AsyncResult\nfrom .celery import app\n"
    package = "greentask.contrib.celery_style"
    assert change_imports(source) == (
        f"from {package} import Celery\nfrom {package}.result import AsyncResult\nfrom .celery import app\n"
    )
