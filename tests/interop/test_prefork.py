"""A client that was used before other people's servers forked: uWSGI's and Celery's processes have their own links.

And a pool's processes run Python where the program is uWSGI.
"""

import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.request import urlopen

import pytest

from support.parts import require
from support.programs import environment
from support.servers import RunningServer, free_port, serving, wait_until

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving() as running:
        yield running


WSGI = """
import os
from greentask import Client, Pool
client = Client(os.environ["SERVER"], timeout=10)
pool = Pool(1)
assert client.call("add", 1) == 1  # in the master, before it forks
def application(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"%d %d" % (os.getpid(), pool.submit(abs, -client.call("add", 1, 2)).result(timeout=20))]
"""


def test_uwsgi(server: RunningServer, tmp_path: Path) -> None:
    uwsgi = shutil.which("uwsgi", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]]))
    require(uwsgi, "needs uWSGI (pip install pyuwsgi)")
    (tmp_path / "app.py").write_text(WSGI, encoding="utf-8")
    port = free_port()
    flags = ["--master", "--processes", "2", "--enable-threads", "--need-app", "--die-on-term", "--wsgi-file", "app.py"]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(
            [str(uwsgi), *flags, "--http-socket", f"127.0.0.1:{port}", "--virtualenv", sys.prefix],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env=environment(SERVER=server.address),
        )
    try:
        wait_until(lambda: answers(port), f"uWSGI serves: {(tmp_path / 'log').read_text()}")
        said = [urlopen(f"http://127.0.0.1:{port}/", timeout=20).read().split() for _ in range(40)]
        assert {number for _, number in said} == {b"3"}
        wait_until(lambda: len({ask(port) for _ in range(10)}) == 2, "both processes have answered")
    finally:
        running.send_signal(signal.SIGTERM)
        running.wait(20)


def answers(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def ask(port: int) -> bytes:
    """Which process answers."""
    pid: bytes = urlopen(f"http://127.0.0.1:{port}/", timeout=20).read().split()[0]
    return pid


CELERY = """
import os
from celery import Celery
from greentask import Client
app = Celery("app", broker="filesystem://", backend="file://" + os.environ["FOLDER"])
folder = os.environ["FOLDER"]
app.conf.broker_transport_options = {
    "data_folder_in": folder, "data_folder_out": folder, "control_folder": folder + "/control"
}
client = Client(os.environ["SERVER"], timeout=10)
if "worker" in os.sys.argv:
    assert client.call("add", 1) == 1  # in the worker's main process, before it forks
@app.task
def add(a, b):
    return os.getpid(), client.call("add", a, b)
"""


def test_celerys_prefork_pool(server: RunningServer, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(CELERY, encoding="utf-8")
    variables = environment(SERVER=server.address, FOLDER=str(tmp_path / "broker"))
    (tmp_path / "broker" / "control").mkdir(parents=True)
    flags = ["--pool", "prefork", "--concurrency", "2", "--without-gossip", "--without-mingle", "--without-heartbeat"]
    with (tmp_path / "log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "app", "worker", *flags],
            cwd=tmp_path,
            stdout=log,
            stderr=log,
            env=variables,
        )
    try:
        program = "from app import add; print([add.delay(n, 1).get(timeout=50)[1] for n in range(20)])"
        done = subprocess.run(
            [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=90, env=variables
        )
        assert done.stdout.strip() == str(list(range(1, 21))), done.stderr + (tmp_path / "log").read_text()
    finally:
        worker.send_signal(signal.SIGTERM)
        worker.wait(30)
