"""Several servers behind one client: real ones, which die, drain, stall, refuse and come back."""

import json
import signal
import socket
import threading
import time
from collections import Counter
from concurrent.futures import CancelledError
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from gevent import monkey

from greentask import (
    Client,
    ConnectionLost,
    DeadlineExceeded,
    InvalidArguments,
    InvalidResult,
    Overloaded,
    Unauthenticated,
    UnknownTask,
    WorkerLost,
)
from support.peers import echoing, next_call, peer, silent
from support.proofs import secret_file
from support.servers import LineClient, RunningServer, serving, wait_until

served = partial(serving, apps=["support.server_tasks", "support.client_tasks"])


def who(client: Client, calls: int = 20) -> Counter[int]:
    return Counter(client.call("server_pid") for _ in range(calls))


def test_calls_are_shared_by_the_servers_and_by_weight(server: RunningServer, tmp_path: Path) -> None:
    one, gate = server, tmp_path / "gate"
    with served() as other:
        with Client([one.address, other.address]) as client:
            assert who(client) == {one.pid: 10, other.pid: 10}
        with Client([one.address, other.address], weights=[3, 1]) as client:
            futures = [client.submit("wait_for_file", str(gate)) for _ in range(40)]
            wait_until(lambda: one.status()["in_flight"] + other.status()["in_flight"] == 40, "all run")
            assert (one.status()["in_flight"], other.status()["in_flight"]) == (30, 10)
            gate.touch()
            assert [future.result(20) for future in futures] == ["there"] * 40


@pytest.mark.slow
def test_one_that_dies_is_left_out_and_brought_back() -> None:
    with served() as one, served() as other, Client([one.address, other.address]) as client:
        assert len(who(client)) == 2
        pid = other.pid
        other.signal_all(signal.SIGKILL)
        other.wait()
        wait_until(lambda: len(client._core.router()._links.all) == 1, "its end is noticed")
        assert who(client) == {one.pid: 20}
        with served(listen=[other.address]) as again:
            wait_until(lambda: again.pid in who(client, 4), "it gets calls again")
            assert again.pid != pid


def test_calls_that_a_stopping_server_has_not_run_go_to_the_other(server: RunningServer) -> None:
    with served() as other, Client([server.address, other.address]) as client:
        wrong: list[Exception] = []
        over = threading.Event()

        def call() -> None:
            while not over.is_set():
                try:
                    client.call("add", 1, 2)
                except Exception as error:
                    wrong.append(error)

        threads = [threading.Thread(target=call) for _ in range(8)]
        for thread in threads:
            thread.start()
        other.signal(signal.SIGTERM)
        assert other.wait() == 0
        over.set()
        for thread in threads:
            thread.join()
        assert wrong == []


def test_one_that_has_too_much_to_do_hands_its_calls_to_the_other(server: RunningServer, tmp_path: Path) -> None:
    with (
        served("--max-calls", "1") as full,
        Client(full.address) as holder,
        Client([full.address, server.address]) as client,
    ):
        held = holder.submit("mark", str(tmp_path / "runs"), 60)
        wait_until((tmp_path / "runs").exists, "it is full")
        assert who(client, 300) == {server.pid: 300}, "far more than the budget has for being refused"
        with Client(full.address) as refused, pytest.raises(Overloaded):
            refused.call("add", 1, 2)
        assert held.cancel()
        wait_until(lambda: full.pid in who(client, 2), "it gets calls again")


def test_one_that_does_not_have_the_task_yet_hands_its_calls_to_the_other(server: RunningServer) -> None:
    """Of servers to which new code is brought one after another; however many calls there are, few go twice."""
    with serving(apps=["support.server_tasks"]) as old, Client([old.address, server.address]) as client:
        assert [client.call("subtract", number, 1) for number in range(40)] == [*range(-1, 39)]
        assert list(client.map("total", range(400))) == [*range(400)]
        for _ in range(2):
            assert list(client.stream("count_and_report", 3)) == [0, 1, 2]
        with pytest.raises(UnknownTask, match="nothing_like_it"):
            client.call("nothing_like_it")


