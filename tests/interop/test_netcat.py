"""The protocol as a shell script speaks it: with netcat, and nothing else."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.parts import require
from support.servers import RunningServer, serving

pytestmark = pytest.mark.interop


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    require(shutil.which("nc"), "needs netcat-openbsd (nc)")
    folder = tmp_path_factory.mktemp("netcat")
    with serving("--max-line", "100000", listen=["127.0.0.1:0", f"unix://{folder}/socket"]) as server:
        yield server


def nc(server: RunningServer, lines: str, *, unix: bool = False) -> list[Any]:
    """What `nc -N` prints for these lines: it shuts down its side after them, and ends when the server closes."""
    where = ["-U", server.addresses[1].removeprefix("unix://")] if unix else ["127.0.0.1", str(server.port)]
    done = subprocess.run(["nc", "-N", *where], input=lines, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "" or done.stdout.endswith("\n")
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize("unix", [False, True])
def test_a_call(server: RunningServer, unix: bool) -> None:
    assert nc(server, '{"function":"add","args":{"a":1,"b":2}}\n', unix=unix) == [{"result": 3}]


@pytest.mark.parametrize("unix", [False, True])
def test_half_close_waits_for_slow_answers(server: RunningServer, unix: bool) -> None:
    lines = (
        '{"function":"nap","args":[0.5]}\n{"function":"nap_in_process","args":[0.3]}\n{"function":"add","args":[1]}\n'
    )
    assert nc(server, lines, unix=unix) == [{"result": 0.5}, {"result": 0.3}, {"result": 1}]


def test_lines_of_windows(server: RunningServer) -> None:
    assert nc(server, '{"function":"add","args":[1]}\r\n\r\n{"function":"add","args":[2]}\r\n') == [
        {"result": 1},
        {"result": 2},
    ]


def test_errors(server: RunningServer) -> None:
    replies = nc(server, 'hello\n{"function":"ad"}\n{"function":"add"}\n{"function":"fail","id":7}\n')
    assert sorted(reply["error"]["type"] for reply in replies) == [
        "InvalidArguments",
        "InvalidMessage",
        "UnknownTask",
        "ValueError",
    ]


def test_a_batch(server: RunningServer) -> None:
    replies = nc(server, '{"id":1,"function":"add","batch":[[1,2],[3,4]]}\n')
    assert sorted(replies[:2], key=lambda reply: int(reply["index"])) == [
        {"id": 1, "index": 0, "result": 3},
        {"id": 1, "index": 1, "result": 7},
    ]
    assert replies[2:] == [{"id": 1, "result": {"done": 2, "failed": 0}}]


def test_progress_and_a_stream(server: RunningServer) -> None:
    assert nc(server, '{"id":1,"function":"advance","args":[2],"progress":true}\n') == [
        {"id": 1, "progress": {"done": 1, "total": 2}},
        {"id": 1, "progress": {"done": 2, "total": 2}},
        {"id": 1, "result": 2},
    ]
    assert nc(server, '{"id":1,"function":"count","args":[2],"stream":10}\n') == [
        {"id": 1, "item": 0},
        {"id": 1, "item": 1},
        {"id": 1, "result": {"items": 2}},
    ]


def test_a_stream_that_nobody_can_grant_more_ends(server: RunningServer) -> None:
    *items, last = nc(server, '{"id":1,"function":"count","args":[1000],"stream":true}\n')
    assert [reply["item"] for reply in items] == list(range(64))
    assert last["error"]["type"] == "Cancelled"


def test_a_line_that_is_too_long(server: RunningServer) -> None:
    (reply,) = nc(server, "x" * 5_000_000)
    assert reply["error"]["type"] == "LineTooLong"


def test_a_large_answer(server: RunningServer) -> None:
    (reply,) = nc(server, '{"function":"large","args":[3000000]}\n')
    assert reply == {"result": "x" * 3_000_000}


def test_a_file_of_calls(server: RunningServer, tmp_path: Path) -> None:
    """More than the kernel's buffers hold, both ways: netcat reads and writes by turns."""
    lines = "".join(f'{{"function":"echo","args":["{"x" * 100}{number}"]}}\n' for number in range(20_000))
    assert nc(server, lines) == [{"result": f"{'x' * 100}{number}"} for number in range(20_000)]
