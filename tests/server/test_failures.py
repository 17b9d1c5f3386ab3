"""What the server's log says of tasks that fail."""

import logging

import pytest

from greentask.server.failures import FailureLog
from greentask.tasks.middleware import CallInfo
from support.servers import RunningServer, module_server, serving, wait_until

pytestmark = pytest.mark.once

server = module_server(apps=["support.shop"], processes=1)

LAST = "the last of them"


def log_of(server: RunningServer, *messages: dict[str, object]) -> str:
    """What the server logs of these calls."""
    before = len(server.output())
    with server.connect() as peer:
        for message in messages:
            peer.ask(message)
        peer.ask({"function": "fail", "args": [LAST]})
    wait_until(lambda: LAST in server.output()[before:], "the last one is logged")
    log = server.output()[before:]
    return log[: log.rfind("\n", 0, log.index(LAST)) + 1]


def test_a_task_that_fails_is_logged_on_one_line(server: RunningServer) -> None:
    log = log_of(server, {"function": "fail", "args": {"text": "no\nstock \x1b[31m"}})
    assert log.count("\n") == 1
    assert 'task fail failed: {"type":"ValueError","message":"no\\nstock \\u001b[31m"}' in log


def test_a_traceback_follows_with_debug_and_forges_no_line() -> None:
    with serving("--debug", apps=["support.shop:fail"]) as server:
        log = log_of(server, {"function": "fail", "args": {"text": "no\n2026-01-01 stock \x1b[31m"}})
    begun = log.index("task fail failed: ")
    first, *stack = log[begun:].splitlines()
    assert first == 'task fail failed: {"type":"ValueError","message":"no\\n2026-01-01 stock \\u001b[31m"}'
    end = next((number for number, line in enumerate(stack) if not line.startswith("    ")), len(stack))
    assert stack[0] == "    Traceback (most recent call last):"
    assert any(line.endswith(", in fail") for line in stack[:end])
    assert stack[end - 2 : end] == ["    ValueError: no", "    2026-01-01 stock \\x1b[31m"]


def test_a_process_that_dies_is_logged(server: RunningServer) -> None:
    before = len(server.output())
    with server.connect() as peer:
        assert peer.ask({"function": "die"})["error"]["type"] == "WorkerLost"
    wait_until(lambda: "was killed by signal 9 (SIGKILL)" in server.output()[before:], "it is logged")


def test_a_durable_task_is_logged_by_its_id(caplog: pytest.LogCaptureFixture) -> None:
    call = CallInfo("pay", "1M89", None, "queue", "server", None, 0.0, {}, outcome="failed")
    with caplog.at_level(logging.INFO):
        FailureLog().call_failed(call._replace(error={"type": "ValueError", "message": "no", "retry": True}))
        asks = {"type": "Retry", "message": "tried again later", "retry": {"delay": 60.0}}
        FailureLog().call_failed(call._replace(error=asks))
        FailureLog().call_failed(call._replace(peer="1.2.3.4:5", error={"type": "Retry", "message": "later"}))
    assert caplog.messages == [
        'task pay 1M89 failed: {"type":"ValueError","message":"no"}',
        "task pay 1M89 asks to be tried again: tried again later",
        'task pay failed: {"type":"Retry","message":"later"}',  # a call, which nobody tries again
    ]


def test_what_did_not_run_or_ended_well_is_not(server: RunningServer) -> None:
    calls = {"function": "add", "args": [1]}, {"function": "add", "args": {"x": 1}}, {"function": "nothing"}
    assert log_of(server, *calls) == ""


def test_batches_are_logged_too(server: RunningServer) -> None:
    before = len(server.output())
    with server.connect() as peer:
        peer.send({"id": 1, "function": "fail", "batch": [["one"], ["two"]]})
        assert peer.hear_all(3)[-1] == {"id": 1, "result": {"done": 0, "failed": 2}}
    wait_until(lambda: server.output()[before:].count("task fail failed: ") == 2, "both are logged")
