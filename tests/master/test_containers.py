"""`greentask serve` as a container runs it: as process 1, and with little of what a machine has."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support.namespaces import ALONE, can_unshare
from support.parts import require
from support.programs import environment
from support.servers import RunningServer, serving, wait_until

pytestmark = pytest.mark.slow

MODULE = """
import subprocess
import time
from greentask import task

@task
def nap(seconds):
    time.sleep(seconds)
    return seconds

@task
def leave():
    subprocess.run("sleep 60 >/dev/null 2>&1 &", shell=True, check=True)

@task(process=True)
def square(n):
    return n * n
"""


@contextmanager
def container(
    folder: Path, *inside: str, unset: tuple[str, ...] = ()
) -> Iterator[tuple[RunningServer, psutil.Process]]:
    """A server that is process 1 of a namespace of its own; it, and its master as it is seen from outside."""
    require(can_unshare(), "namespaces can't be made here: needs unshare(1), and root outside of most containers")
    (folder / "boxed.py").write_text(MODULE)
    without = [argument for name in unset for argument in ("-u", name)]
    with serving(apps=["boxed"], cwd=folder, inside=[*ALONE, *inside, "env", *without]) as server:
        (master,) = psutil.Process(server.process.pid).children()
        try:
            assert "(pid 1, " in server.output()
            yield server, master
        finally:
            if master.is_running():
                master.terminate()  # unshare itself heeds no SIGTERM
                server.wait()


def within(master: psutil.Process, *command: str) -> "subprocess.CompletedProcess[str]":
    """Run `greentask COMMAND` beside it."""
    enter = ["nsenter", "--target", str(master.pid), "--mount", "--pid"]
    return subprocess.run(
        [*enter, sys.executable, "-m", "greentask", *command],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment(),
    )


def test_as_process_1_it_collects_what_tasks_leave_behind(tmp_path: Path) -> None:
    with container(tmp_path) as (server, master):
        server.call("leave")
        (orphan,) = wait_until(lambda: [it for it in master.children() if it.name() == "sleep"], "it is the master's")
        orphan.kill()
        wait_until(lambda: len(master.children()) == 1, "nothing of it is left: only the front is")
        (front,) = master.children()
        front.kill()
        wait_until(lambda: front not in master.children() and len(master.children()) == 1, "there is another front")
        assert server.call("square", 3) == 9


def test_as_process_1_it_heeds_sigterm_and_drains(tmp_path: Path) -> None:
    with container(tmp_path) as (server, master):
        with server.connect() as peer:
            peer.send({"id": 1, "function": "nap", "args": [1.5]})
            wait_until(lambda: server.status()["in_flight"] == 1, "it is in flight")
            master.terminate()
            assert peer.hear() == {"id": 1, "result": 1.5}
        assert server.wait() == 0


def test_containers_that_share_a_network_are_told_what_to_do_each_for_itself(tmp_path: Path) -> None:
    with container(tmp_path) as (first, _), container(tmp_path) as (second, master):
        done = within(master, "reload", "--pid", "1")
        assert (done.returncode, done.stderr) == (0, "")
        assert [server.status()["master"]["reloads"] for server in (first, second)] == [0, 1]


def test_it_needs_no_place_to_write_to_and_no_home(tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    bare.write_text(
        "set -e\n"
        "mount -t tmpfs -o ro none /dev/shm\n"
        "for place in /tmp /var/tmp; do mount --bind $place $place; mount -o remount,bind,ro $place; done\n"
        "mount -o remount,bind,ro /\n"
        f"! touch /dev/shm/x '{tmp_path}/x' /x 2>/dev/null\n"
        'exec "$@"\n'
    )
    with container(tmp_path, "sh", str(bare), unset=("HOME", "USER", "LOGNAME", "TMPDIR")) as (server, master):
        assert "HOME" not in master.environ()
        assert server.call("square", 3) == 9
        assert within(master, "reload", "--pid", "1").returncode == 0
        assert server.call("square", 4) == 16
    assert not (tmp_path / "x").exists()
