"""`python -m benchmarks gunicorn`: calls from one gevent web worker, beside gunicorn's own dirty arbiter, by turns."""

import json
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request
from pathlib import Path
from statistics import median

from .common import ROOT, tell

ROUNDS = 3
KINDS = ("pool", "task server", "dirty arbiter")
_CONF = """
from greentask.contrib.gunicorn import TaskServer
tasks = TaskServer("benchmarks.gunicorn_app", processes=2)
on_starting, on_reload, on_exit = tasks.on_starting, tasks.on_reload, tasks.on_exit
worker_class, workers, timeout = "gevent", 1, 120
dirty_apps, dirty_workers = ["benchmarks.gunicorn_app:Dirty"], 2
control_socket_disable = True
"""


def _get(base: str, path: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{base}/{urllib.parse.quote(path)}", timeout=90) as answer:
        figures: dict[str, float] = json.load(answer)
    return figures


_BARE = """
import time
from benchmarks.gunicorn_app import compute
end, count = time.perf_counter() + 1.5, 0
while time.perf_counter() < end:
    compute(0.01)
    count += 1
print(count * 0.01 / 1.5)
"""


def _bare() -> float:
    """The share of two processors that two processes get which only compute: others may use this machine, too."""
    both = [subprocess.Popen([sys.executable, "-c", _BARE], cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in "12"]
    return sum(float(one.communicate(timeout=60)[0]) for one in both) / 2


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        conf, log = Path(folder, "gunicorn.conf.py"), Path(folder, "log")
        conf.write_text(_CONF)
        command = [sys.executable, "-m", "gunicorn", "-c", str(conf), "benchmarks.gunicorn_app:app"]
        with log.open("wb") as file:
            started = subprocess.Popen([*command, "-b", "127.0.0.1:0"], cwd=ROOT, stdout=file, stderr=file)
        try:
            until = time.monotonic() + 30
            while "Booting worker" not in log.read_text():
                if started.poll() is not None or time.monotonic() > until:
                    sys.exit(f"gunicorn does not serve:\n{log.read_text()}")
                time.sleep(0.1)
            line = next(line for line in log.read_text().splitlines() if "Listening at: http" in line)
            base = line.split("Listening at: ")[1].split()[0]
            bare, rounds = [], []
            for _ in range(ROUNDS):
                rounds.append({kind: _get(base, kind) for kind in KINDS})
                bare.append(_bare())
        finally:
            started.terminate()
            started.wait(60)
    names = ("p50_us", "calls_per_s", "of_two_cores")
    found = {kind: {name: round(median(one[kind][name] for one in rounds), 3) for name in names} for kind in KINDS}
    rows = [[kind, *(f"{found[kind][name]:,.2f}" for name in names)] for kind in KINDS]
    share = round(median(bare), 3)
    rows.append(["two bare processes", "", "", f"{share:.2f}"])
    tell(
        "gunicorn",
        "From one gevent web worker to two processes",
        ["", "p50 of a small call, µs", "calls/s, 64 greenlets", "10 ms computations, of two cores"],
        rows,
        {"rounds": ROUNDS, "bare_of_two_cores": share, "kinds": found},
    )
