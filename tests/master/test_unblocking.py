"""What a master does about who has the lock of its queue and gets nowhere."""

import logging
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import gevent
import pytest

from greentask.master.channel import ChannelError
from greentask.master.unblocking import _is_stopped, _look_into, unblock
from greentask.queue.byhand import QueueFile
from greentask.queue.stalls import Stalls
from support.queues import holding_lock
from support.waiting import wait_until

LEASE = 0.1


class FakeFront:
    """A front that has the lock, with a channel that answers or doesn't."""

    number = 7

    def __init__(self, process: "subprocess.Popen[bytes]", *, answers: bool, is_ready: bool = True) -> None:
        self.is_ready = is_ready
        self.process = process
        self.pid = process.pid
        self.answers = answers
        self.asked = 0

    def ask(self, what: str, *, within: float) -> Any:
        self.asked += 1
        if not self.answers:
            raise ChannelError(f"no answer to {what!r}")

    def kill(self) -> None:
        self.process.kill()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    with QueueFile(tmp_path / "tasks.db", make=True) as queue:
        return Path(queue.path)


@pytest.fixture(autouse=True)
def quick_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("greentask.master.unblocking.TICK", 0.05)


def look_after(path: Path, *fronts: Any) -> Any:
    return gevent.spawn(unblock, str(path), LEASE, lambda: list(fronts))


def asked_before_it_was_killed(path: Path, lock: str, stopped: bool, why: str, log: pytest.LogCaptureFixture) -> int:
    """How often a front that held the queue's lock was asked whether it lives; the log says why it was killed."""
    with holding_lock(path, lock) as process:
        if stopped:
            process.send_signal(signal.SIGSTOP)
        front = FakeFront(process, answers=stopped)
        looks = look_after(path, front)
        wait_until(lambda: process.poll() is not None)
        looks.kill()
    assert f"front 7 (process {process.pid}) {why} while it wrote to queue" in log.text
    return front.asked


@pytest.mark.parametrize("lock", ["line", "sqlite"])
def test_a_front_that_answers_nothing_is_killed(path: Path, lock: str, caplog: pytest.LogCaptureFixture) -> None:
    assert asked_before_it_was_killed(path, lock, False, "has answered nothing", caplog) == 1


def test_a_front_that_is_stopped_is_killed_without_being_asked(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    assert asked_before_it_was_killed(path, "both", True, "was stopped", caplog) == 0


def test_a_front_that_answers_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with holding_lock(path) as process:
        front = FakeFront(process, answers=True)
        looks = look_after(path, front)
        wait_until(lambda: "is its disk slow?" in caplog.text)
        looks.kill()
        assert process.poll() is None
    assert [record.levelno for record in caplog.records] == [logging.WARNING]


def test_a_front_that_starts_has_its_own_limit(path: Path) -> None:
    with holding_lock(path) as process:
        front = FakeFront(process, answers=False, is_ready=False)
        stalls = Stalls(str(path), time.monotonic)
        _look_into(stalls, str(path), LEASE, [front])  # type: ignore[list-item]
        assert (process.poll(), front.asked) == (None, 0)
        process.send_signal(signal.SIGSTOP)
        wait_until(lambda: _is_stopped(process.pid))
        _look_into(stalls, str(path), LEASE, [front])  # type: ignore[list-item]
        assert process.wait(20) == -signal.SIGKILL


def test_a_process_of_others_is_told_of_and_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with holding_lock(path) as process, subprocess.Popen(["sleep", "60"]) as ours:
        process.send_signal(signal.SIGSTOP)
        looks = look_after(path, FakeFront(ours, answers=False))
        wait_until(lambda: f"let it go on (kill -CONT {process.pid}), or end it" in caplog.text)
        looks.kill()
        assert (process.poll(), ours.poll()) == (None, None)
        ours.kill()
    assert f"process {process.pid} (python" in caplog.text
