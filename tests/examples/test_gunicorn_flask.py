"""The Flask example under a real gunicorn, with each kind of worker."""

import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from support.programs import ROOT, environment
from support.waiting import wait_until

FOLDER = ROOT / "examples" / "gunicorn_flask"


class Gunicorn:
    def __init__(self, process: "subprocess.Popen[bytes]", port: int, log: Path) -> None:
        self.process, self.port, self._log = process, port, log

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=20) as answer:
            return str(answer.read().decode())

    def log(self) -> str:
        return self._log.read_text()

    def task_server(self) -> int:
        found = re.search(r"Task server at unix://\S+ \(pid: (\d+)\)", self.log())
        assert found, self.log()
        return int(found[1])

    def answers(self) -> bool:
        if self.process.poll() is not None:
            pytest.fail(self.log())
        try:
            return self.get("/") == "quick"
        except OSError:
            return False


@contextmanager
def gunicorn(tmp_path: Path, *flags: str, **files: str) -> Iterator[Gunicorn]:
    """Run it in a copy of the example, in which modules may have other text."""
    folder = tmp_path / "example"
    shutil.copytree(FOLDER, folder)
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
    log = tmp_path / "log"
    command = [sys.executable, "-m", "gunicorn", "app:app", "--bind", f"127.0.0.1:{port}", "--no-control-socket"]
    with log.open("wb") as file:
        process = subprocess.Popen([*command, *flags], cwd=folder, env=environment(), stdout=file, stderr=file)
    running = Gunicorn(process, port, log)
    try:
        wait_until(running.answers, within=30)
        yield running
    finally:
        process.terminate()
        try:
            process.wait(40)
        finally:
            process.kill()


def is_gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}") or "\nState:\tZ" in Path(f"/proc/{pid}/status").read_text()


KINDS = pytest.mark.parametrize(
    "flags", [(), ("--preload",), ("-k", "gthread", "--threads", "4"), ("-k", "sync")], ids=" ".join
)


@pytest.mark.slow
@KINDS
def test_other_routes_stay_quick_and_a_stop_loses_no_request(tmp_path: Path, flags: tuple[str, ...]) -> None:
    got: list[str] = []
    with gunicorn(tmp_path, *flags) as running:
        pid = running.task_server()
        thread = threading.Thread(target=lambda: got.append(running.get("/report")))
        thread.start()
        for _ in range(5):
            assert running.get("/") == "quick"
            assert "sent to ann" in running.get("/mail/ann")
        assert not got, "they take less time than the report"
        running.process.terminate()
        thread.join(20)
        assert "rounds" in got[0]
        assert running.process.wait(20) == 0
        assert is_gone(pid)


@pytest.mark.slow
def test_tasks_follow_a_reload_and_survive_a_worker(tmp_path: Path) -> None:
    with gunicorn(tmp_path) as running:
        assert "sent to ann" in running.get("/mail/ann")
        worker = int(re.findall(r"Booting worker with pid: (\d+)", running.log())[0])
        os.kill(worker, signal.SIGKILL)
        wait_until(lambda: running.log().count("Booting worker") > 2, within=20)
        wait_until(running.answers)
        assert "sent to ann" in running.get("/mail/ann")
        tasks = tmp_path / "example" / "tasks.py"
        tasks.write_text(tasks.read_text().replace("sent to", "posted to"))
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: "posted to ann" in running.get("/mail/ann"), within=20)


@pytest.mark.slow
def test_the_task_server_ends_with_a_killed_master(tmp_path: Path) -> None:
    with gunicorn(tmp_path) as running:
        pid = running.task_server()
        running.process.kill()
        running.process.wait()
        wait_until(lambda: is_gone(pid))


@contextmanager
def load(running: Gunicorn) -> Iterator[list[str]]:
    """Four clients that ask for mails without pause; the answers. Each request is answered, or the test fails."""
    answers: list[str] = []
    failures: list[BaseException] = []
    over = threading.Event()

    def ask() -> None:
        while not over.is_set():
            try:
                answers.append(running.get("/mail/ann"))
                assert "ann" in answers[-1]
            except (OSError, AssertionError, http.client.HTTPException) as error:
                failures.append(error)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        over.set()
        for thread in threads:
            thread.join(30)
    assert not failures
    assert answers


