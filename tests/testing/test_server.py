"""A real server for tests: where it is, what it leaves behind, what is told where it can't start."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from greentask import Client, ConfigurationError, ConnectionLost, WorkerLost, configure, default_client
from greentask.testing import LocalServer, serving
from support import tested_tasks as tasks
from support.programs import environment
from support.waiting import wait_until

APP = "support.tested_tasks"


def test_tasks_are_called_on_it_and_then_as_before(server: LocalServer) -> None:
    before, url = default_client(), os.environ.get("GREENTASK_URL")
    with server.used() as calls:
        assert tasks.add.call(1, 2) == 3
        assert calls.server is server
        program = "from support.tested_tasks import add; print(add.call(3, 4))"  # another process finds it, too
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=environment())
        assert done.stdout == "7\n", done.stderr
        assert len(calls.calls) == 1
    assert default_client() is before
    assert os.environ.get("GREENTASK_URL") == url


def test_clients_that_were_given_no_address_follow_it(
    server: LocalServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    elsewhere, secret = "127.0.0.1:1", tmp_path / "secret"
    secret.write_text("0123456789abcdef" * 2)
    secret.chmod(0o600)
    monkeypatch.setenv("GREENTASK_URL", elsewhere)
    monkeypatch.setenv("GREENTASK_SECRET_FILE", str(secret))
    client, other = Client(weights=[2]), Client(elsewhere)
    before = [str(address) for address in client.addresses]
    with server.used() as calls:
        assert client.call("add", 1, 2) == 3
        assert client.using(timeout=5).call("add", 2, 2) == 4
        assert Client().call("add", 3, 2) == 5
        assert len(calls.calls_to("add")) == 3
        assert str(client.addresses[0]) == server.address
        with pytest.raises(ConnectionLost):  # it was told where
            other.call("add", 1, 2)
    assert [str(address) for address in client.addresses] == before
    client.close()


def test_its_tasks_call_each_other_there(server: LocalServer) -> None:
    configure("127.0.0.1:1")  # not where the program's own calls would go
    with server.used():
        assert tasks.nested.call() == [3, "nested"]


def test_modules_that_are_importable_here_are_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import os\nfrom greentask import task\n@task(process=True)\ndef die():\n    os.kill(os.getpid(), 9)\n"
    (tmp_path / "found_here_only.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    with serving("found_here_only", options=["--max-tasks", "5"]) as calls:
        pid = calls.server.pid
        with pytest.raises(WorkerLost):  # a real one
            default_client().call("die")
        assert "serves 1 task" in calls.server.output()
    assert not psutil.pid_exists(pid)


def test_what_keeps_it_from_starting_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"(?s)could not start.*no module 'support.nowhere'") as told:
        LocalServer("support.nowhere")
    shown = [repr(entry.locals["self"]) for entry in told.traceback if "self" in entry.locals]  # as pytest shows them
    assert shown
    assert all(one.startswith("<LocalServer that does not serve (pid ") for one in shown)
    with pytest.raises(ConfigurationError, match=r"did not serve within 0\.01 s"):
        LocalServer(APP, timeout=0.01)
    with pytest.raises(ConfigurationError, match=r"'shop\.tasks'"):
        LocalServer()


def test_it_ends_with_the_process_that_started_it() -> None:
    program = (
        "import os, time; from greentask.testing import LocalServer\n"
        f"print(LocalServer({APP!r}).pid, flush=True); time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=environment()
    ) as started:
        assert started.stdout is not None
        server = psutil.Process(int(started.stdout.readline()))
        started.send_signal(signal.SIGKILL)
    wait_until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE, what="the server's end")
