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
            rounds = [{kind: _get(base, kind) for kind in KINDS} for _ in range(ROUNDS)]
        finally:
            started.terminate()
            started.wait(60)
    names = ("p50_us", "calls_per_s", "of_two_cores")
    found = {kind: {name: round(median(one[kind][name] for one in rounds), 3) for name in names} for kind in KINDS}
    rows = [[kind, *(f"{found[kind][name]:,.2f}" for name in names)] for kind in KINDS]
    tell(
        "gunicorn",
        "From one gevent web worker to two processes",
        ["", "p50 of a small call, µs", "calls/s, 64 greenlets", "10 ms computations, of two cores"],
        rows,
        {"rounds": ROUNDS, "kinds": found},
    )
