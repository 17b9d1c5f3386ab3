"""Calls that don't begin while their peer has much to read: of any kind, and whatever becomes of the peer."""

import select
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from greentask import Client
from support.pools import wait_for_lines
from support.servers import LineClient, RunningServer, serving, wait_until

MOST = 1_000_000  # bytes that a peer may have to read
SIZE = 100_000  # of one result
CALLS = 100

APP = """
import itertools
import time

from greentask import task


def put_down(file):
    with open(file, "a") as lines:
        print("began", file=lines, flush=True)


@task
def here(size, file):
    put_down(file)
    return "x" * size


@task
def here_and_values(size, file):
    put_down(file)
    return list(range(size // 7))


@task
def here_and_later(size, file):
    put_down(file)
    time.sleep(0.05)
    return "x" * size


@task(max_running=2)
def in_turns(size, file):
    put_down(file)
    return "x" * size


@task(process=True)
def there(size, file):
    put_down(file)
    return "x" * size


@task(process=True, max_running=1)
def there_in_turns(size, file):
    put_down(file)
    return "x" * size
"""

KINDS = ["here", "here_and_values", "in_turns", "there", "there_in_turns"]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    folder = tmp_path_factory.mktemp("backlog")
    (folder / "mine.py").write_text(APP)
    with serving("--max-unsent", str(MOST), apps=["mine"], cwd=folder, processes=2) as server:
        yield server


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "begun").touch()
    return tmp_path / "begun"


@pytest.fixture
def slow(server: RunningServer) -> Iterator[LineClient]:
    with server.connect(receive_buffer=4096) as peer:
        yield peer


def begun(file: Path) -> int:
    return file.read_text().count("began")


def ask_for_many(peer: LineClient, function: str, file: Path, **more: Any) -> None:
    peer.send(*({"id": id, "function": function, "args": [SIZE, str(file)], **more} for id in range(CALLS)))


def wait_until_it_waits(server: RunningServer, peer: LineClient, file: Path) -> None:
    """Until nothing happens any more, and calls wait."""
    assert select.select([peer.socket], [], [], 10)[0], "it has begun"
    wait_until(server.is_at_rest, "it waits for the peer")
    assert 0 < begun(file) < CALLS * 3 // 4, "the others wait"


@pytest.mark.parametrize("function", KINDS)
def test_calls_of_a_peer_that_is_behind_wait_until_it_has_read(
    server: RunningServer, slow: LineClient, file: Path, function: str
) -> None:
    ask_for_many(slow, function, file)
    wait_until_it_waits(server, slow, file)
    assert server.call(function, 10, str(file)), "others don't wait for it"
    assert sorted(reply["id"] for reply in slow.hear_all(CALLS) if reply["result"]) == list(range(CALLS))
    assert begun(file) == CALLS + 1


def test_items_of_a_batch_wait_too(server: RunningServer, slow: LineClient, file: Path) -> None:
    slow.send({"id": 1, "function": "here", "batch": [[SIZE, str(file)]] * CALLS})
    wait_until_it_waits(server, slow, file)
    replies = slow.hear_all(CALLS + 1)
    assert replies.pop() == {"id": 1, "result": {"done": CALLS, "failed": 0}}
    assert sorted(reply["index"] for reply in replies) == list(range(CALLS))


def test_calls_of_json_rpc_wait_too(server: RunningServer, slow: LineClient, file: Path) -> None:
    calls = ({"jsonrpc": "2.0", "id": id, "method": "there", "params": [SIZE, str(file)]} for id in range(CALLS))
    slow.send(*calls)
    wait_until_it_waits(server, slow, file)
    assert sorted(reply["id"] for reply in slow.hear_all(CALLS)) == list(range(CALLS))


@pytest.mark.parametrize("function", KINDS)
def test_a_call_whose_time_is_up_while_it_waits_never_begins(
    server: RunningServer, slow: LineClient, file: Path, function: str
) -> None:
    ask_for_many(slow, function, file, timeout=1)
    wait_until_it_waits(server, slow, file)
    wait_until(lambda: server.status()["in_flight"] == 0, "all have ended")
    replies = slow.hear_all(CALLS)
    errors = [reply["error"] for reply in replies if "error" in reply]
    assert {error["type"] for error in errors} == {"DeadlineExceeded"}
    late = [error for error in errors if not error["started"]]
    assert begun(file) == CALLS - len(late)


