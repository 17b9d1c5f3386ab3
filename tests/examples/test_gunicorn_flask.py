"""The Flask example under a real gunicorn, with each kind of worker."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

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
def gunicorn(tmp_path: Path, *flags: str) -> Iterator[Gunicorn]:
    folder = tmp_path / "example"
    shutil.copytree(FOLDER, folder)
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


@pytest.mark.slow
@pytest.mark.parametrize(
    "flags", [(), ("--preload",), ("-k", "gthread", "--threads", "4"), ("-k", "sync")], ids=" ".join
)
def test_other_routes_stay_quick_and_a_stop_loses_no_request(tmp_path: Path, flags: tuple[str, ...]) -> None:
    got: list[str] = []
    with gunicorn(tmp_path, *flags) as running:
        pid = running.task_server()
        thread = threading.Thread(target=lambda: got.append(running.get("/report")))
        began = time.monotonic()
        thread.start()
        for _ in range(5):
            assert running.get("/") == "quick"
            assert "sent to ann" in running.get("/mail/ann")
        assert time.monotonic() - began < 1.9
        assert not got
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


@pytest.mark.slow
def test_a_reload_under_load_loses_no_request(tmp_path: Path) -> None:
    failures: list[BaseException] = []
    over = threading.Event()

    def load(running: Gunicorn) -> None:
        while not over.is_set():
            try:
                assert "ann" in running.get("/mail/ann")
            except (OSError, AssertionError) as error:
                failures.append(error)

    with gunicorn(tmp_path) as running:
        threads = [threading.Thread(target=load, args=(running,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            tasks = tmp_path / "example" / "tasks.py"
            code = tasks.read_text()
            tasks.write_text(code.replace("sent to", "posted to"))
            running.process.send_signal(signal.SIGHUP)
            wait_until(lambda: "posted to ann" in running.get("/mail/ann"), within=20)
            wait_until(lambda: running.log().count("Worker exiting") >= 2, within=20)
        finally:
            over.set()
            for thread in threads:
                thread.join(30)
        assert not failures
