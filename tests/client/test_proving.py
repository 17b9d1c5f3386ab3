"""A client that proves itself, and has the server prove itself, before it says anything else."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from greentask import Client, ConfigurationError, ConnectionLost, Unauthenticated
from greentask.hub.files import read_secrets
from support.peers import peer, silent
from support.proofs import OTHER, SECRET, proof_of, secret_file
from support.servers import LineClient, RunningServer, serving, wait_until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    file = secret_file(tmp_path_factory.mktemp("secrets"), OTHER, SECRET)
    with serving("--secret-file", str(file), "--max-failures", "10000", processes=1) as running:
        yield running


def greeting(connection: LineClient) -> str:
    challenge = os.urandom(32).hex()
    connection.send({"challenge": challenge, "greentask": 1})
    return challenge


def refusal(client: Client) -> str:
    with pytest.raises(Unauthenticated) as caught:
        client.call("add", 1, 2)
    assert caught.value.started is False
    assert SECRET not in str(caught.value)
    return str(caught.value)


# ---- With a real server


@pytest.mark.parametrize("secret", [SECRET, OTHER, SECRET.encode()])
def test_with_a_secret_of_the_server_s_it_calls(server: RunningServer, secret: str | bytes) -> None:
    with Client(server.address, secret=secret) as client:
        assert client.call("add", 1, 2) == 3
        assert [future.result(20) for future in [client.submit("add", n, 1) for n in range(3)]] == [1, 2, 3]
        assert list(client.map("add", range(10), range(10))) == [2 * n for n in range(10)]
        client.close()
        assert client.call("add", 1, 2) == 3, "and again on the next connection"


def test_the_first_line_of_a_file_is_the_client_s(server: RunningServer, tmp_path: Path) -> None:
    with Client(
        server.address, secret_file=secret_file(tmp_path, "# ours", SECRET, "not the server's at all")
    ) as client:
        assert client.call("add", 1, 2) == 3
    with Client(server.address, secret_file=secret_file(tmp_path, "not the server's at all", SECRET)) as client:
        assert "none of this server's" in refusal(client)


def test_without_a_secret_it_is_told_what_to_pass(server: RunningServer) -> None:
    with Client(server.address) as client:
        for _ in range(2):
            assert "pass secret_file=" in refusal(client)


def test_a_file_that_changed_is_read_when_it_connects_again(server: RunningServer, tmp_path: Path) -> None:
    file = secret_file(tmp_path, "not the server's at all")
    with Client(server.address, secret_file=file) as client:
        refusal(client)
        secret_file(tmp_path, SECRET)

        def is_let_in() -> bool:
            with suppress(Unauthenticated):
                return bool(client.call("add", 1, 2) == 3)
            return False

        wait_until(is_let_in, "it has looked at the file again")


def test_a_secret_or_a_file_that_can_not_be_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="could be guessed"):
        Client("127.0.0.1:1", secret="hunter2")
    with pytest.raises(ConfigurationError, match="can't be read"):
        Client("127.0.0.1:1", secret_file=tmp_path / "none")
    with pytest.raises(TypeError, match="not both"):
        Client("127.0.0.1:1", secret=SECRET, secret_file=tmp_path / "none")


def test_the_default_client_proves_what_the_environment_names(
    server: RunningServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from greentask.client import default

    monkeypatch.setenv("GREENTASK_URL", server.address)
    monkeypatch.setenv("GREENTASK_SECRET_FILE", str(secret_file(tmp_path)))
    monkeypatch.setattr(default, "_client", None)
    with default.default_client() as client:
        assert client.call("add", 1, 2) == 3


# ---- With servers that aren't what they should be


def not_asking(connection: LineClient) -> None:
    silent(connection)


def hanging_up(connection: LineClient) -> None:
    connection.end_sending()
    silent(connection)


def talking_of_something_else(connection: LineClient) -> None:
    connection.send({"hello": 1})
    silent(connection)


def sending_a_line_without_end(connection: LineClient) -> None:
    connection.send_bytes(b"x" * 100_000)
    silent(connection)


def not_answering(connection: LineClient) -> None:
    greeting(connection)
    silent(connection)


def knowing_another_secret(connection: LineClient) -> None:
    challenge = greeting(connection)
    nonce = connection.hear()["auth"]["nonce"]
    connection.send({"auth": {"proof": proof_of(OTHER, "server", challenge, nonce)}})
    silent(connection)


def sending_our_proof_back(connection: LineClient) -> None:
    greeting(connection)
    connection.send({"auth": {"proof": connection.hear()["auth"]["proof"]}})
    silent(connection)


def answering_instead(connection: LineClient) -> None:
    greeting(connection)
    connection.hear()
    connection.send({"id": 1, "result": 3})
    silent(connection)


@pytest.mark.parametrize(
    ("behave", "said"),
    [
        (not_asking, "it didn't ask for a proof within 0.2 s: is it a greentask server, started with --secret-file?"),
        (hanging_up, "it didn't ask for a proof, but closed the connection"),
        (talking_of_something_else, "it doesn't ask for a proof"),
        (sending_a_line_without_end, "it didn't ask for a proof, but sent a long line"),
        (not_answering, "it didn't answer our proof within 0.2 s"),
        (knowing_another_secret, "it doesn't know the secret: the wrong server answers there"),
        (sending_our_proof_back, "it doesn't know the secret"),
        (answering_instead, "it didn't prove that it knows the secret"),
    ],
)
def test_nothing_is_said_to_a_server_that_is_not_proven(behave: Callable[[LineClient], None], said: str) -> None:
    with peer(behave) as wrong, Client(wrong.address, secret=SECRET, connect_timeout=0.2) as client:
        told = refusal(client)
        assert told.startswith(f"no call was sent to tcp://{wrong.address}: ")
        assert said in told


def test_a_server_that_is_not_proven_gets_no_call() -> None:
    heard: list[bytes | None] = []

    def behave(connection: LineClient) -> None:
        greeting(connection)
        heard.append(connection.line())
        connection.send({"auth": {"proof": "0" * 64}})
        heard.append(connection.line())

    with peer(behave) as wrong, Client(wrong.address, secret=SECRET) as client:
        refusal(client)
    assert heard[0] is not None
    assert set(json.loads(heard[0])) == {"auth"}
    assert heard[1] is None


def test_the_next_address_is_tried_and_both_are_named(server: RunningServer) -> None:
    with peer(hanging_up) as wrong:
        with Client([wrong.address, server.address], secret=SECRET) as client:
            assert client.call("add", 1, 2) == 3
        with Client([wrong.address, "127.0.0.1:1"], secret=SECRET) as client:
            told = refusal(client)
            assert f"tcp://{wrong.address}" in told
            assert "tcp://127.0.0.1:1" in told


def test_no_server_at_all_is_a_connection_that_is_lost(unused_port: int) -> None:
    with Client(f"127.0.0.1:{unused_port}", secret=SECRET) as client, pytest.raises(ConnectionLost):
        client.call("add", 1, 2)


def test_what_came_behind_the_proof_is_heard() -> None:
    def behave(connection: LineClient) -> None:
        challenge = greeting(connection)
        nonce = connection.hear()["auth"]["nonce"]
        proof = {"auth": {"proof": proof_of(SECRET, "server", challenge, nonce)}}
        connection.send(proof, {"id": 99, "result": "of nobody"})
        connection.send({"id": connection.hear()["id"], "result": "mine"})
        silent(connection)

    with peer(behave) as server, Client(server.address, secret=SECRET) as client:
        assert client.call("f") == "mine"


def test_an_address_and_a_file_do_not_show_the_secret(tmp_path: Path) -> None:
    file = secret_file(tmp_path)
    assert SECRET not in repr(Client("127.0.0.1:1", secret=SECRET)) + repr(Client("127.0.0.1:1", secret_file=file))
    assert SECRET not in repr(vars(Client("127.0.0.1:1", secret=SECRET)._core)) + repr(read_secrets(str(file)))
