"""A program that is forked from one that has imported it is none other: `support.preloaded`."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from support import preloaded
from support.parts import in_ci
from support.programs import environment, greentask
from support.servers import serving
from support.waiting import wait_until

#: Whether Python starts anew for it: it reads such a variable then.
WAYS = [pytest.param({"PYTHONNODEBUGRANGES": "1"}, id="started"), pytest.param({}, id="forked")]


@pytest.fixture
def nothing() -> Iterator[int]:
    with open(os.devnull, "r+b") as file:
        yield file.fileno()


def test_only_what_begins_alike_is_forked() -> None:
    assert preloaded.can_fork(["queue", "list"], {"GREENTASK_URL": "tcp://127.0.0.1:1"}) is not in_ci()
    assert not preloaded.can_fork(["queue", "list"], {"PYTHONPATH": "/tmp"})
    assert not preloaded.can_fork(["demo"], {})


@pytest.mark.parametrize("variables", WAYS)
def test_it_has_its_arguments_folder_environment_input_output_and_code(
    tmp_path: Path, variables: dict[str, str]
) -> None:
    where: dict[str, Any] = {"cwd": tmp_path, **variables}
    empty = '{"greentask":"queue","version":2}\n{"greentask":"end","tasks":0}\n'
    done = greentask("queue", "import", "--queue", "here.db", "--json", input=empty, **where)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert (tmp_path / "here.db").exists()
    stats = greentask("queue", "stats", "--json", GREENTASK_QUEUE="here.db", **where)
    assert (stats.returncode, stats.stderr) == (0, "")
    assert json.loads(stats.stdout)
    wrong = greentask("queue", "lst", **variables)
    assert (wrong.returncode, wrong.stdout) == (2, "")
    assert "did you mean list?" in wrong.stderr


@pytest.mark.parametrize("variables", WAYS)
def test_a_server_s_master_is_named_signalled_and_reaped(variables: dict[str, str]) -> None:
    with serving(processes=1, **variables) as server:
        master = psutil.Process(server.process.pid)
        assert " ".join(master.cmdline()).rstrip() == "greentask: master, support.server_tasks"
        assert server.process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            server.process.wait(0.01)
        server.signal(signal.SIGINT)
        assert server.wait() == 0
        assert server.process.poll() == 0
    wait_until(lambda: not master.is_running(), what="it has been reaped")


def test_who_was_killed_ends_with_the_signal(nothing: int) -> None:
    if in_ci():
        return
    arguments = ["serve", "support.server_tasks", "--listen", "127.0.0.1:0"]
    with preloaded.start(arguments, environment(), stdin=nothing, stdout=nothing, stderr=nothing) as started:
        started.kill()
        assert started.wait(10) == -signal.SIGKILL
        started.kill()  # does nothing to whoever has its number now
