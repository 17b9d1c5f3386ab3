"""docs/migrating.md: its programs run, and so does every line of its tables."""

import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.documents import blocks
from support.programs import ROOT, environment, greentask
from support.servers import RunningServer, serving

pytestmark = pytest.mark.once

NAME = "docs/migrating.md"
COMMANDS = ("celery", "rq", "huey_consumer", "dramatiq", "php", "greentask")

ROWS = """
import math
from concurrent.futures import as_completed
import gevent
from greentask import Backoff, Pool, current, default_client, task
from moved import add, report, send_mail

client, items = default_client(), range(100)
initializer, initargs = print, ()

if __name__ == "__main__":
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("migrating")
    tasks, celery, called, pool = blocks(NAME, "python")
    for name, source in (("moved", tasks), ("shop_tasks", celery), ("called", called), ("pool", pool)):
        (folder / f"{name}.py").write_text(source, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[RunningServer]:
    listen = [f"unix://{folder}/socket"]
    with serving("--queue", "tasks.db", apps=["moved", "shop_tasks"], listen=listen, cwd=folder) as running:
        yield running


def run(folder: Path, program: str) -> None:
    done = subprocess.run(
        [sys.executable, program],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(GREENTASK_URL=f"unix://{folder}/socket"),
    )
    assert (done.returncode, done.stderr) == (0, "")


def tables() -> Iterator[tuple[str, str, str]]:
    """Each row that says a line of theirs and a line of ours: the section, and both."""
    section = ours = ""
    for line in (ROOT / NAME).read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            section, ours = line[3:], ""
        elif line.startswith("| "):
            left, right = re.split(r"(?<!\\) \| ", line.strip("| "))
            if right.strip("`") in ("greentask", "greentask.Pool"):
                ours = right
            elif ours and not line.startswith("| ---"):
                yield section, left.strip("`"), right.strip("`")
        else:
            ours = ""


def is_command(line: str) -> bool:
    return line.split()[0] in COMMANDS and "(" not in line


def whole(line: str) -> str:
    """A statement: a decorator has a function behind it."""
    return f"{line}\ndef decorated(): ...\n" if line.startswith("@") else line


def test_there_are_tables_for_all() -> None:
    assert sorted({section for section, _, _ in tables()}) == [
        "From Celery",
        "From Dramatiq",
        "From Huey",
        "From RQ",
        "From Workerman",
        "From concurrent.futures",
        "From multiprocessing",
    ]


def test_imports_are_changed_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    file = tmp_path / "shop" / "tasks.py"
    file.write_text("from celery import Celery\nfrom celery_app import x\nfrom .celery import app\n")
    subprocess.run(["bash", "-c", blocks(NAME, "sh")[0]], cwd=tmp_path, check=True)
    assert file.read_text() == (
        "from greentask.contrib.celery_style import Celery\nfrom celery_app import x\nfrom .celery import app\n"
    )


@pytest.mark.usefixtures("server")
def test_celery_s_program_runs(folder: Path) -> None:
    run(folder, "called.py")


def test_the_program_with_a_pool_runs(folder: Path) -> None:
    run(folder, "pool.py")


@pytest.mark.usefixtures("server")
def test_our_lines_run(folder: Path) -> None:
    rows = [whole(ours) for _, _, ours in tables() if not is_command(ours)]
    assert len(rows) > 30
    (folder / "rows.py").write_text(ROWS + textwrap.indent("\n".join(rows), "    ") + "\n    pool.shutdown()\n")
    run(folder, "rows.py")


def test_their_lines_are_python() -> None:
    for section, theirs, _ in tables():
        if section != "From Workerman" and not is_command(theirs):
            compile(whole(theirs), theirs, "exec")


def test_our_commands_are_there() -> None:
    helps: dict[str, str] = {}
    for _, _, ours in tables():
        if is_command(ours):
            _, command, *words = ours.split()
            if command not in helps:
                helps[command] = greentask(command, "--help").stdout
                assert helps[command], ours
            for flag in (word for word in words if word.startswith("-")):
                assert flag in helps[command], ours
