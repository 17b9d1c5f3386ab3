"""examples/lookup, as its README has it: with a small table, and (slow) with the one of 300 MB."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from support.programs import ROOT, greentask
from support.servers import RunningServer, serving

pytestmark = pytest.mark.once

FOLDER = ROOT / "examples" / "lookup"


def check(server: RunningServer, rows: int) -> None:
    done = greentask("call", "price", "article=7", "--server", server.address)
    assert done.stdout == f"{7 * 7919 % 100_000 / 100}\n"
    done = greentask("call", "mean", "first=0", f"last={rows}", "--server", server.address)
    assert 490 < float(done.stdout) < 510


@pytest.fixture
def small() -> Iterator[RunningServer]:
    with serving("--group", "lookup=2", apps=["prices"], cwd=FOLDER, LOOKUP_ROWS="1_000_000") as server:
        yield server


def test_a_small_table(small: RunningServer) -> None:
    check(small, 1_000_000)


@pytest.mark.slow
def test_the_processes_share_a_table_of_300_megabytes() -> None:
    with serving("--group", "lookup=8", apps=["prices"], cwd=FOLDER) as server:
        check(server, 1_000_000)
        below = [psutil.Process(server.process.pid), *server.fronts(), *server.below()]
        own = sum(process.memory_full_info().pss for process in below)
        assert max(process.memory_info().rss for process in below) > 300_000_000
        assert own < 600_000_000


@pytest.mark.slow
def test_its_memory_is_told(small: RunningServer) -> None:
    done = subprocess.run(
        [sys.executable, str(Path(FOLDER, "memory.py")), str(small.process.pid)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert "MB in all" in done.stdout
    assert done.stdout.count("task process") >= 3
