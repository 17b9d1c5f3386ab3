"""What the server's log says of tasks that fail."""

import json
import logging
import os
import signal
import subprocess

import pytest

from greentask.server.failures import FailureLog
from greentask.tasks.middleware import CallInfo
from support.programs import greentask, program

pytestmark = pytest.mark.once

SERVE = ("-m", "greentask", "serve", "support.shop", "--listen", "127.0.0.1:0", "--processes", "1")


def log_of(*calls: tuple[str, ...], options: tuple[str, ...] = ()) -> str:
    with program(*SERVE, *options) as (line, server):
        address = next(word for word in line.split() if word.startswith("tcp://"))
        for call in calls:
            greentask("call", *call, "--server", address)
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=20)
    return err


def test_a_task_that_fails_is_logged_on_one_line() -> None:
    log = log_of(("fail", "text=no\nstock \x1b[31m"))
    assert log.count("\n") == 1
    assert 'task fail failed: {"type":"ValueError","message":"no\\nstock \\u001b[31m"}' in log


def test_a_traceback_follows_with_debug_and_forges_no_line() -> None:
    log = log_of(("fail", "text=no\n2026-01-01 stock \x1b[31m"), options=("--debug",))
    begun = log.index("task fail failed: ")
    first, *stack = log[begun:].splitlines()
    assert first == 'task fail failed: {"type":"ValueError","message":"no\\n2026-01-01 stock \\u001b[31m"}'
    end = next((number for number, line in enumerate(stack) if not line.startswith("    ")), len(stack))
    assert stack[0] == "    Traceback (most recent call last):"
    assert any(line.endswith(", in fail") for line in stack[:end])
    assert stack[end - 2 : end] == ["    ValueError: no", "    2026-01-01 stock \\x1b[31m"]


def test_a_process_that_dies_is_logged() -> None:
    log = log_of(("die",))
    assert "was killed by signal 9 (SIGKILL)" in log


def test_a_durable_task_is_logged_by_its_id(caplog: pytest.LogCaptureFixture) -> None:
    call = CallInfo("pay", "1M89", None, "queue", "server", None, 0.0, {}, outcome="failed")
    with caplog.at_level(logging.INFO):
        FailureLog().call_failed(call._replace(error={"type": "ValueError", "message": "no", "retry": True}))
        FailureLog().call_failed(call._replace(error={"type": "Retry", "message": "tried again later", "retry": 60.0}))
        FailureLog().call_failed(call._replace(peer="1.2.3.4:5", error={"type": "Retry", "message": "later"}))
    assert caplog.messages == [
        'task pay 1M89 failed: {"type":"ValueError","message":"no"}',
        "task pay 1M89 asks to be tried again: tried again later",
        'task pay failed: {"type":"Retry","message":"later"}',  # a call, which nobody tries again
    ]


def test_what_did_not_run_or_ended_well_is_not() -> None:
    assert log_of(("add", "a=1"), ("add", "x=1"), ("nothing",)) == ""


def test_batches_are_logged_too() -> None:
    with program(*SERVE) as (line, server):
        port = int(line.split("tcp://127.0.0.1:")[1].split()[0])
        call = json.dumps({"id": 1, "function": "fail", "batch": [["one"], ["two"]]})
        script = f"exec 3<>/dev/tcp/127.0.0.1/{port}; echo '{call}' >&3; head -n 3 <&3"
        subprocess.run(["bash", "-c", script], check=True, capture_output=True, timeout=20, env=os.environ)
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=20)
    assert err.count("task fail failed: ") == 2
