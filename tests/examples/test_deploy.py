"""examples/deploy: that what the unit and the image run is there, and works as they say."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from greentask.server.limits import DEFAULT_DRAIN
from support.parts import require
from support.programs import ROOT, greentask, program
from support.proofs import secret_file
from support.servers import serving

pytestmark = pytest.mark.once

FOLDER = ROOT / "examples" / "deploy"


def options(text: str) -> set[str]:
    return set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", text))


def test_what_the_unit_runs_is_there() -> None:
    unit = (FOLDER / "greentask.service").read_text()
    commands = re.findall(r"^Exec\w+=/opt/greentask/bin/greentask (\w+) (.*)$", unit, re.MULTILINE)
    assert [command for command, _ in commands] == ["serve", "reload"]
    for command, arguments in commands:
        assert options(arguments) <= options(greentask(command, "--help").stdout)


def test_what_the_image_runs_is_there() -> None:
    file = (FOLDER / "Dockerfile").read_text()
    entrypoint, command = (
        json.loads(re.findall(rf"^{name} (\[.*\])$", file, re.MULTILINE)[0]) for name in ("ENTRYPOINT", "CMD")
    )
    assert entrypoint == ["greentask"]
    assert options(" ".join(command)) <= options(greentask(command[0], "--help").stdout)
    [health] = re.findall(r"HEALTHCHECK .* CMD (\[.*\])$", file, re.MULTILINE)
    assert options(health) <= options(greentask("call", "--help").stdout)


def test_the_tasks_are_served_with_a_secret_as_there(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 4)
    secret.chmod(0o600)
    with serving("--secret-file", str(secret), apps=["tasks"], cwd=FOLDER) as server:
        done = greentask("call", "squares", "n=10", "--server", server.address, GREENTASK_SECRET_FILE=str(secret))
        assert done.stdout == "285\n"


def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    require(shutil.which("systemd-analyze") is not None, "systemd-analyze is not installed")
    for name in ("greentask.service", "greentask.socket"):
        text = (FOLDER / name).read_text().replace("/opt/greentask/bin/greentask", "/bin/true")
        (tmp_path / name).write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", *map(str, sorted(tmp_path.iterdir()))], capture_output=True, text=True, timeout=60
    )
    complaints = [line for line in done.stderr.splitlines() if "greentask" in line]
    assert complaints == []


@pytest.mark.slow
def test_the_unit_starts_and_reloads_with_its_own_commands(tmp_path: Path) -> None:
    secret_file(tmp_path).rename(tmp_path / "secret")
    unit = dict(re.findall(r"^(\w+)=(.*)$", (FOLDER / "greentask.service").read_text(), re.MULTILINE))
    assert float(unit["TimeoutStopSec"]) >= DEFAULT_DRAIN + 10
    start = unit["ExecStart"].replace("${CREDENTIALS_DIRECTORY}", str(tmp_path))
    _, *start_arguments = start.replace("$OPTIONS", "--listen 127.0.0.1:0").split()
    with program("-m", "greentask", *start_arguments, cwd=FOLDER) as (line, started):
        assert "serves 3 tasks" in line
        _, *reload = unit["ExecReload"].replace("$MAINPID", str(started.pid)).split()
        done = greentask(*reload)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.slow
def test_the_image_serves_and_its_health_check_proves_the_secret(tmp_path: Path) -> None:
    file, ours = (FOLDER / "Dockerfile").read_text(), str(secret_file(tmp_path))
    [variable] = re.findall(r"GREENTASK_SECRET_FILE=(\S+)", file)
    [command] = re.findall(r"^CMD (\[.*\])$", file, re.MULTILINE)
    assert variable in command
    command = command.replace(variable, ours).replace("0.0.0.0:12345", "127.0.0.1:0")
    [health] = re.findall(r"HEALTHCHECK .* CMD (\[.*\])$", file, re.MULTILINE)
    _, *check = json.loads(health)
    with program("-m", "greentask", *json.loads(command), cwd=FOLDER) as (line, _):
        server = next(word for word in line.split() if word.startswith("tcp://"))
        done = greentask(*check, GREENTASK_URL=server, GREENTASK_SECRET_FILE=ours)
        assert (done.returncode, done.stdout) == (0, '"pong"\n'), done.stderr
        assert greentask(*check, GREENTASK_URL=server, GREENTASK_SECRET_FILE="").returncode == 4


@pytest.mark.parametrize(
    "name", ["greentask.service", "greentask.socket", "Dockerfile", "tasks.py", "requirements.txt"]
)
def test_the_files_of_the_readme_are_there(name: str) -> None:
    assert (FOLDER / name).is_file()
    assert name in (FOLDER / "README.md").read_text()
