"""Signals that come to `greentask serve` while it is still being imported."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from support.programs import environment
from support.waiting import wait_until

# In place of click, which the command line imports first: it says so, and takes its time.
SLOW = "import pathlib, time\npathlib.Path(r'{there}').touch()\ntime.sleep(60)\n"
ASKS = "import signal, greentask\nprint(signal.getsignal(signal.SIGTERM) is signal.SIG_DFL)\n"


@pytest.mark.parametrize(
    "way", [["-m", "greentask"], ["-mgreentask"], "greentask"], ids=["-m", "-mgreentask", "script"]
)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 0), (signal.SIGINT, 130)], ids=["SIGTERM", "SIGINT"])
def test_they_end_it_in_good_order(tmp_path: Path, way: list[str] | str, number: int, code: int) -> None:
    there = tmp_path / "there"
    (tmp_path / "click.py").write_text(SLOW.format(there=there))
    script = tmp_path / "greentask"
    script.write_text("from greentask.cli import main\nmain()\n")
    variables = environment()
    variables["PYTHONPATH"] = f"{tmp_path}:{variables['PYTHONPATH']}"
    command = [sys.executable, *([str(script)] if isinstance(way, str) else way), "serve", "support.server_tasks"]
    with subprocess.Popen(command, env=variables, stderr=subprocess.PIPE) as started:
        try:
            wait_until(there.exists, 20, "it is being imported")
            started.send_signal(signal.SIGHUP)
            started.send_signal(number)
            assert started.wait(20) == code
            assert started.stderr is not None
            assert started.stderr.read() == b""
        finally:
            started.kill()


@pytest.mark.parametrize(
    "arguments", [["-c", ASKS, "serve"], ["-c", ASKS, "greentask", "serve"], ["other.py", "serve"]]
)
def test_no_other_program_is_taken_for_it(tmp_path: Path, arguments: list[str]) -> None:
    (tmp_path / "other.py").write_text(ASKS)
    command = [sys.executable, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=tmp_path, timeout=60)
    assert (done.stdout, done.stderr) == ("True\n", "")
