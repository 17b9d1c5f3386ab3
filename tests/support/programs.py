"""Programs that tests start: run to their end, or up to their first line."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).parents[2]
TESTS = ROOT / "tests"


def environment(**variables: str) -> dict[str, str]:
    """Ours, with the tests' modules importable and rich's output plain."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "COLUMNS": "120", "TERM": "dumb", **variables}


def greentask(
    *arguments: str, input: str | None = None, timeout: float = 60, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run `python -m greentask ARGUMENTS` to its end."""
    return subprocess.run(
        [sys.executable, "-m", "greentask", *arguments],
        input=input,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=environment(**variables),
    )


@contextmanager
def program(
    *arguments: str, cwd: Path | None = None, stop_with: int = signal.SIGTERM, **variables: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """Start `python ARGUMENTS`; its first line of output and the program, which ends with the context."""
    started = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=cwd,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(**variables),
    )
    assert started.stdout is not None
    try:
        line = started.stdout.readline()
        if not line:
            raise AssertionError(f"{arguments} ended at once: {started.communicate()[1]}")
        yield line.strip(), started
    finally:
        started.send_signal(stop_with)
        try:
            started.communicate(timeout=15)
        except subprocess.TimeoutExpired:
            started.kill()
            started.communicate()
            raise
