"""What survives of durable tasks where everything around them dies?

`python -m benchmarks torture --seconds 120 [--seed N] [--small-disk]`: clients enqueue numbered tasks, which append to
a file, at a server with two fronts. Every 0.5 to 3 s something is done to it: a task process, a front, the master or
all of them are killed (SIGKILL), a front is stopped for longer than its lease (SIGSTOP), the disk is full for a while,
or the clock is set by hours. In the end every task that was acknowledged has run; one that ran twice was cut off
between its effect and its acknowledgement; none ran before its time. Where that doesn't hold, the program ends with 1.

`--small-disk` (for root) puts the queue on a disk of its own, in memory, which is filled up; without it, the size of
the server's files is limited.
"""

import argparse
import json
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.tortured.clients import Acknowledged, Clients, Line
from benchmarks.tortured.verdict import Marks, judge
from benchmarks.tortured.victims import Victims

CLIENTS = 4
SETTLED_WITHIN = 180.0  # seconds, for everything that waits at the end
LEAST = 100  # tasks, below which nothing has been tried


def main(*arguments: str) -> None:
    parser = argparse.ArgumentParser(
        "python -m benchmarks torture", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=120.0, help="for how long; 120 unless told otherwise")
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="do what was done with that seed")
    parser.add_argument("--small-disk", action="store_true", help="a disk in memory, which is filled up (for root)")
    options = parser.parse_args(arguments)
    if not 0 < options.seconds < float("inf"):
        parser.error(f"argument --seconds: it is above 0, not {options.seconds:g}")
    if options.small_disk and os.geteuid() != 0:
        parser.error("argument --small-disk: only root may mount a disk; without it files are limited in their size")
    print(f"seed {options.seed}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="greentask-torture-"))
    disk = folder / "disk"
    disk.mkdir()
    if options.small_disk:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m", "torture", disk], check=True)
    try:
        breaches = torture(folder, options.seconds, options.seed, small_disk=options.small_disk)
        if breaches:
            sys.exit(f"{len(breaches)} breaches; what there is is in {folder}")
    finally:
        if options.small_disk:
            subprocess.run(["umount", disk], check=True)
    shutil.rmtree(folder)


def torture(folder: Path, seconds: float, seed: int, *, small_disk: bool = False) -> list[str]:
    """Do all of it in that folder, and print what became of it; the breaches of what is promised."""
    chance = random.Random(seed)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address: tuple[str, int] = taken.getsockname()
    victims = Victims(folder, address, chance, small_disk=small_disk)
    marks = Marks(folder / "marks")
    clients = Clients(address, str(folder / "marks"), seed, CLIENTS, lambda: len(marks.runs))
    try:
        try:
            victims.keep_alive()
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                victims.keep_alive()
                next_strike = time.monotonic() + chance.uniform(0.5, 3.0)
                while time.monotonic() < next_strike:
                    time.sleep(0.05)
                    victims.undo()
                    marks.read()
                victims.strike()
        finally:
            clients.end()
        victims.undo(now=True)
        victims.keep_alive()
        began = time.monotonic()
        _wait_until_settled(address)
        print(f"what was left had ended after {time.monotonic() - began:.1f} s", flush=True)
        found = _find(address, clients.acknowledged)
    finally:
        victims.end()
    marks.read()
    verdict = judge(clients.acknowledged, marks.runs, found, victims.strikes)
    breaches = [*verdict.breaches, *_complaints(victims.log)]
    if len(clients.acknowledged) < LEAST:
        breaches.append(f"only {len(clients.acknowledged)} tasks were acknowledged: nothing has been tried")
    _tell(clients, marks, verdict.again, victims)
    for breach in breaches[:20]:
        print(f"breach: {breach}")
    return breaches


def _wait_until_settled(address: tuple[str, int]) -> None:
    until = time.monotonic() + SETTLED_WITHIN
    with Line(address) as line:
        while True:
            counted = line.call("greentask.queue", action="stats")
            left = {name: counted[name] for name in ("waiting", "scheduled", "running") if counted[name]}
            if not left:
                return
            if time.monotonic() > until:
                raise TimeoutError(f"after {SETTLED_WITHIN:g} s there are tasks that have not ended: {left}")
            time.sleep(0.1)


def _find(address: tuple[str, int], acknowledged: dict[int, Acknowledged]) -> dict[int, dict[str, Any]]:
    """What the queue says of each number."""
    found = {}
    with Line(address) as line:
        for number, promised in acknowledged.items():
            line.send({"function": "greentask.result", "args": [promised.task], "id": 1})
            reply = line.hear()
            found[number] = reply.get("result", reply)
    return found


def _complaints(log: Path) -> list[str]:
    """Errors in the server's log that are its own."""
    text = log.read_text("utf-8", "backslashreplace")
    return [f"the server's log has a traceback: {text[at : at + 2000]}" for at in [text.find("Traceback")] if at >= 0]


def _tell(clients: Clients, marks: Marks, again: int, victims: Victims) -> None:
    acknowledged, ran = len(clients.acknowledged), len(marks.runs)
    print(
        f"{acknowledged} tasks acknowledged, {ran} ran, {again} of the runs were one more "
        f"({again / max(1, ran):.3%}); {len(marks.runs.keys() - clients.acknowledged.keys())} ran unacknowledged\n"
        f"done to the server: {json.dumps(Counter(strike.kind for strike in victims.strikes))}\n"
        f"refused: {json.dumps(clients.refused)}"
    )
