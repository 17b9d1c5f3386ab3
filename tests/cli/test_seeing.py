"""`greentask status`, `top`, `dump` and `restart`, and what `greentask.status` has for them."""

import json
import os
import re
import select
import signal
import subprocess
import sys
from typing import Any

import pytest

from support.programs import environment, greentask
from support.servers import RunningServer, module_server, serving, wait_until

pytestmark = pytest.mark.once

server = module_server("--max-hold", "0.2", apps=["support.seen_tasks"])
logging = module_server("--hide-arguments", "--log-calls", apps=["support.seen_tasks"])


def detail(server: RunningServer) -> dict[str, Any]:
    status: dict[str, Any] = server.call("greentask.status", detail=True)
    return status


def run(server: RunningServer, *arguments: str) -> str:
    done = greentask(*arguments, "--server", server.address, COLUMNS="200")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_status_counts_calls_and_how_long_they_took(server: RunningServer) -> None:
    with server.connect() as peer:
        for seconds in (0.0, 0.0, 0.05):
            peer.call("nap", seconds)
        peer.ask({"function": "fail"})
        peer.ask({"function": "nap", "args": []})
        peer.ask({"id": 1, "function": "nap", "args": [30], "timeout": 0.05})
    status = detail(server)
    outcomes = status["tasks_called"]["nap"]["outcomes"]
    assert outcomes["done"] >= 3
    assert outcomes["refused"] >= 1
    assert outcomes["out of time"] >= 1
    assert status["tasks_called"]["fail"]["outcomes"]["failed"] >= 1
    assert sum(status["tasks_called"]["nap"]["histogram"]) >= 4, "those that did not run took no time"
    assert status["calls"]["done"] >= 3


