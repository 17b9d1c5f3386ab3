"""Who has a queue's lock, as a server says that has no master: one in a program of one's own."""

import signal
import subprocess
import sys
from concurrent import futures
from contextlib import ExitStack
from pathlib import Path

import pytest

from greentask.errors import ConfigurationError, QueueError
from greentask.queue.byhand import QueueFile
from greentask.queue.sqlite import SQLiteQueue
from support.programs import environment, program
from support.queue_calls import outcome
from support.queues import holding_lock, message
from support.servers import connect, wait_until

SERVER = """
import sys
from greentask import Server, TaskQueue
from support.durable_tasks import add

server = Server([add], listen=["127.0.0.1:0"], queue=TaskQueue(sys.argv[1], lease=2))
server.start()
print(server.addresses[0], flush=True)
server.serve_forever()
"""


@pytest.mark.slow
@pytest.mark.parametrize("lock", ["line", "sqlite"])
def test_a_server_without_a_master_says_who_it_waits_for(tmp_path: Path, lock: str) -> None:
    path, source = tmp_path / "tasks.db", f"from gevent import monkey; monkey.patch_all()\n{SERVER}"
    with program("-c", source, str(path)) as (address, server), connect(address) as peer:
        assert server.stderr is not None
        with holding_lock(path, lock) as holder:
            holder.send_signal(signal.SIGSTOP)
            peer.send({"function": "add", "args": [1], "id": 1, "enqueue": True})
            said = next(line for line in server.stderr if "lock" in line)
            assert f"process {holder.pid} (python" in said
            assert f"let it go on (kill -CONT {holder.pid}), or end it" in said
        reply = peer.hear()  # it is killed, and the kernel lets go of the lock
        assert outcome(peer, reply["result"]["task"])["result"] == 2


def test_who_can_not_write_is_told_who_has_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greentask.queue.schema._BUSY", 0.2)
    queue = SQLiteQueue(path)
    queue.open()
    try:
        with QueueFile(path) as file, holding_lock(path, "sqlite") as process:
            told = (
                rf"locked by process {process.pid} \(python.*\): let it go on \(kill -CONT {process.pid}\), or end it"
            )
            with pytest.raises(QueueError, match=told):
                queue.enqueue([message()]).result(10)
            with pytest.raises(QueueError, match=told):
                file.enqueue(message())
    finally:
        queue.close()


def test_a_server_that_starts_says_who_it_waits_for(
    path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("greentask.queue.stalls._PATIENCE", 0.1)
    QueueFile(path, make=True).close()
    queue = SQLiteQueue(path)
    with holding_lock(path, "line") as process, futures.ThreadPoolExecutor() as threads:

        def end_when_it_is_told() -> None:
            try:
                wait_until(lambda: f"locked by process {process.pid} (python" in caplog.text)
            finally:
                process.kill()

        told = threads.submit(end_when_it_is_told)
        queue.open()
        queue.close()
        told.result(10)


def test_a_server_that_can_not_start_says_who_has_the_lock(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    QueueFile(path, make=True).close()
    monkeypatch.setattr("greentask.queue.schema._BUSY", 0.2)
    with holding_lock(path, "sqlite") as process:
        told = rf"tasks.db' is locked by process {process.pid} \(python.*\): let it go on"
        with pytest.raises(ConfigurationError, match=told):
            SQLiteQueue(path).open()


def test_nothing_is_said_while_it_goes_on(path: Path) -> None:
    queue = SQLiteQueue(path)
    queue.open()
    try:
        queue.enqueue([message()]).result(10)
        assert queue.waited() == 0
        with holding_lock(path, "line") as process:
            kept = queue.enqueue([message()])
            with pytest.raises(futures.TimeoutError):  # the builtin one from Python 3.11 on
                kept.result(0.3)
            assert queue.waited() > 0.2
            process.kill()
            kept.result(10)
        assert queue.waited() == 0
    finally:
        queue.close()
    assert queue.waited() == 0


@pytest.mark.slow
def test_a_command_says_who_it_waits_for(path: Path) -> None:
    with QueueFile(path, make=True) as file, ExitStack() as stack:
        command = [sys.executable, "-m", "greentask", "queue", "pause", "--queue", file.path]
        process = stack.enter_context(holding_lock(path))
        waiting = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment())
        stack.enter_context(waiting)
        stack.callback(waiting.kill)
        assert waiting.stderr is not None
        said = waiting.stderr.readline()
        assert f"locked by process {process.pid} (python" in said
        assert waiting.poll() is None
        process.kill()
        assert waiting.wait(20) == 0
