"""What `.ci/run` says at its end of the tests: each failure, and each that was run once more, on a line."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import environment

pytestmark = pytest.mark.once

FAIL = """
import os, pathlib, pytest

def test_well(): pass

def test_wrong(): assert [1,
    2] == 3, "one line\\nand another"

def test_once_more(tmp_path_factory):
    sign = pathlib.Path(__file__).with_name("sign")
    if not sign.exists():
        sign.touch()
        raise OSError("only now")

@pytest.fixture
def broken(): raise KeyError("fixture")

@pytest.mark.parametrize("one", ["a b"])
def test_is_not_set_up(broken, one): pass

def test_crashes():
    os._exit(7)
"""


@pytest.mark.slow
def test_each_failure_and_each_rerun_is_on_a_line(tmp_path: Path) -> None:
    (tmp_path / "test_one.py").write_text(FAIL)
    (tmp_path / "test_two.py").write_text("import no_such_module")
    told = tmp_path / "told"
    line = ["-p", "conftest", "-p", "no:randomly", "-n", "1", "--max-worker-restart=0", "--failures-to", told]
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "--reruns", "1", "--continue-on-collection-errors", *map(str, line), "."],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
        env=environment(CI=""),
    )
    wrong = f"test_one.py::test_wrong: AssertionError: one line ({tmp_path}/test_one.py:6)"
    not_set_up = f"test_one.py::test_is_not_set_up[a b] (setup): KeyError: 'fixture' ({tmp_path}/test_one.py:16)"
    lines = told.read_text().splitlines()
    expected = [
        f"RERUN {wrong}",
        f"FAILED {wrong}",
        f"RERUN test_one.py::test_once_more: OSError: only now ({tmp_path}/test_one.py:13)",
        f"RERUN {not_set_up}",
        f"FAILED {not_set_up}",
    ]
    of_tests = [line for line in lines if "test_two" not in line]
    assert of_tests[:-1] == expected, ended.stdout
    assert of_tests[-1].startswith("RERUN test_one.py::test_crashes: worker 'gw0' crashed"), ended.stdout
    (other,) = set(lines) - set(of_tests)
    assert other == "FAILED test_two.py (collect): ModuleNotFoundError: No module named 'no_such_module'"
