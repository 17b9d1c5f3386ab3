"""`python -m benchmarks torture`, for 30 s: what was acknowledged runs, whatever is killed, stopped, full or set."""

import subprocess
import sys

import pytest

from benchmarks.common import ROOT
from support.namespaces import can_unshare
from support.parts import require
from support.programs import environment

pytestmark = [pytest.mark.load, pytest.mark.timeout(400)]

SECONDS = "30"


def torture(*options: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "torture", "--seconds", SECONDS, *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env=environment(),
    )
    print(ended.stdout, ended.stderr)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_what_was_acknowledged_runs_whatever_dies() -> None:
    torture()


def test_what_was_acknowledged_runs_also_on_a_small_disk() -> None:
    require(can_unshare(), "nothing may be mounted here")
    torture("--small-disk")
