"""`greentask call` and `greentask tasks`, run as a script would, against a real server."""

import io
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from unittest import mock

import pytest

from greentask.cli import main
from support.programs import environment, greentask, program

pytestmark = pytest.mark.once

SERVE = ("-m", "greentask", "serve", "support.shop", "--listen", "127.0.0.1:0", "--processes", "1")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with program(*SERVE) as (line, _):
        yield next(word for word in line.split() if word.startswith("tcp://"))


@pytest.fixture
def call(server: str) -> object:
    def run(*arguments: str, input: str | None = None) -> "subprocess.CompletedProcess[str]":
        return greentask("call", *arguments, input=input, GREENTASK_URL=server)

    return run


# ---- Arguments and results


@pytest.mark.parametrize(
    ("arguments", "input"),
    [
        (("a=1", "b=2"), None),
        (("--json", '{"a": 1, "b": 2}'), None),
        (("--json", "[1, 2]"), None),
        (("--stdin",), '{"a": 1, "b": 2}\n'),
    ],
)
def test_arguments_come_as_words_json_or_standard_input(call, arguments, input) -> None:  # type: ignore[no-untyped-def]
    done = call("add", *arguments, input=input)
    assert (done.returncode, done.stdout, done.stderr) == (0, "3\n", "")


def test_a_value_is_json_where_it_can_be(call) -> None:  # type: ignore[no-untyped-def]
    done = call("kinds", "a=1", "b=1.5", "c=true", "d=null", "e=[1]", 'f="1"', "g=hello", "h=", "i=a=b", "from=x")
    assert json.loads(done.stdout) == {
        "a": "int",
        "b": "float",
        "c": "bool",
        "d": "NoneType",
        "e": "list",
        "f": "str",
        "g": "str",
        "h": "str",
        "i": "str",
        "from": "str",
    }


def test_text_is_printed_as_json_and_readable(call) -> None:  # type: ignore[no-untyped-def]
    assert call("accent").stdout == '"tâche terminée"\n'


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("add", "1"), "no KEY=VALUE"),
        (("add", "=1"), "no KEY=VALUE"),
        (("add", "a=1", "a=2"), "given twice"),
        (("add", "a=1", "--json", "{}"), "in one way"),
        (("add", "--json", "{"), "not JSON"),
        (("add", "--json", "3"), "must be a JSON object"),
        (("add", "--timeout", "0"), "timeout"),
        ((), "NAME"),
        (("add", "--server", "nonsense"), "nonsense"),
    ],
)
def test_wrong_usage_exits_with_2(arguments: tuple[str, ...], part: str) -> None:
    done = command_here("call", *arguments)
    assert done.returncode == 2
    assert part in done.stderr
    assert "Traceback" not in done.stderr


def command_here(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run `greentask ARGUMENTS` in this process: for what doesn't depend on its being one of its own."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["greentask", *arguments]),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    code = ended.value.code or 0
    assert isinstance(code, int)
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


# ---- Exit codes


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (("fail", "text=no stock"), 1, "ValueError: no stock"),
        (("ad", "a=1"), 4, "UnknownTask: no task is named 'ad'; did you mean add?"),
        (("add", "c=1"), 4, "InvalidArguments: add(a: int, b: int = 0)"),
        (("nap", "seconds=5", "--timeout", "0.1"), 5, "DeadlineExceeded: the time ran out while the task ran"),
        (("die",), 6, "WorkerLost: the process that ran die was killed by signal 9 (SIGKILL)"),
    ],
)
def test_what_went_wrong_is_one_line_and_an_exit_code(call, arguments, code, said) -> None:  # type: ignore[no-untyped-def]
    done = call(*arguments)
    assert done.returncode == code
    assert done.stdout == ""
    assert done.stderr.startswith(f"greentask: {said}")
    assert done.stderr.count("\n") == 1


def test_no_server_is_3_and_names_the_address() -> None:
    done = greentask("call", "add", "a=1", "--server", "127.0.0.1:1")
    assert done.returncode == 3
    assert "tcp://127.0.0.1:1" in done.stderr
    assert "is a server running there?" in done.stderr


def test_ctrl_c_cancels_the_call(server: str) -> None:
    began = time.monotonic()
    waiting = subprocess.Popen(
        [sys.executable, "-m", "greentask", "call", "nap", "seconds=30", "--server", server],
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
    )
    while in_flight(server) < 2:  # the nap, and this question
        assert time.monotonic() - began < 20
    waiting.send_signal(signal.SIGINT)
    _, err = waiting.communicate(timeout=10)
    assert waiting.returncode == 130
    assert "Traceback" not in err
    while in_flight(server) > 1:
        assert time.monotonic() - began < 20, "the nap goes on"


def in_flight(server: str) -> int:
    done = greentask("call", "greentask.status", GREENTASK_URL=server)
    return int(json.loads(done.stdout)["in_flight"])


# ---- Progress and listing


def test_progress_is_shown_on_stderr(call) -> None:  # type: ignore[no-untyped-def]
    done = call("count", "to=30", "--progress")
    assert done.stdout == "30\n"
    assert "30/30" in done.stderr
    assert "counting" in done.stderr


def test_tasks_lists_what_a_server_offers(server: str) -> None:
    done = greentask("tasks", "--server", server)
    assert done.returncode == 0
    lines = [line.split("  ") for line in done.stdout.splitlines()]
    rows = {row[0].strip(): [cell.strip() for cell in row[1:] if cell.strip()] for row in lines}
    assert rows["add(a: int, b: int = 0) -> int"] == ["a greenlet", "Add two numbers."]
    assert rows["report(year: int) -> int"] == ["a process", "60 s", "Compute for a while."]


def test_tasks_as_json(server: str) -> None:
    tasks = {task["name"]: task for task in json.loads(greentask("tasks", "--json", "--server", server).stdout)}
    assert tasks["report"]["timeout"] == 60
    assert tasks["report"]["process"] is True
    assert tasks["add"]["doc"] == "Add two numbers."


# ---- The command itself


def test_help_names_every_command() -> None:
    done = greentask("--help")
    assert done.returncode == 0
    for name in ("serve", "call", "tasks", "demo"):
        assert f"\n  {name} " in done.stdout
        assert command_here(name, "--help").returncode == 0


def test_the_exit_codes_are_in_the_help() -> None:
    assert "6  the process that ran the task died" in command_here("call", "--help").stdout


def test_a_command_that_is_none() -> None:
    done = command_here("sreve")
    assert done.returncode == 2
    assert "sreve" in done.stderr


def test_the_version() -> None:
    import greentask as package

    assert command_here("--version").stdout == f"greentask, version {package.__version__}\n"
