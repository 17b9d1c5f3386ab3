"""How quick is `greentask.Pool`, beside its peers on the same work, two processes each?

Peers are measured by turns, `ROUNDS` times, and each figure is the median of its rounds. The programs that want gevent
(ours, gipc) are measured in a monkey-patched process, the others in a plain one; "plain" is ours in a plain program.
"""

import json
import statistics
import subprocess
import sys
from typing import Any

from benchmarks.common import ROOT, tell

ROUNDS = 3
#: name -> whether its process is monkey-patched
PEERS = {
    "greentask": True,
    "greentask (plain)": False,
    "ProcessPoolExecutor": False,
    "ProcessPoolExecutor (gevent)": True,
    "multiprocessing.Pool": False,
    "pebble": False,
    "loky": False,
    "gipc": True,
    "bare socketpair": False,
}
FIGURES = {
    "round_trip_us": "one at a time, p50",
    "tasks_per_s": "small tasks per s",
    "busy_share": "10 ms tasks, share of 2 cores",
    "megabytes_per_s": "1 MB there and back, MB/s",
}


def measure(peer: str) -> dict[str, Any]:
    """One round of one peer, in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.pool_peers", peer], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    if done.returncode != 0:
        sys.exit(f"{peer} failed:\n{done.stderr}")
    figures: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return figures


def main() -> None:
    rounds: dict[str, list[dict[str, Any]]] = {peer: [] for peer in PEERS}
    for _ in range(ROUNDS):
        for peer in PEERS:
            rounds[peer].append(measure(peer))
    medians: dict[str, dict[str, Any]] = {}
    for peer, measured in rounds.items():
        medians[peer] = {
            name: round(statistics.median(figures[name] for figures in measured), 3)
            for name in FIGURES
            if name in measured[0]
        }
    hundred = measure("hundred")
    rows = [
        [peer, *(f"{figures[name]:,}" if name in figures else "" for name in FIGURES)]
        for peer, figures in medians.items()
    ]
    tell(
        "pool",
        f"two processes, medians of {ROUNDS} rounds; a hundred processes: ready in {hundred['ready_s']:.2f} s, "
        f"{hundred['pss_mb']:.2f} MB each",
        ["peer", *FIGURES.values()],
        rows,
        {"rounds": ROUNDS, "peers": medians, "hundred_processes": hundred},
    )
