"""``progress=True``: a bar on a real terminal, and nothing where there is none."""

import os
import pty
import subprocess
import sys

import pytest

from greentask import Client
from support.programs import environment, run_source
from support.servers import RunningServer

PROGRAM = """
import sys
from greentask import Client
with Client(sys.argv[1]) as client:
    if sys.argv[2] == "map":
        print(len(list(client.map("nap", [0.05] * 6, progress=True, window=2))))
    elif sys.argv[2] == "call":
        print(client.using(progress=True).call("advance", 3, 0.15))
    else:
        print(len(list(client.using(progress=True).stream(sys.argv[2], 4))))
"""


def on_a_terminal(*arguments: str) -> str:
    """What a program shows on its terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment(TERM="xterm", COLUMNS="100"),
    ) as program:
        os.close(theirs)
        shown = bytearray()
        try:
            while data := os.read(ours, 65536):
                shown += data
        except OSError:
            pass  # the program has closed its end
        finally:
            os.close(ours)
    assert program.returncode == 0, shown.decode()
    return shown.decode()


def test_a_map_has_a_bar(server: RunningServer) -> None:
    shown = on_a_terminal(server.address, "map")
    assert "nap" in shown
    assert "0/6" in shown
    assert "6/6" in shown
    assert "━" in shown


def test_a_call_has_a_bar_of_its_reports(server: RunningServer) -> None:
    shown = on_a_terminal(server.address, "call")
    assert "advance" in shown
    assert "2/3" in shown
    assert "3/3" in shown


def test_a_stream_has_a_bar_of_its_items(server: RunningServer) -> None:
    shown = on_a_terminal(server.address, "count")
    assert "0/?" in shown
    assert "4/?" in shown


def test_or_of_what_its_task_reports(server: RunningServer) -> None:
    shown = on_a_terminal(server.address, "count_and_report")
    assert "3/4" in shown
    assert "4/4" not in shown  # which its items would be


@pytest.mark.parametrize("what", ["map", "call", "count"])
def test_without_a_terminal_nothing_is_drawn(server: RunningServer, what: str) -> None:
    run_source(PROGRAM, server.address, what)  # which fails where anything is on stderr


def test_leaving_a_map_with_a_bar_cancels_its_calls(client: Client) -> None:
    results = client.map("overlap", ["bar"] * 5, [0.0, 30, 30, 30, 30], window=3, progress=True)
    next(results)
    results.close()  # type: ignore[attr-defined]
    # and the fixture waits until the server is idle


def test_a_future_has_no_bar(client: Client) -> None:
    with pytest.raises(TypeError, match="give submit a function"):
        client.using(progress=True).submit("echo")
