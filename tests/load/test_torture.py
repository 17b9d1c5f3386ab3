"""`python -m benchmarks torture`, for 30 s: what was acknowledged runs, whatever is killed, stopped, full or set."""

import subprocess
import sys
from contextlib import ExitStack

import pytest

from benchmarks.common import ROOT
from benchmarks.torture import main
from benchmarks.tortured.clients import Acknowledged
from benchmarks.tortured.verdict import Run, judge
from benchmarks.tortured.victims import Strike
from support.namespaces import can_unshare
from support.parts import require
from support.programs import environment

pytestmark = [pytest.mark.load, pytest.mark.timeout(400)]

SECONDS = "30"


def test_what_was_acknowledged_runs_whatever_dies_also_on_a_small_disk() -> None:
    """Both beside one another: each mostly waits, for the next thing to do to its server, and for that to come back."""
    with ExitStack() as stack:
        runs = []
        for options in ((), ("--small-disk",)) if can_unshare() else ((),):
            command = [sys.executable, "-m", "benchmarks", "torture", "--seconds", SECONDS, *options]
            run = subprocess.Popen(
                command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment()
            )
            runs.append(stack.enter_context(run))
            stack.callback(run.terminate)
        told = [run.communicate()[0] for run in runs]
        print(*told, sep="\n")
        for run, output in zip(runs, told):
            assert run.returncode == 0, output
    require(can_unshare(), "nothing may be mounted here")


def test_what_it_can_not_do_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for arguments, said in ((("--seconds", "0"), "it is above 0, not 0"), (("--small-disk",), "only root may mount")):
        with pytest.raises(SystemExit) as ended:
            main(*arguments)
        assert (ended.value.code, said in capsys.readouterr().err) == (2, True)


# ---- The judge

KILLED = Strike("process", 10.0, 10.1, frozenset({7}))
FIRST, SECOND = Run(1, "A", 9.0, 7, 70), Run(2, "A", 11.0, 8, 70)
DONE = {"state": "done", "result": 5, "attempts": 2}


@pytest.mark.parametrize(
    ("runs", "told", "breach"),
    [
        ([FIRST], DONE, None),
        ([FIRST, SECOND], DONE, None),
        ([], DONE, "never ran"),
        ([FIRST], {"state": "failed", "attempts": 2}, "is said to be"),
        ([FIRST], {**DONE, "result": 6}, "is said to be"),
        ([FIRST, SECOND], {**DONE, "attempts": 1}, "ran after it was acknowledged"),
        ([FIRST, SECOND._replace(attempt=1)], DONE, "twice at one attempt"),
        ([FIRST._replace(pid=9), SECOND], DONE, "nothing had cut it off"),
        ([FIRST, SECOND._replace(at=9.5)], DONE, "nothing had cut it off"),
        ([FIRST._replace(task="B")], DONE, "under one key"),
        ([FIRST._replace(at=0.5)], DONE, "before its time"),
    ],
)
def test_what_breaks_a_promise_is_seen(runs: list[Run], told: dict[str, object], breach: str | None) -> None:
    verdict = judge({5: Acknowledged("A", 1.0)}, {5: runs} if runs else {}, {5: told}, [KILLED])
    assert len(verdict.breaches) == (breach is not None), verdict.breaches
    assert breach is None or breach in verdict.breaches[0]
