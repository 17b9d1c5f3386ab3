"""The hooks for gunicorn, run as gunicorn's master runs them; the whole is in tests/examples/test_gunicorn_flask.py."""

import logging
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest
from gunicorn.config import Config

from greentask import Client, ConfigurationError, ConnectionLost
from greentask.contrib import gunicorn
from greentask.contrib.gunicorn import TaskServer
from support.documents import blocks
from support.forking import run_in_child
from support.parts import require
from support.waiting import wait_until

TASKS = """
import os
from greentask import task

@task
def version():
    return "first"

@task(process=True)
def pid():
    return os.getpid()
"""

# In place of Python: writes its user and groups into the file that it is named last.
SAYS_WHO_IT_IS = """#!/bin/sh
for file; do :; done
(id -u; id -G) > "$file.new"
mv "$file.new" "$file"
exec sleep 60
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tasks' module, whose name is `hooked`, where the task server finds it."""
    path = tmp_path / "hooked.py"
    path.write_text(TASKS)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH")])))
    return path


@pytest.fixture
def arbiter() -> SimpleNamespace:
    """What the hooks get of gunicorn's master: its configuration and its log."""
    return SimpleNamespace(cfg=Config(), log=logging.getLogger("gunicorn.error"))


@pytest.fixture(autouse=True)
def nothing_left(monkeypatch: pytest.MonkeyPatch, arbiter: SimpleNamespace) -> Iterator[None]:
    monkeypatch.setenv("GREENTASK_URL", "tcp://127.0.0.1:1")  # which TaskServer sets
    yield
    if gunicorn._running is not None:
        TaskServer("hooked").on_exit(arbiter)


def call(function: str) -> Any:
    with Client(os.environ["GREENTASK_URL"]) as client:
        return client.using(timeout=20).call(function)


def running() -> "subprocess.Popen[bytes]":
    assert gunicorn._running is not None
    return gunicorn._running.process


@pytest.mark.usefixtures("module")
def test_it_starts_with_gunicorn_and_ends_with_it(arbiter: SimpleNamespace) -> None:
    tasks = TaskServer("hooked", processes=3, options=["--max-tasks", "1000"])
    tasks.on_starting(arbiter)
    folder = Path(os.environ["GREENTASK_URL"].removeprefix("unix://")).parent
    assert call("version") == "first"
    assert call("greentask.status")["processes"]["size"] == 3
    assert folder.stat().st_mode & 0o777 == 0o700
    process, below = running(), psutil.Process(running().pid).children(recursive=True)
    tasks.on_exit(arbiter)
    assert process.returncode == 0
    assert not any(one.is_running() for one in below)
    assert not folder.exists()


@pytest.mark.usefixtures("module")
def test_an_application_that_is_imported_before_it_starts_knows_where_it_will_be(arbiter: SimpleNamespace) -> None:
    """As it is with --preload."""
    tasks = TaskServer("hooked", processes=1)
    with Client(os.environ["GREENTASK_URL"]) as early:
        with pytest.raises(ConnectionLost):
            early.call("version")
        tasks.on_starting(arbiter)
        assert early.call("version") == "first"