@pytest.mark.parametrize("function", ["here", "there", "in_turns"])
def test_what_waits_for_a_peer_that_goes_runs_as_it_would_have(
    server: RunningServer, slow: LineClient, file: Path, function: str
) -> None:
    ask_for_many(slow, function, file)
    wait_until_it_waits(server, slow, file)
    slow.reset()
    wait_for_lines(file, CALLS)


def test_what_waits_for_a_peer_that_goes_is_cancelled_where_that_is_wanted(tmp_path: Path, file: Path) -> None:
    (tmp_path / "mine.py").write_text(APP)
    options = ("--max-unsent", str(MOST), "--cancel-abandoned")
    with serving(*options, apps=["mine"], cwd=tmp_path, processes=1) as server:
        for function in ("here", "there", "in_turns"):
            file.write_text("")
            with server.connect(receive_buffer=4096) as peer:
                ask_for_many(peer, function, file)
                wait_until_it_waits(server, peer, file)
                peer.reset()
            wait_until(lambda: server.status()["in_flight"] == 0, "they have ended")
            assert begun(file) < CALLS, function


def test_results_of_calls_that_have_begun_may_be_more_than_that_for_who_reads(
    server: RunningServer, slow: LineClient, file: Path
) -> None:
    ask_for_many(slow, "here_and_later", file)
    wait_for_lines(file, CALLS)
    assert len(slow.hear_all(CALLS)) == CALLS, "ten times as much as it may have unread"


@pytest.mark.parametrize("function", ["here", "here_and_later"])
def test_who_does_not_read_is_cut_off_in_time(tmp_path: Path, file: Path, function: str) -> None:
    (tmp_path / "mine.py").write_text(APP)
    options = ("--max-unsent", str(MOST), "--read-timeout", "0.5")
    with serving(*options, apps=["mine"], cwd=tmp_path, processes=1) as server:
        with server.connect(receive_buffer=4096) as deaf, server.connect(receive_buffer=4096) as slow:
            ask_for_many(deaf, function, file)
            ask_for_many(slow, function, file)
            for _ in range(CALLS):
                slow.hear()
                time.sleep(0.01)  # it takes a second, in which it always reads a little
            wait_until(lambda: server.status()["refused"]["read_timeout"] == 1, "the other one is cut off")
        assert "is closed, for it did not read what it was sent (read_timeout; 1 so far" in server.output()
        wait_until(lambda: server.status()["in_flight"] == 0, "nothing is left of it")


def test_who_does_not_read_is_cut_off_where_nothing_but_the_rest_of_a_batch_waits(tmp_path: Path, file: Path) -> None:
    (tmp_path / "mine.py").write_text(APP)
    options = ("--max-unsent", str(MOST), "--read-timeout", "0.5", "--max-in-flight", "1")
    with (
        serving(*options, apps=["mine"], cwd=tmp_path, processes=1) as server,
        server.connect(receive_buffer=4096) as deaf,
    ):
        deaf.send({"id": 1, "function": "here", "batch": [[SIZE, str(file)]] * CALLS})
        wait_until(lambda: server.status()["refused"]["read_timeout"] == 1, "it is cut off")
        wait_until(lambda: server.status()["in_flight"] == 0, "nothing is left of it")


def test_who_asks_for_little_may_leave_it_unread(tmp_path: Path, file: Path) -> None:
    (tmp_path / "mine.py").write_text(APP)
    options = ("--max-unsent", str(MOST), "--read-timeout", "0.2")
    with (
        serving(*options, apps=["mine"], cwd=tmp_path, processes=1) as server,
        server.connect(receive_buffer=4096) as peer,
    ):
        peer.send({"id": 1, "function": "here", "args": [9 * MOST // 10, str(file)]})
        wait_for_lines(file)
        time.sleep(0.6)  # three times as long
        assert len(peer.hear()["result"]) == 9 * MOST // 10
        assert peer.call("here", 1, str(file)) == "x"


def test_a_map_over_large_results_needs_no_small_window(server: RunningServer, file: Path) -> None:
    with Client(server.address) as client:
        for function in KINDS:
            results = client.map(function, [SIZE] * CALLS, [str(file)] * CALLS)
            assert sum(1 for result in results if len(result) in (SIZE, SIZE // 7)) == CALLS
