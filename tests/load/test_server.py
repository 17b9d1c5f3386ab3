"""What `python -m benchmarks server` measures, with smaller numbers, and bounds that hold on a busy machine."""

import resource
import subprocess
import sys

import pytest

from benchmarks.common import ROOT
from benchmarks.load import descriptors, flat, hostile, idle, large, rates
from benchmarks.load.figures import Figure
from support.servers import serving

pytestmark = [pytest.mark.load, pytest.mark.timeout(100)]

SEED = 20


def value(figures: list[Figure], part: str) -> float:
    """Of the one figure whose name has that part. All of them are shown where the test fails."""
    for figure in figures:
        print(*figure.row())
    (found,) = [figure.value for figure in figures if part in figure.name]
    return found


def test_small_calls_are_about_as_quick_as_a_bare_echo() -> None:
    figures = rates.measure(rounds=2, many=5_120, single=500)
    assert value(figures, "pipelined, greenlet / bare") > 0.4
    assert value(figures, "pipelined, process / bare") > 0.2
    assert value(figures, "one at a time, greenlet / bare") < 12
    assert value(figures, "one at a time, process / bare") < 25


def test_idle_connections_cost_little() -> None:
    figures = idle.measure(idle=3_000, busy=50, rounds=2, seconds=1.0)
    assert value(figures, "memory of the front") < 13
    assert value(figures, "beside the idle ones / without") < 6


def test_a_call_costs_the_same_whatever_else_there_is() -> None:
    figures = flat.measure(connections=(1, 100, 1_000), queued=(100, 1_000, 20_000), rounds=1, calls=4_000)
    assert value(figures, "the dearest / with 1 connections") < 2.5
    assert value(figures, "the dearest / with 100 queued calls") < 2.5


def test_hostile_connections_leave_nothing_behind() -> None:
    figures = hostile.measure(hostile=5_000, honest=20, seed=SEED, slice=1.0, at_once=1_000)
    assert value(figures, "meanwhile / quiet") < 30
    assert value(figures, "grown by") < 15
    assert value(figures, "descriptors") == 0


def test_large_lines_hold_nobody_up() -> None:
    figures = large.measure(seconds=1.0, length=8 * 1024 * 1024, clients=10, seed=SEED)
    for figure in figures:
        if figure.most is not None:
            assert value(figures, figure.name) < 120  # it was 200 to 1,000


def test_out_of_descriptors_nothing_spins() -> None:
    figures = descriptors.measure(descriptors=100, connections=150, seconds=1.0)
    assert value(figures, "can't accept") < 50
    assert value(figures, "never served") == 0
    assert value(figures, "until those that waited") < 10


def test_a_server_takes_as_many_descriptors_as_it_may_have() -> None:
    with serving() as server:
        soft, hard = resource.prlimit(server.call("greentask.status")["pid"], resource.RLIMIT_NOFILE)
        assert soft == hard


def test_a_part_that_is_not_there_is_refused() -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks", "server", "rats"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "no such part: rats; there are rates, idle" in ended.stderr
