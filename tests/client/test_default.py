"""The default client: whom ``task.call`` asks where it isn't told."""

import threading
from collections.abc import Iterator

import pytest

import greentask
from greentask import Client, ConfigurationError, ConnectionLost, configure, default_client, task
from greentask.client import default
from support.peers import echoing, peer
from support.server_tasks import add, nap
from support.servers import RunningServer


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(default, "_client", None)
    monkeypatch.delenv("GREENTASK_URL", raising=False)
    yield
    if default._client is not None:
        default._client.close()


def where(client: Client) -> list[str]:
    return [str(address) for address in client.addresses]


def test_it_is_on_this_machine_unless_something_else_is_said() -> None:
    assert where(default_client()) == ["tcp://127.0.0.1:12345"]


def test_the_environment_says_where(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTASK_URL", "tcp://localhost:1,unix:///run/x")
    assert where(default_client()) == ["tcp://localhost:1", "unix:///run/x"]


def test_an_environment_that_is_wrong_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTASK_URL", "somewhere")
    with pytest.raises(ConfigurationError, match=r"^GREENTASK_URL in the environment: 'somewhere' is not an address: "):
        default_client()


def test_a_client_that_is_given_no_address_calls_where_the_environment_says(
    monkeypatch: pytest.MonkeyPatch, server: RunningServer
) -> None:
    assert where(Client()) == ["tcp://127.0.0.1:12345"]
    monkeypatch.setenv("GREENTASK_URL", server.address)
    with Client(timeout=20) as client:
        assert client.using(idempotent=True).call("add", 1, 2) == 3
        assert where(client.using(timeout=1)) == [server.address]
    monkeypatch.setenv("GREENTASK_SECRET_FILE", "/nowhere")
    with pytest.raises(ConfigurationError, match="/nowhere"):
        Client()


def test_an_empty_environment_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTASK_URL", "")
    assert where(default_client()) == ["tcp://127.0.0.1:12345"]


def test_what_is_configured_wins_over_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTASK_URL", "127.0.0.1:1")
    client = configure("127.0.0.1:2", timeout=3)
    assert default_client() is client
    assert where(client) == ["tcp://127.0.0.1:2"]
    assert configure(["127.0.0.1:3", "127.0.0.1:4"]) is default_client()
    assert where(default_client()) == ["tcp://127.0.0.1:3", "tcp://127.0.0.1:4"]


def test_a_client_can_be_the_default_one() -> None:
    mine = Client("127.0.0.1:2")
    assert configure(mine) is mine
    assert default_client() is mine


def test_options_for_a_client_that_has_its_own_are_refused() -> None:
    with pytest.raises(TypeError, match="options already: timeout"):
        configure(Client("127.0.0.1:2"), timeout=3)
    assert default._client is None


def test_an_address_that_is_none_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    client = configure("127.0.0.1:2")
    with pytest.raises(ConfigurationError):
        configure("nowhere")
    assert default_client() is client
    monkeypatch.setattr(default, "_client", None)
    monkeypatch.setenv("GREENTASK_URL", "nowhere")
    with pytest.raises(ConfigurationError, match="'nowhere' is not an address"):
        add.call(1)


def test_all_threads_share_it() -> None:
    found: list[Client] = []
    ready = threading.Barrier(8)

    def find() -> None:
        ready.wait(20)
        found.append(default_client())

    threads = [threading.Thread(target=find) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert len(found) == 8
    assert len(set(map(id, found))) == 1


def test_decorated_functions_ask_it(server: RunningServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GREENTASK_URL", server.address)
    assert add.call(1, 2) == 3
    assert add.submit(1, b=2).result(20) == 3
    assert list(add.map([1, 2], [3, 4])) == [4, 6]
    assert sorted(add.map([1, 2], unordered=True, window=1)) == [1, 2]
    assert list(add.starmap([(1, 2), {"a": 3}])) == [3, 3]
    with pytest.raises(greentask.DeadlineExceeded):
        nap.using(timeout=0.1).call(30)
    assert add(1, 2) == 3, "a plain call stays here"


def test_a_client_that_is_named_wins_over_it(server: RunningServer) -> None:
    configure("127.0.0.1:1")
    with Client(server.address) as client:
        assert add.using(client).call(1, 2) == 3
    with pytest.raises(ConnectionLost):
        add.call(1, 2)


def test_another_may_be_configured_later(server: RunningServer) -> None:
    @task
    def echo(value: object) -> object:
        raise AssertionError("it runs there, not here")

    remote = echo.using()
    with peer(echoing) as first:
        with configure(first.address):
            assert remote.call("to the first") == "to the first"
        assert len(first.connections) == 1
    configure(server.address)
    assert remote.call("to the second") == "to the second"
