"""How quick is `greentask.Pool`, beside its peers on the same work, two processes each?

Peers are measured by turns, `ROUNDS` times, and each figure is the median of its rounds. The programs that want gevent
(ours, gipc) are measured in a monkey-patched process, the others in a plain one; "plain" is ours in a plain program. An
empty place is a figure that a peer did not come to: it hung.
"""

import json
import os
import signal
import statistics
import subprocess
import sys

from rich.console import Console

from benchmarks.common import ROOT, tell

ROUNDS = 3
PEERS = [
    "greentask",
    "greentask (plain)",
    "ProcessPoolExecutor",
    "ProcessPoolExecutor (gevent)",
    "multiprocessing.Pool",
    "pebble",
    "loky",
    "gipc",
    "bare socketpair",
]
ALONE = ["hundred", "stalls"]
FIGURES = {
    "round_trip_us": "one at a time, p50",
    "tasks_per_s": "small tasks per s",
    "busy_share": "10 ms tasks, share of 2 cores",
    "megabytes_per_s": "1 MB there and back, MB/s",
}


WITHIN = 40  # seconds, for one peer's round


def measure(peer: str) -> dict[str, float]:
    """One round of one peer, in a process of its own; without the figures that it did not come to."""
    command = [sys.executable, "-m", "benchmarks.pool_peers", peer]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True, start_new_session=True) as running:
        try:
            output, _ = running.communicate(timeout=WITHIN)
        except subprocess.TimeoutExpired:
            os.killpg(running.pid, signal.SIGKILL)
            output, _ = running.communicate()
        else:
            if running.returncode != 0:
                sys.exit(f"{peer} failed")
    figures: dict[str, float] = {}
    for line in output.splitlines():
        figures.update(json.loads(line))
    return figures


def median(measured: list[dict[str, float]]) -> dict[str, float]:
    """Of each figure that every round came to."""
    return {
        name: round(statistics.median(figures[name] for figures in measured), 3)
        for name in measured[0]
        if all(name in figures for figures in measured)
    }


def main() -> None:
    rounds: dict[str, list[dict[str, float]]] = {name: [] for name in [*PEERS, *ALONE]}
    for number in range(ROUNDS):
        for name, measured in rounds.items():
            if not measured or len(measured[0]) >= len(FIGURES) or name in [*ALONE, "bare socketpair"]:
                measured.append(measure(name))  # one that hung is not asked again
            Console(stderr=True).print(f"round {number + 1}: {name} {measured[-1]}", highlight=False)
    medians = {name: median(measured) for name, measured in rounds.items()}
    hundred, stalls = (medians.pop(name) for name in ALONE)
    rows = [
        [peer, *(f"{figures[name]:,}" if name in figures else "" for name in FIGURES)]
        for peer, figures in medians.items()
    ]
    tell(
        "pool",
        f"two processes, medians of {ROUNDS} rounds; a hundred processes: ready in {hundred['ready_s']:.2f} s, "
        f"{hundred['pss_mb']:.2f} MB each; the longest stall with 64 MB: {max(stalls.values()):.1f} ms",
        ["peer", *FIGURES.values()],
        rows,
        {"rounds": ROUNDS, "peers": medians, "hundred_processes": hundred, "stalls_with_64_mb": stalls},
    )