def test_running_calls_are_shown_with_age_and_arguments_cut_short(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send({"id": "mine", "function": "nap", "args": {"seconds": 30, "note": "x" * 10_000}})
        [call] = wait_until(lambda: [one for one in detail(server)["running"] if one["id"] == "mine"], "it runs")
        assert (call["task"], call["id"], call["group"]) == ("nap", "mine", None)
        assert call["peer"] == f"127.0.0.1:{peer.socket.getsockname()[1]}"
        assert len(call["args"]) < 200
        assert "'seconds': 30" in call["args"]
        shown = run(server, "status")
        assert "mine" in shown
        assert "Busiest connections" in shown
        peer.ask({"id": "x", "function": "greentask.cancel", "args": {"id": "mine"}})


def test_arguments_can_be_hidden(logging: RunningServer) -> None:
    with logging.connect() as peer:
        peer.send({"id": 1, "function": "nap", "args": {"seconds": 30, "note": "secret"}})
        wait_until(lambda: detail(logging)["running"], "it runs")
        assert "secret" not in json.dumps(detail(logging))


def test_processes_are_shown_with_what_they_do(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send({"id": "it", "function": "compute", "args": [60]})
        [busy] = wait_until(
            lambda: [one for one in detail(server)["task_processes"] if one["state"] == "busy"], "one is busy"
        )
        assert busy["task"] == "compute"
        assert busy["group"] == "default"
        assert busy["memory"] > 5_000_000
        assert "busy with compute:" in run(server, "dump")
        peer.send({"id": "x", "function": "greentask.cancel", "args": {"id": "it"}})
        assert {message["id"] for message in peer.hear_all(2)} == {"it", "x"}


def test_p4_a_stopped_process_is_shown_as_such(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send({"id": 1, "function": "stop_me"})
        [stopped] = wait_until(
            lambda: [one for one in detail(server)["task_processes"] if one["state"] == "stopped"], "one is stopped"
        )
        assert "it doesn't answer: it is stopped, or busy in C" in run(server, "dump")
        os.kill(stopped["pid"], signal.SIGCONT)
        assert peer.hear() == {"id": 1, "result": None}


def test_g1_a_task_that_holds_the_loop_is_named_with_its_stack(server: RunningServer) -> None:
    before = detail(server)["loop"]["held"]
    assert server.call("compute_in_the_loop", 0.8) == 0.8
    wait_until(lambda: "the loop goes on, after it was held for 0." in server.output(), "it is told")
    output = server.output()
    assert "by the task compute_in_the_loop, which runs in a greenlet, and all other calls wait" in output
    assert "declare it process=True" in output
    assert "while time.perf_counter() < until" in output
    status = detail(server)
    assert status["loop"]["held"] == before + 1
    assert status["loop"]["longest"] > 0.5


def test_a_loop_that_only_waits_is_not_held(server: RunningServer) -> None:
    before = detail(server)["loop"]["held"]
    assert server.call("nap", 0.7) == 0.7
    assert detail(server)["loop"]["held"] == before


def test_status_as_a_table_and_as_json(server: RunningServer) -> None:
    shown = run(server, "status")
    assert server.address in shown
    assert "Task processes" in shown
    [front] = server.fronts()
    assert re.search(rf"Fronts.*\b{front.pid} +│ 0 +│ serves .* [\d.]+ MB ", shown, re.DOTALL)
    status = json.loads(run(server, "status", "--json"))
    assert status["listen"] == [server.address]
    assert status["fronts"][0]["memory"] == status["memory"] > 10_000_000
    assert status["master"]["memory"] > 10_000_000
    assert {"tasks_called", "task_processes", "busiest", "calls", "loop", "master"} <= set(status)


def test_top_prints_its_looks_where_there_is_no_terminal(server: RunningServer) -> None:
    server.call("nap", 0.0)  # where nothing has been called there is no table of tasks
    shown = run(server, "top", "--every", "0.2", "--times", "2")
    assert shown.count("a second") >= 4
    assert shown.count("Task processes") == 2


@pytest.mark.slow
def test_top_says_when_the_server_does_not_answer_and_goes_on_when_it_does() -> None:
    command = [sys.executable, "-m", "greentask", "top", "--every", "0.2"]
    with serving(apps=["support.seen_tasks"]) as server:
        ours, theirs = os.openpty()
        with subprocess.Popen(
            [*command, "--server", server.address],
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=subprocess.PIPE,
            env=environment(TERM="xterm"),
        ) as top:
            os.close(theirs)
            seen = Screen(ours)
            try:
                seen.wait_for("serves")
                server.signal_all(signal.SIGSTOP)
                seen.wait_for("no answer for")
                server.signal_all(signal.SIGCONT)
                server.call("nap", 0.0)
                seen.wait_for("nap")
                top.send_signal(signal.SIGINT)
                assert top.wait(10) == 130
            finally:
                top.kill()
                os.close(ours)


class Screen:
    """What has been written to a terminal, piece by piece."""

    def __init__(self, fd: int) -> None:
        self._fd = fd

    def wait_for(self, text: str) -> None:
        """Wait until the text is written; what was read before does not count."""
        seen = ""
        while text not in seen:
            assert select.select([self._fd], [], [], 20)[0], f"{text!r} has not come: {seen[-2000:]}"
            seen += os.read(self._fd, 65536).decode("utf-8", "replace")


def test_what_has_no_server_ends_with_3() -> None:
    for command in ("status", "top"):
        assert greentask(command, "--server", "127.0.0.1:1").returncode == 3


def test_names_and_arguments_do_not_command_a_terminal(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send({"id": "\x1b[31m\nforged", "function": "nap", "args": {"seconds": 30, "note": "\x1b[2J"}})
        wait_until(lambda: detail(server)["running"], "it runs")
        for shown in (run(server, "status"), run(server, "dump")):
            assert "\x1b" not in shown
            assert "\nforged" not in shown


def test_a_dump_has_greenlets_and_processes(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send({"id": 1, "function": "nap", "args": [30]})
        wait_until(lambda: detail(server)["running"], "it runs")
        text = run(server, "dump")
    assert "==== front 0, process" in text
    assert "runs the task nap:" in text  # one or several: others may still nap
    assert "in nap\n    time.sleep(seconds)" in text
    assert text.count("task process ") == 2
    assert "waits for a call" in text
    # Those that have been there since its start, of which the garbage collector knows nothing any more.
    assert "in wait_stopped" in text
    assert "master/channel.py" in text


def test_a_group_is_restarted_while_it_serves(server: RunningServer) -> None:
    before = set(server.status()["processes"]["pids"])
    assert run(server, "restart", "default") == "the processes of default are replaced\n"
    wait_until(lambda: not before & set(server.status()["processes"]["pids"]), "all are new")
    done = greentask("restart", "nope", "--server", server.address)
    assert done.returncode == 1
    assert "there is no group of processes 'nope'" in done.stderr


# ---- Logs


def test_calls_are_logged_as_json_where_that_is_wanted() -> None:
    with serving("--log-format", "json", "--log-calls", apps=["support.seen_tasks"]) as server:
        with server.connect() as peer:
            peer.ask({"id": "a\nb\x1b[31m", "function": "nap", "args": [0.01]})
            peer.ask({"id": 2, "function": "fail", "args": ["no\nstock"]})
            port = peer.socket.getsockname()[1]
        wait_until(lambda: '"id": 2' in server.output(), "it is logged")
        output = server.output()
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    first, second = (one for one in lines if "task" in one)
    assert (first["task"], first["id"], first["outcome"], first["group"]) == ("nap", "a\nb\x1b[31m", "done", None)
    assert first["peer"] == f"127.0.0.1:{port}"
    assert 0.01 <= first["duration"] < 5
    assert first["level"] == "info"
    assert (second["task"], second["outcome"], second["error"]) == ("fail", "failed", "ValueError")
    assert second["message"].endswith(': {"type":"ValueError","message":"no\\nstock"}')
    assert "\x1b" not in output


def test_calls_are_logged_as_text_on_a_line_each(logging: RunningServer) -> None:
    with logging.connect() as peer:
        peer.ask({"id": "a\nb\x1b[31m", "function": "nap", "args": [0.0]})
    wait_until(lambda: "in a greenlet: done in 0.0" in logging.output(), "it is logged")
    assert "call of nap, id a\\nb\\x1b[31m, by 127.0.0.1:" in logging.output()


def test_the_log_of_calls_says_of_what_a_task_failed() -> None:
    with serving("--log-calls", "--debug", apps=["support.seen_tasks"]) as server:
        with server.connect() as peer:
            peer.ask({"function": "fail", "args": ["no\n2026-01-01 stock"]})
            peer.ask({"function": "nap", "args": {"x": 1}})
        wait_until(lambda: "call of nap" in server.output(), "it is logged")
        failed, *stack, refused = server.output()[server.output().index("call of fail") :].splitlines()
    assert failed.endswith(' s: {"type":"ValueError","message":"no\\n2026-01-01 stock"}')
    assert stack[0] == "    Traceback (most recent call last):"
    assert stack[-2:] == ["    ValueError: no", "    2026-01-01 stock"]
    assert ": refused in 0." in refused
    assert '{"type":"InvalidArguments","message":"nap(' in refused


@pytest.mark.parametrize(
    "options", [(), pytest.param(("--log-format", "json"), marks=pytest.mark.slow)], ids=["text", "json"]
)
def test_o5_a_full_disk_under_the_log_does_not_stop_it(options: tuple[str, ...]) -> None:
    with serving("--log-file", "/dev/full", "--log-calls", *options, apps=["support.seen_tasks"]) as server:
        for _ in range(3):
            assert server.call("nap", 0.0) == 0.0
        assert "Traceback" not in server.output()