@pytest.mark.slow
def test_a_reload_brings_new_code_and_keeps_the_old_where_that_is_broken(
    module: Path, arbiter: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    TaskServer("hooked", processes=1).on_starting(arbiter)
    process = running()
    module.write_text(TASKS.replace("first", "second"))
    TaskServer("hooked", processes=1).on_reload(arbiter)  # gunicorn has run its configuration file anew
    assert call("version") == "second"
    module.write_text("1 / 0")
    TaskServer("hooked", processes=2).on_reload(arbiter)
    assert call("version") == "second"
    assert "options have changed" in caplog.text
    assert running() is process


@pytest.mark.slow
@pytest.mark.usefixtures("module")
def test_one_that_was_killed_starts_again_at_a_reload(
    arbiter: SimpleNamespace, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = TaskServer("hooked", processes=1)
    tasks.on_starting(arbiter)
    folder = Path(os.environ["GREENTASK_URL"].removeprefix("unix://")).parent
    running().kill()
    running().wait(20)
    tasks.on_reload(arbiter)
    assert call("version") == "first"
    assert "is gone; starting it again" in caplog.text
    assert not folder.exists()


@pytest.mark.parametrize(
    ("source", "options", "why"),
    [
        ("raise RuntimeError('broken')", {}, "could not start"),
        ("import time; time.sleep(60)", {"timeout": 0.5}, "0.5 s"),
    ],
    ids=["broken", "slow"],
)
def test_gunicorn_does_not_start_where_it_does_not(
    module: Path, arbiter: SimpleNamespace, source: str, options: dict[str, Any], why: str
) -> None:
    module.write_text(source)
    with pytest.raises(ConfigurationError, match=why):
        TaskServer("hooked", **options).on_starting(arbiter)
    assert gunicorn._running is None
    wait_until(lambda: not any("hooked" in " ".join(one.cmdline()) for one in children()))


def test_a_ctrl_c_while_it_starts_leaves_nothing(module: Path, arbiter: SimpleNamespace, tmp_path: Path) -> None:
    starts = tmp_path / "starts"
    module.write_text(f"open({str(starts)!r}, 'w').close(); import time; time.sleep(60)")
    tasks = TaskServer("hooked")
    folder = Path(gunicorn._folder())

    def interrupt() -> None:
        wait_until(starts.exists, 30)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    typist = threading.Thread(target=interrupt)
    try:
        typist.start()
        with pytest.raises(KeyboardInterrupt):
            tasks.on_starting(arbiter)
    finally:
        typist.join()
        signal.signal(signal.SIGINT, before)
    assert gunicorn._running is None
    assert not folder.exists()
    wait_until(lambda: not any("hooked" in " ".join(one.cmdline()) for one in children()))


def test_one_whose_gunicorn_is_gone_before_it_begins_does_not_begin() -> None:
    """The kernel tells of a parent's end only who has asked before it."""
    assert run_in_child(lambda: gunicorn._die_with(os.getppid())) == 0
    assert run_in_child(lambda: gunicorn._die_with(os.getpid())) == 1  # that is not its parent


@pytest.mark.usefixtures("module")
def test_a_gunicorn_that_ends_without_its_hooks_leaves_nothing() -> None:
    """As where its address is taken."""
    program = (
        "import logging, sys\n"
        "from types import SimpleNamespace\n"
        "from gunicorn.config import Config\n"
        "from greentask.contrib import gunicorn\n"
        "arbiter = SimpleNamespace(cfg=Config(), log=logging.getLogger())\n"
        "gunicorn.TaskServer('hooked', processes=1).on_starting(arbiter)\n"
        "print(gunicorn._running.process.pid, gunicorn._running.folder)\n"
        "sys.exit(1)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1, done.stderr
    pid, folder = done.stdout.splitlines()[-1].split()
    assert not psutil.pid_exists(int(pid))
    assert not os.path.exists(folder)


def children() -> list[psutil.Process]:
    return [one for one in psutil.Process().children(recursive=True) if one.status() != psutil.STATUS_ZOMBIE]


def test_it_needs_tasks() -> None:
    with pytest.raises(ConfigurationError, match=r'TaskServer\("shop.tasks"\)'):
        TaskServer()


@pytest.mark.usefixtures("module")
def test_a_worker_s_copy_of_it_stops_and_reloads_nothing(arbiter: SimpleNamespace) -> None:
    """gunicorn forks its workers, and one that ends runs hooks, too."""
    tasks = TaskServer("hooked", processes=1)
    tasks.on_starting(arbiter)

    def end() -> None:
        tasks.on_exit(arbiter)
        tasks.on_reload(arbiter)

    assert run_in_child(end) == 0
    assert running().poll() is None
    assert call("version") == "first"


def test_hooks_before_it_has_started_do_nothing(arbiter: SimpleNamespace) -> None:
    tasks = TaskServer("hooked")
    tasks.on_reload(arbiter)
    tasks.on_exit(arbiter)
    assert gunicorn._running is None


def test_tasks_run_as_the_user_that_gunicorn_s_workers_run_as(
    monkeypatch: pytest.MonkeyPatch, arbiter: SimpleNamespace
) -> None:
    require(os.geteuid() == 0, "only root can start something as another user")
    with tempfile.TemporaryDirectory() as folder:  # pytest's, and this Python itself, may be root's alone
        os.chmod(folder, 0o755)
        program = Path(folder, "program")
        program.write_text(SAYS_WHO_IT_IS)
        program.chmod(0o755)
        monkeypatch.setattr(sys, "executable", str(program))
        arbiter.cfg.set("user", 65534)
        arbiter.cfg.set("group", 65533)
        TaskServer("hooked").on_starting(arbiter)
        ready = Path(os.environ["GREENTASK_URL"].removeprefix("unix://")).parent / "ready"
        assert ready.read_text().split() == ["65534", "65533"]
        running().kill()


@pytest.mark.slow
@pytest.mark.usefixtures("module")
def test_one_that_does_not_end_is_killed(arbiter: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    tasks = TaskServer("hooked", processes=1, drain_timeout=0.1)
    tasks.on_starting(arbiter)
    process = running()
    process.send_signal(signal.SIGSTOP)
    tasks.on_exit(arbiter)
    assert process.returncode == -signal.SIGKILL
    assert "did not end in time, and is killed" in caplog.text


@pytest.mark.slow
@pytest.mark.usefixtures("module")
def test_a_reload_that_takes_too_long_is_left_alone(arbiter: SimpleNamespace, caplog: pytest.LogCaptureFixture) -> None:
    tasks = TaskServer("hooked", processes=1, timeout=20)
    tasks.on_starting(arbiter)
    running().send_signal(signal.SIGSTOP)
    TaskServer("hooked", processes=1, timeout=0.5).on_reload(arbiter)
    assert "did not reload within 0.5 s" in caplog.text
    running().send_signal(signal.SIGCONT)
    assert call("version") == "first"


def test_the_document_s_configuration_has_the_hooks(arbiter: SimpleNamespace) -> None:
    configuration, own_hook = blocks("docs/gunicorn.md", "python")
    names: dict[str, Any] = {}
    exec(configuration, names)
    settings = Config().settings
    for hook in ("on_starting", "on_reload", "on_exit"):
        assert settings[hook].get().__name__ == names[hook].__name__
    exec(own_hook, names)
    names["on_exit"](arbiter)  # of nothing that has started


def test_the_hooks_bring_no_hub_into_gunicorn_s_master() -> None:
    program = "import greentask.contrib.gunicorn, sys; sys.exit('gevent' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0
