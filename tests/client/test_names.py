"""Names with several addresses: each is a server of its own, as told by a name server of the test's own."""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from greentask import Client, ConnectionLost
from support.names import named
from support.peers import Peer, peer
from support.servers import LineClient, wait_until

pytestmark = pytest.mark.once

ONE, TWO, THREE = "127.0.0.2", "127.0.0.3", "127.0.0.4"


def telling(connection: LineClient) -> None:
    """Answer each call with the address that was called, those of `hold` not at all."""
    host, _ = connection.socket.getsockname()
    while (line := connection.line()) is not None:
        call = json.loads(line)
        if call["function"] != "hold":
            connection.send({"id": call["id"], "result": host})


@contextmanager
def there(*hosts: str, port: int = 0, behave: Callable[[LineClient], None] = telling) -> Iterator[list[Peer]]:
    """A server at each of these addresses, all at the same port."""
    with ExitStack() as stack:
        peers: list[Peer] = []
        for host in hosts:
            peers.append(stack.enter_context(peer(behave, peers[0].port if peers else port, host)))
        yield peers


def who(client: Client, calls: int = 30) -> Counter[str]:
    return Counter(client.call("who") for _ in range(calls))


def test_the_addresses_of_a_name_take_turns() -> None:
    with (
        there(ONE, TWO, THREE) as peers,
        named([ONE, TWO, THREE]),
        Client(f"several.example:{peers[0].port}") as client,
    ):
        assert who(client) == {ONE: 10, TWO: 10, THREE: 10}
        assert [len(peer.connections) for peer in peers] == [1, 1, 1]


def test_each_call_goes_to_the_address_with_the_fewest_and_they_share_the_weight_of_their_name() -> None:
    heard: Counter[str] = Counter()

    def count(connection: LineClient) -> None:
        while connection.line() is not None:
            heard[connection.socket.getsockname()[0]] += 1

    with there(ONE, TWO, THREE, behave=count) as peers, named([ONE, TWO]):
        port = peers[0].port
        with Client([f"several.example:{port}", f"{THREE}:{port}"], weights=[3, 1]) as client:
            futures = [client.submit("hold") for _ in range(40)]  # they wait for the name
            wait_until(lambda: heard.total() == 40, "all are sent")
            assert heard == {ONE: 15, TWO: 15, THREE: 10}
            assert not any(future.done() for future in futures)


def test_calls_go_on_at_the_other_addresses_where_one_dies_and_come_back_to_it() -> None:
    with there(ONE) as peers, named([ONE, TWO]):
        port = peers[0].port
        with Client(f"several.example:{port}") as client:
            with there(TWO, port=port):
                assert len(who(client)) == 2
            wait_until(lambda: len(client._core.router()._links.all) == 1, "its end is noticed")
            assert who(client) == {ONE: 30}
            with there(TWO, port=port):
                wait_until(lambda: TWO in who(client, 2), "it gets calls again")
                assert client.call("who") in (ONE, TWO)


def test_an_address_that_a_name_has_no_longer_drains_away_and_a_new_one_gets_calls() -> None:
    addresses = [ONE, TWO]
    with (
        there(ONE, TWO, THREE) as peers,
        named(addresses),
        Client(f"several.example:{peers[0].port}", resolve_after=0.2, dead_after=0.6) as client,
    ):
        assert who(client) == {ONE: 15, TWO: 15}
        held = [client.submit("hold") for _ in range(2)]
        addresses[:] = [TWO, THREE]
        wait_until(lambda: client.call("who") == THREE, "it is noticed")
        assert ONE not in who(client)
        time.sleep(0.7)  # a connection that nobody uses any more would be closed
        assert [future.done() for future in held] == [False, False], "what is in flight stays where it is"
        (connection,) = peers[0].connections
        connection.send(*({"id": id, "result": "late"} for id in ids_at(client, ONE)))
        wait_until(lambda: sorted(future.done() for future in held) == [False, True], "it ends there")
        wait_until(lambda: len(client._core.router()._links.all) == 2, "it is left")
        assert ONE not in who(client)


def ids_at(client: Client, host: str) -> list[int]:
    """The calls that are in flight there."""
    calls = client._core.router()._calls.items()
    return [id for id, sent in calls if sent.link and sent.link.target.where[1][0] == host]


def test_where_a_server_was_lost_its_name_is_looked_up_before_it_is_called_again() -> None:
    """As where it comes back on another machine."""
    addresses = [ONE]
    with there(ONE) as peers, named(addresses):
        port = peers[0].port
        client = Client(f"several.example:{port}")
        assert client.call("who") == ONE
    addresses[:] = [TWO]
    with there(TWO, port=port), named(addresses), client:
        began = time.monotonic()
        assert client.call("who") == TWO
        assert time.monotonic() - began < 4


def test_what_was_known_is_better_than_a_name_server_that_knows_nothing() -> None:
    addresses = [ONE]
    with (
        there(ONE) as peers,
        named(addresses),
        Client(f"several.example:{peers[0].port}", resolve_after=0.1, idle_after=0.1, dead_after=0.1) as client,
    ):
        assert client.call("who") == ONE
        addresses.clear()
        for _ in range(5):
            wait_until(lambda: client._core.router()._links.all == [], "it is closed")
            assert client.call("who") == ONE


@pytest.mark.parametrize("addresses", [[], [ONE, TWO]])
def test_where_nobody_is_that_is_said_of_each_address(addresses: list[str], unused_port: int) -> None:
    with named(addresses):
        client = Client(f"several.example:{unused_port}")
        began = time.monotonic()
        with pytest.raises(ConnectionLost) as caught:
            client.call("who")
        assert time.monotonic() - began < 2, "at once, for there never was one"
        assert caught.value.sent is False
        for address in addresses:
            assert f"tcp://several.example:{unused_port} ({address}): Connection refused" in str(caught.value)
        assert "is a server running there?" in str(caught.value)


def test_what_is_submitted_last_is_sent_though_its_name_is_not_known_yet() -> None:
    lines: list[Any] = []

    def note(connection: LineClient) -> None:
        while (line := connection.line()) is not None:
            lines.append(json.loads(line)["args"])

    with there(ONE, TWO, behave=note) as peers, named([ONE, TWO]):
        client = Client(f"several.example:{peers[0].port}")
        for number in range(6):
            client.submit("f", number)
        client.close()
        wait_until(lambda: len(lines) == 6, "all are sent")
        assert sorted(lines) == [[number] for number in range(6)]