def test_one_with_other_arguments_hands_its_calls_to_the_other() -> None:
    heard: list[dict[str, Any]] = []

    def old(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            heard.append(json.loads(line))
            connection.send({"id": heard[-1]["id"], "error": {"type": "InvalidArguments", "message": "no b"}})

    with peer(old) as one, peer(echoing) as other:
        with Client([one.address, other.address]) as client:
            assert [client.call("f", number) for number in range(8)] == [*range(8)]
        assert len(heard) >= 4
        with Client(one.address) as client, pytest.raises(InvalidArguments, match="no b"):
            client.call("f", 1)


def test_a_refusal_is_told_where_the_other_server_cannot_be_reached(server: RunningServer, unused_port: int) -> None:
    with Client([server.address, f"127.0.0.1:{unused_port}"]) as client:
        for _ in range(4):
            with pytest.raises(UnknownTask):
                client.call("nothing_like_it")


def test_one_that_asks_for_a_secret_hands_its_calls_to_the_other(server: RunningServer, tmp_path: Path) -> None:
    with served("--secret-file", str(secret_file(tmp_path))) as closed:
        with Client([closed.address, server.address]) as client:
            assert who(client, 10) == {server.pid: 10}
        with Client(closed.address) as client, pytest.raises(Unauthenticated):
            client.call("add", 1, 2)


@pytest.mark.slow
def test_a_server_that_gives_no_sign_of_life_is_given_up() -> None:
    with served() as server, Client(server.address, dead_after=0.6) as client:
        assert client.call("add", 1, 2) == 3
        future = client.submit("nap", 30)
        wait_until(lambda: server.status()["in_flight"] == 1, "it runs")
        began = time.monotonic()
        server.signal_all(signal.SIGSTOP)
        try:
            error = future.exception(20)
        finally:
            server.signal_all(signal.SIGCONT)
        assert isinstance(error, ConnectionLost)
        assert "gave no sign of life for 0." in str(error)
        assert 0.3 < time.monotonic() - began < 3
        assert client.call("add", 1, 2) == 3


def test_one_that_takes_connections_and_answers_nothing_gets_no_call_again() -> None:
    """Its program was stopped, and its kernel goes on: it is back when it has answered, and not when it is reached."""
    with (
        peer(silent) as stopped,
        peer(echoing) as living,
        Client([stopped.address, living.address], dead_after=0.3) as client,
    ):
        lost = 0
        until = time.monotonic() + 30
        while len(stopped.connections) < 3:
            assert time.monotonic() < until
            try:
                assert client.call("f", 1) == 1
            except ConnectionLost:
                lost += 1
            time.sleep(0.005)
        assert lost == 1


def test_one_that_is_slow_but_alive_is_not_given_up(server: RunningServer) -> None:
    with Client(server.address, dead_after=0.5) as client:
        assert client.call("nap", 1.2) == 1.2


def test_one_that_reads_no_further_for_now_is_not_given_up() -> None:
    """A connection is full, and what asks for a sign of life is behind calls that wait for their turn."""
    with served("--max-in-flight", "2", "--dead-after", "1") as full, Client(full.address, dead_after=0.6) as client:
        futures = [client.submit("nap", 1.0) for _ in range(4)]
        assert [future.result(20) for future in futures] == [1.0] * 4


def test_one_that_takes_its_time_for_a_large_call_is_not_given_up() -> None:
    def slowly(connection: LineClient) -> None:
        sock = connection.socket
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        while data := sock.recv(256 * 1024):
            time.sleep(0.03)
            if data.endswith(b"\n"):
                connection.send({"id": 1, "result": "taken"})

    with peer(slowly) as server, Client(server.address, dead_after=0.4) as client:
        began = time.monotonic()
        assert client.call("f", "x" * 8_000_000) == "taken"
        assert time.monotonic() - began > 0.6, "longer than it may be silent"


def test_an_answer_that_is_too_long_and_comes_slowly_is_not_taken_for_silence() -> None:
    def slowly(connection: LineClient) -> None:
        answered, long = connection.hear(), connection.hear()
        connection.send_bytes(b'{"id":%d,"result":"%b' % (long["id"], b"x" * 2000))  # and that is its error
        stop = time.monotonic() + 1.0
        while time.monotonic() < stop:
            connection.send_bytes(b"x")
            time.sleep(0.02)
        connection.send_bytes(b'"}\n')
        connection.send({"id": answered["id"], "result": "all the same"})
        connection.hear_rest()

    with peer(slowly) as server, Client(server.address, dead_after=0.4, max_line=1000) as client:
        answered, long = client.submit("short"), client.submit("long")
        with pytest.raises(InvalidResult):
            long.result(20)
        assert answered.result(20) == "all the same"


def test_one_that_stops_taking_a_large_call_is_given_up() -> None:
    over = threading.Event()

    def stops(connection: LineClient) -> None:
        connection.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 64 * 1024)
        connection.socket.recv(256 * 1024)
        over.wait(20)

    with peer(stops) as server, Client(server.address, dead_after=0.4) as client:
        with pytest.raises(ConnectionLost, match="gave no sign of life"):
            client.using(timeout=10).call("f", "x" * 12_000_000)
        over.set()


@pytest.mark.slow
def test_a_client_that_could_not_listen_itself_gives_up_nobody(server: RunningServer) -> None:
    """Something of its own held its thread for longer than a server may be silent."""
    with Client(server.address, dead_after=0.5) as client:
        assert client.call("add", 1, 2) == 3
        for _ in range(3):
            future = client.submit("nap", 0.2)
            client._core.router().home.post(monkey.get_original("time", "sleep"), 1.0)
            assert future.result(20) == 0.2


