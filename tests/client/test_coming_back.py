"""Servers that are away for a moment: calls wait for them, for so long and no longer."""

import signal
import threading
import time
from typing import Any

import pytest

from greentask import Client, ConnectionLost, DeadlineExceeded
from greentask.client import router as routers
from support.peers import deaf, echoing, peer, silent
from support.servers import serving, wait_until


def is_unlinked(client: Client) -> bool:
    return client._core.router()._links.all == []


def lost(**options: Any) -> tuple[Client, int]:
    """A client whose only server was there, and is not any more."""
    with peer(echoing) as server:
        client = Client(server.address, **options)
        assert client.call("f", 1) == 1
    wait_until(lambda: is_unlinked(client), "its end is noticed")
    return client, server.port


def test_calls_wait_for_a_server_that_was_there_a_moment_ago() -> None:
    client, port = lost()
    futures = [client.submit("f", number) for number in range(50)]
    (target,) = client._core.router()._balance.targets
    wait_until(lambda: target.failures >= 3, "some attempts")
    assert not any(future.done() for future in futures)
    with peer(echoing, port) as server, client:
        assert [future.result(5) for future in futures] == list(range(50))
        assert len(server.connections) == 1


def test_they_wait_no_longer_than_it_may_be_away_and_the_next_ones_fail_at_once() -> None:
    client, port = lost(gone_after=0.5)
    began = time.monotonic()
    with pytest.raises(ConnectionLost, match="Connection refused; is a server running there") as caught:
        client.call("f", 1)
    assert caught.value.sent is False
    assert str(caught.value).count("refused") == 1, "said once, however often it was tried"
    assert time.monotonic() - began < 0.5 + 1.5
    wait_until(lambda: time.monotonic() - began > 0.6, "it counts as gone")
    for _ in range(3):
        began = time.monotonic()
        with pytest.raises(ConnectionLost):
            client.call("f", 1)
        assert time.monotonic() - began < 4, "one attempt, after its pause of a second at most"
    with peer(echoing, port), client:
        assert client.call("f", 2) == 2


def test_0_says_that_no_call_waits() -> None:
    client, _ = lost(gone_after=0)
    began = time.monotonic()
    with pytest.raises(ConnectionLost):
        client.call("f", 1)
    assert time.monotonic() - began < 4, "by default it waits for five seconds"


def test_where_nobody_was_there_before_no_call_waits(unused_port: int) -> None:
    client = Client(f"127.0.0.1:{unused_port}", gone_after=30)
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(ConnectionLost):
            client.call("f", 1)
    assert time.monotonic() - began < 10


def test_a_call_waits_no_longer_than_it_has_time_and_is_told_why() -> None:
    client, _ = lost(timeout=0.3, gone_after=30)
    with pytest.raises(DeadlineExceeded, match=r"no connection within 0\.3 s: .*Connection refused") as caught:
        client.call("f", 1)
    assert caught.value.started is False


def test_a_call_that_is_cancelled_while_it_waits_is_never_sent() -> None:
    client, port = lost(gone_after=30)
    futures = [client.submit("f", number) for number in range(3)]
    assert futures[1].cancel()
    wait_until(lambda: len(client._core.router()._calls) == 2, "it is forgotten")
    with peer(echoing, port), client:
        assert futures[0].result(5) == 0
        assert futures[2].result(5) == 2
        assert not client._core.router()._parked


def test_closing_ends_what_waits() -> None:
    client, _ = lost(gone_after=30)
    future = client.submit("f", 1)
    began = time.monotonic()
    client.close()
    error = future.exception(5)
    assert isinstance(error, ConnectionLost)
    assert error.sent is False
    assert time.monotonic() - began < 2


def test_however_many_wait_the_server_is_tried_now_and_then_only(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[float] = []

    class Counted(routers.Link):
        def __init__(self, *arguments: Any) -> None:
            opened.append(time.monotonic())
            super().__init__(*arguments)

    client, _ = lost(gone_after=1.5)
    monkeypatch.setattr(routers, "Link", Counted)
    futures = [client.submit("f", number) for number in range(500)]
    assert {type(future.exception(20)) for future in futures} == {ConnectionLost}
    assert 3 <= len(opened) < 25, opened


def test_an_idempotent_call_in_flight_is_sent_again_when_its_server_is_back() -> None:
    with peer(silent) as server:
        client = Client(server.address)
        future = client.using(idempotent=True).submit("f", 7)
        wait_until(lambda: server.connections, "it is sent")
    assert not future.done()
    with peer(echoing, server.port), client:
        assert future.result(10) == 7


def test_who_waits_for_one_that_does_not_answer_goes_to_another_that_is_back() -> None:
    """Nobody waits for the connect timeout of one while another is there."""
    with peer(echoing) as one, peer(echoing) as other:
        client = Client([one.address, other.address], connect_timeout=20, gone_after=30)
        assert [client.call("f", number) for number in range(4)] == [0, 1, 2, 3]
    wait_until(lambda: is_unlinked(client), "their end is noticed")
    with deaf(port=one.port):
        futures = [client.submit("f", number) for number in range(20)]
        router = client._core.router()
        wait_until(lambda: any(link.target.address.port == one.port for link in router._links.all), "one is tried")
        with peer(echoing, other.port):
            assert [future.result(10) for future in futures] == list(range(20))
            client.close()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL], ids=["SIGTERM", "SIGKILL"])
def test_a_restart_costs_no_call_but_those_that_were_running_when_it_was_killed(how: signal.Signals) -> None:
    over = threading.Event()
    wrong: list[Exception] = []
    done = [0] * 4

    def call(number: int) -> None:
        while not over.is_set():
            try:
                assert client.call("add", number, 1) == number + 1
                done[number] += 1
            except Exception as error:
                wrong.append(error)

    with serving() as server:
        client = Client(server.address, timeout=20, gone_after=20)
        threads = [threading.Thread(target=call, args=(number,)) for number in range(4)]
        for thread in threads:
            thread.start()
        wait_until(lambda: all(done), "all are calling")
        server.signal_all(how) if how == signal.SIGKILL else server.signal(how)
        server.wait()
    done[:] = [0] * 4
    with serving(listen=[server.address]), client:
        wait_until(lambda: all(done), "all are calling again")
        over.set()
        for thread in threads:
            thread.join(20)
    if how == signal.SIGTERM:
        assert wrong == []
    else:
        assert all(isinstance(error, ConnectionLost) and error.sent for error in wrong)
        assert len(wrong) <= 4