@pytest.mark.slow
@KINDS
def test_a_reload_under_load_loses_no_request(tmp_path: Path, flags: tuple[str, ...]) -> None:
    with gunicorn(tmp_path, *flags) as running:
        with load(running) as answers:
            tasks = tmp_path / "example" / "tasks.py"
            tasks.write_text(tasks.read_text().replace("sent to", "posted to"))
            running.process.send_signal(signal.SIGHUP)
            wait_until(lambda: answers and "posted to ann" in answers[-1], within=20)
            wait_until(lambda: running.log().count("Worker exiting") >= 2, within=20)
        assert "Traceback" not in running.log()


@pytest.mark.slow
@KINDS
def test_workers_that_are_restarted_lose_no_request(tmp_path: Path, flags: tuple[str, ...]) -> None:
    limit = ("--max-requests", "15", "--max-requests-jitter", "5")
    # gunicorn asks a worker once to end; one that has just been forked misses it, and is killed after that time.
    with gunicorn(tmp_path, *flags, *limit, "--graceful-timeout", "5") as running:
        with load(running):
            wait_until(lambda: running.log().count("Booting worker") >= 6, within=60)
        assert "Traceback" not in running.log()


POOLED = """
import os
from flask import Flask
from greentask import Pool

app, pool = Flask(__name__), Pool(1)

@app.get("/")
def index():
    return "quick"

@app.get("/process")
def process():
    return {"worker": os.getpid(), "process": pool.submit(os.getpid).result()}
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags",
    [("-k", "gevent"), ("-k", "gevent", "--preload"), ("-k", "gthread", "--threads", "2", "--preload")],
    ids=" ".join,
)
def test_a_pool_in_each_worker_needs_no_hook(tmp_path: Path, flags: tuple[str, ...]) -> None:
    """It follows a reload with its worker, and ends with it."""

    def ask() -> None:
        found = json.loads(running.get("/process"))
        assert processes.setdefault(found["worker"], found["process"]) == found["process"], "its own"

    processes: dict[int, int] = {}
    (tmp_path / "none.py").write_text("")
    with gunicorn(tmp_path, "-w", "2", "-c", str(tmp_path / "none.py"), *flags, app=POOLED) as running:
        wait_until(lambda: ask() or len(processes) == 2, within=20)
        assert len(set(processes.values())) == 2
        before = dict(processes)
        running.process.send_signal(signal.SIGHUP)
        wait_until(lambda: all(map(is_gone, [*before, *before.values()])), within=20)
        wait_until(lambda: ask() or len(processes) > 2, within=20)
        running.process.terminate()
        assert running.process.wait(20) == 0
        wait_until(lambda: all(map(is_gone, processes.values())), within=5)
        assert "Traceback" not in running.log()


INTERRUPTED = """
import os, signal, subprocess
from greentask.contrib.gunicorn import TaskServer
from greentask.pool import linux

linux._prctl = lambda *_: None  # on other systems than Linux, nothing ends with its parent

class Popen(subprocess.Popen):
    def _execute_child(self, *args):
        super()._execute_child(*args)
        os.kill(os.getpid(), signal.SIGINT)

subprocess.Popen = Popen
on_starting = TaskServer("tasks", processes=1).on_starting
"""


def test_a_ctrl_c_in_the_moment_of_its_start_leaves_no_task_server(tmp_path: Path) -> None:
    config = tmp_path / "gunicorn.conf.py"
    config.write_text(INTERRUPTED)
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    command = [sys.executable, "-m", "gunicorn", "app:app", "--config", str(config), "--no-control-socket"]
    with (tmp_path / "log").open("wb") as log:  # a pipe would stay open with a task server that is left
        process = subprocess.Popen(
            command, cwd=FOLDER, env=environment(TMPDIR=str(temporary)), stdout=log, stderr=log, start_new_session=True
        )
    assert process.wait(40) != 0
    assert "KeyboardInterrupt" in (tmp_path / "log").read_text()
    left = [
        one
        for one in psutil.process_iter(["environ"])
        if (one.info["environ"] or {}).get("TMPDIR") == str(temporary) and one.status() != psutil.STATUS_ZOMBIE
    ]
    for one in left:
        one.kill()
    assert not left
    assert not list(temporary.iterdir())