def test_a_connection_without_calls_is_closed_after_a_while(server: RunningServer) -> None:
    with Client(server.address, dead_after=0.3, idle_after=0.3) as client:
        assert client.call("add", 1, 2) == 3
        wait_until(lambda: server.status()["connections"] == 0, "it is closed")
        assert client.call("add", 1, 2) == 3


def test_hundreds_of_calls_in_flight_are_spread_over_a_few_connections(server: RunningServer) -> None:
    wait_until(lambda: server.status()["connections"] == 0, "no other client is connected")
    with Client(server.address) as client:
        assert client.call("add", 1, 2) == 3
        futures = [client.submit("nap", 0.5) for _ in range(1800)]
        assert {future.result(30) for future in futures} == {0.5}
        assert 2 <= server.status()["connections"] <= 4


# ---- What may run twice, and what may not


def test_who_cancels_or_runs_out_of_time_is_not_held_up_by_a_full_connection(tmp_path: Path) -> None:
    """The server reads no cancellation behind the call for which it has no room."""
    with served("--max-in-flight", "2", "--drain-timeout", "0") as full, Client(full.address) as client:
        naps = [client.submit("mark", str(tmp_path / "runs"), 60) for _ in range(3)]
        wait_until(lambda: (tmp_path / "runs").exists() and full.status()["in_flight"] == 2, "it is full")
        began = time.monotonic()
        assert all(nap.cancel() for nap in naps)
        with pytest.raises(CancelledError):
            naps[0].result()
        assert time.monotonic() - began < 0.2
        with pytest.raises(DeadlineExceeded):
            client.using(timeout=0.3).call("add", 1, 2)
        assert time.monotonic() - began < 2
        assert len(client._core.router()._links.all) == 1
        assert [client.using(timeout=20).call("add", number, 2) for number in range(5)] == [*range(2, 7)]
        assert len(client._core.router()._links.all) == 2
        assert full.status()["in_flight"] == 2, "and these run on"


def test_what_was_sent_is_sent_again_only_where_that_does_no_harm(tmp_path: Path) -> None:
    def die(connection: object) -> None:
        connection.line()  # type: ignore[attr-defined]

    with peer(die) as dying, peer(echoing) as living:
        with Client(dying.address) as client, pytest.raises(ConnectionLost) as caught:
            client.call("f", 1)
        assert caught.value.sent is True
        with Client([dying.address, living.address]) as client:
            careful = client.using(idempotent=True)
            assert [careful.call("f", number) for number in range(4)] == [0, 1, 2, 3]


def test_an_idempotent_call_outlives_its_process(server: RunningServer, tmp_path: Path) -> None:
    with Client(server.address) as client:
        with pytest.raises(WorkerLost):
            client.call("die_once", str(tmp_path / "first"))
        assert client.using(idempotent=True).call("die_once", str(tmp_path / "second")) == "alive"


def test_an_idempotent_call_is_sent_again_to_the_only_server_there_is() -> None:
    def hang_up_twice(connection: LineClient) -> None:
        if len(server.connections) > 2:
            echoing(connection)
        else:
            connection.line()

    with peer(hang_up_twice) as server, Client(server.address) as client:
        assert client.using(idempotent=True).call("f", 7) == 7


def test_a_call_that_ends_its_servers_is_not_sent_for_ever() -> None:
    heard: list[bytes | None] = []

    def hang_up(connection: LineClient) -> None:
        heard.append(next_call(connection))

    with peer(hang_up) as one, peer(hang_up) as other, Client([one.address, other.address]) as client:
        with pytest.raises(ConnectionLost) as caught:
            client.using(idempotent=True).call("f", 1)
        assert caught.value.sent is True
        assert sum(line is not None for line in heard) == 4, "once, and three times again"


@pytest.mark.slow
def test_retries_are_a_tenth_of_the_calls_at_most() -> None:
    calls: list[bytes] = []

    def hang_up(connection: LineClient) -> None:
        if (line := next_call(connection)) is not None:
            calls.append(line)

    with peer(hang_up) as one, peer(hang_up) as other:
        with Client([one.address, other.address], timeout=10).using(idempotent=True) as client:
            for _ in range(60):
                with pytest.raises(ConnectionLost):
                    client.call("f", 1)
        assert 60 <= len(calls) <= 60 + 10 + 6, "calls, the reserve, and a tenth"


# ---- Deadlines travel


def test_a_task_passes_on_what_is_left_of_its_time(server: RunningServer) -> None:
    with Client(server.address) as client:
        address = server.address
        left = client.using(timeout=5).call("ask_remaining", address)
        assert 4 < left < 5
        assert client.call("ask_remaining", address) is None
        began = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            client.using(timeout=0.3).call("call_nap", address, 30)
        assert time.monotonic() - began < 5
        wait_until(lambda: server.status()["in_flight"] == 0, "the inner call has ended as well")
