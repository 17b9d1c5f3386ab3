"""N10: a cable is pulled. Packets vanish, both ways and in silence, between us and a server in a network of its own."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from greentask import Client, ConnectionLost
from support.namespaces import Cable, cable, can_have_a_cable
from support.parts import require
from support.servers import RunningServer, connect, serving, wait_until

pytestmark = pytest.mark.slow

DEAD = 1.5  # seconds
APPS = ["support.server_tasks", "support.client_tasks"]


class Far:
    """A server behind a cable. It is asked over a Unix socket, which no cable is needed for."""

    def __init__(self, server: RunningServer, cable: Cable) -> None:
        self.server = server
        self.cable = cable
        self.address = server.addresses[1]

    def in_flight(self) -> int:
        return int(self.server.status()["in_flight"])

    def connections(self) -> int:
        return int(self.server.status()["connections"])

    def given_up(self) -> int:
        """How many peers were given up, as the server has counted."""
        return int(self.server.status()["refused"]["dead_after"])

    def is_stuck(self) -> bool:
        """Whether a peer of its has no room for what it is sent, and is asked for that by the kernel."""
        table = subprocess.run([*self.cable.inside, "cat", "/proc/net/tcp"], capture_output=True, text=True, check=True)
        return any(line.split()[5].startswith("04:") for line in table.stdout.splitlines()[1:])  # its timer: of probes


@pytest.fixture(scope="module")
def far(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Far]:
    require(can_have_a_cable(), "no network of its own can be made here: needs root, unshare(1), nsenter(1) and ip(8)")
    with ExitStack() as stack:
        between = stack.enter_context(cable())
        listen = [f"unix://{tmp_path_factory.mktemp('far')}/socket", f"{between.there}:0"]
        options = ("--insecure", "--dead-after", str(DEAD))
        server = stack.enter_context(serving(*options, apps=APPS, listen=listen, inside=between.inside))
        yield Far(server, between)


@pytest.fixture(scope="module")
def near() -> Iterator[RunningServer]:
    with serving(apps=APPS) as server:
        yield server


@pytest.fixture
def pulled(far: Far) -> Iterator[Far]:
    """Where the cable is as it was, afterwards, and nobody is connected."""
    yield far
    far.cable.plug_in()
    wait_until(lambda: far.connections() == far.in_flight() == 0, "nobody is connected")


def test_n10_calls_and_streams_in_flight_end_in_a_true_error_and_the_server_frees_what_they_had(pulled: Far) -> None:
    with Client(pulled.address, dead_after=DEAD) as client:
        calls = [client.submit("nap", 2 * DEAD) for _ in range(2)]  # which go on, as after a reset
        reporting = client.using(progress=lambda _: None).submit("advance", 200, 0.015)
        items = client.stream("count", 1_000_000, 0.002, window=4)
        assert next(items) == 0
        wait_until(lambda: pulled.in_flight() == 4, "all run")
        pulled.cable.pull()
        began = time.monotonic()
        with pytest.raises(ConnectionLost, match="gave no sign of life") as caught:
            for _ in items:
                pass
        assert DEAD / 3 < time.monotonic() - began < DEAD + 0.4
        errors = [caught.value, *(call.exception(0.5) for call in (*calls, reporting))]
        assert [error.sent for error in errors if isinstance(error, ConnectionLost)] == [True] * 4
        # What it has sent was never acknowledged: TCP's own patience would be a quarter of an hour.
        wait_until(lambda: pulled.connections() == 0, "the server has given us up", patience=4 * DEAD)


def test_n10_the_server_frees_a_connection_on_which_nothing_is_on_its_way(pulled: Far) -> None:
    with Client(pulled.address, dead_after=20.0) as client:  # which itself says nothing for a while
        assert client.call("add", 1, 2) == 3
        wait_until(lambda: pulled.connections() == 1, "it is connected")
        before = pulled.given_up()
        pulled.cable.pull()
        wait_until(lambda: pulled.connections() == 0, "the server has given us up", patience=5 + DEAD)
        assert pulled.given_up() == before + 1


def test_n10_the_server_frees_a_connection_whose_peer_had_no_room_for_more(pulled: Far) -> None:
    with connect(pulled.address, receive_buffer=4096) as peer:
        peer.send({"function": "large", "args": [16_000_000], "id": 1})
        wait_until(lambda: pulled.is_stuck(), "it has no room for what it is sent")
        before = pulled.given_up()
        pulled.cable.pull()
        wait_until(lambda: pulled.connections() == 0, "the server has given us up", patience=5 + 2 * DEAD)
        assert pulled.given_up() == before + 1


def test_n10_a_peer_that_is_well_and_has_no_room_for_more_is_not_given_up(pulled: Far) -> None:
    with connect(pulled.address, receive_buffer=4096) as peer:
        peer.send({"function": "large", "args": [16_000_000], "id": 1})
        wait_until(lambda: pulled.is_stuck(), "it has no room for what it is sent")
        began = time.monotonic()
        wait_until(lambda: time.monotonic() - began > 4 * DEAD, "it goes on not reading")
        assert pulled.connections() == 1


def test_n10_a_peer_that_is_well_and_says_nothing_is_not_given_up(pulled: Far) -> None:
    with Client(pulled.address, dead_after=20.0) as client:
        assert client.call("nap", 3 * DEAD) == 3 * DEAD
        assert pulled.connections() == 1


def test_n10_new_calls_go_to_another_server_and_come_back_when_the_cable_does(pulled: Far, near: RunningServer) -> None:
    options = {"dead_after": DEAD, "connect_timeout": 0.5}
    with Client([pulled.address, near.address], timeout=10, **options) as client:
        pids = {client.call("server_pid") for _ in range(4)}
        assert pids == {pulled.server.pid, near.pid}
        pulled.cable.pull()
        lost: list[bool | None] = []
        began = time.monotonic()
        while time.monotonic() - began < DEAD + 1:  # until it is noticed, every other call goes there
            try:
                assert client.call("server_pid") == near.pid
            except ConnectionLost as error:
                lost.append(error.sent)
        assert lost == [True], "that which found it out"
        slowest = 0.0
        for _ in range(20):
            asked = time.monotonic()
            assert client.call("server_pid") == near.pid
            slowest = max(slowest, time.monotonic() - asked)
        assert slowest < 0.3
        pulled.cable.plug_in()
        wait_until(lambda: client.call("server_pid") == pulled.server.pid, "it gets calls again")
        assert client.call("server_pid") in pids


def test_n10_where_there_is_no_other_server_calls_go_through_again_when_the_cable_does(pulled: Far) -> None:
    with Client(pulled.address, dead_after=DEAD, connect_timeout=0.5) as client:
        assert client.call("add", 1, 2) == 3
        pulled.cable.pull()
        began = time.monotonic()
        with pytest.raises(ConnectionLost):
            client.call("add", 1, 2)
        assert time.monotonic() - began < DEAD + 0.5
        pulled.cable.plug_in()
        assert client.call("add", 3, 4) == 7
