"""The proof of identity, without any I/O: who is let in, who isn't, and what is said."""

import json
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.errors import ConfigurationError, Unauthenticated
from greentask.wire.proof import MAX_PROOF_LINE, ClientProof, Secrets, ServerProof
from support.proofs import OTHER, SECRET, proof_of


def refused(step: Callable[[], object]) -> str:
    with pytest.raises(Unauthenticated) as caught:
        step()
    assert SECRET not in str(caught.value)
    return str(caught.value)


def challenge_of(greeting: bytes) -> str:
    challenge = json.loads(greeting)["challenge"]
    assert isinstance(challenge, str)
    return challenge


# ---- Both sides


def test_both_sides_are_proven() -> None:
    server, client = ServerProof(Secrets([SECRET])), ClientProof(Secrets([SECRET]))
    client.check(server.answer(client.answer(server.greeting)))


def test_the_lines_are_those_of_the_document() -> None:
    server, client = ServerProof(Secrets([SECRET])), ClientProof(Secrets([SECRET]))
    greeting = json.loads(server.greeting)
    assert greeting == {"challenge": greeting["challenge"], "greentask": 1}
    line = client.answer(server.greeting)
    nonce = json.loads(line)["auth"]["nonce"]
    assert len(bytes.fromhex(greeting["challenge"])) == len(bytes.fromhex(nonce)) == 32
    assert json.loads(line) == {
        "auth": {"nonce": nonce, "proof": proof_of(SECRET, "client", greeting["challenge"], nonce)}
    }
    assert json.loads(server.answer(line)) == {
        "auth": {"proof": proof_of(SECRET, "server", greeting["challenge"], nonce)}
    }
    assert len(line) < MAX_PROOF_LINE


def test_a_server_takes_any_of_its_secrets_and_a_client_proves_the_first() -> None:
    for secrets in ([SECRET], [SECRET, "x" * 40], [SECRET.encode()], SECRET):
        for of_server in ([SECRET, OTHER], [OTHER, SECRET], [OTHER, "y" * 16, SECRET]):
            server, client = ServerProof(Secrets(of_server)), ClientProof(Secrets(secrets))
            client.check(server.answer(client.answer(server.greeting)))
    server, client = ServerProof(Secrets([SECRET])), ClientProof(Secrets([OTHER, SECRET]))
    assert "none of this server's" in refused(lambda: server.answer(client.answer(server.greeting)))


def test_nothing_is_used_twice() -> None:
    secrets = Secrets([SECRET])
    assert len({challenge_of(ServerProof(secrets).greeting) for _ in range(100)}) == 100
    greeting = ServerProof(secrets).greeting
    assert len({json.loads(ClientProof(secrets).answer(greeting))["auth"]["nonce"] for _ in range(100)}) == 100


# ---- The server refuses


def test_a_proof_is_good_for_one_connection_only() -> None:
    secrets = Secrets([SECRET])
    server, other = ServerProof(secrets), ServerProof(secrets)
    line = ClientProof(secrets).answer(server.greeting)
    assert "the proof is wrong" in refused(lambda: other.answer(line))
    server.answer(line)
    refused(lambda: server.answer(line))


def test_a_server_s_own_proof_is_not_a_client_s() -> None:
    secrets = Secrets([SECRET])
    server = ServerProof(secrets)
    challenge, nonce = challenge_of(server.greeting), "0" * 64
    line = json.dumps({"auth": {"nonce": nonce, "proof": proof_of(SECRET, "server", challenge, nonce)}}).encode()
    assert "the proof is wrong" in refused(lambda: server.answer(line))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "wants proof"),
        (b"{", "wants proof"),
        (b"[]", "wants proof"),
        (b"\xff", "wants proof"),
        (b'{"function":"greentask.ping"}', "wants proof"),
        (b'{"auth":true}', "wants proof"),
        (b"[" * 1000, "wants proof"),
        (b'{"auth":{}}', "64 hexadecimal digits"),
        (b'{"auth":{"nonce":"","proof":""}}', "64 hexadecimal digits"),
        (b'{"auth":{"nonce":1,"proof":null}}', "64 hexadecimal digits"),
        (json.dumps({"auth": {"nonce": "a" * 64, "proof": "A" * 64}}).encode(), "64 hexadecimal digits"),
        (json.dumps({"auth": {"nonce": "a" * 64, "proof": "é" * 64}}).encode(), "64 hexadecimal digits"),
        (json.dumps({"auth": {"nonce": "a" * 64, "proof": "1" * 64 + "\n"}}).encode(), "64 hexadecimal digits"),
        (json.dumps({"auth": {"nonce": "a" * 64, "proof": "1" * 64}}).encode(), "the proof is wrong"),
    ],
)
def test_what_is_no_proof(line: bytes, said: str) -> None:
    server = ServerProof(Secrets([SECRET]))
    assert said in refused(lambda: server.answer(line))
    refused(lambda: server.answer(ClientProof(Secrets([SECRET])).answer(ServerProof(Secrets([SECRET])).greeting)))


@given(
    st.binary(max_size=300)
    | st.recursive(
        st.none() | st.text(),
        lambda inner: st.dictionaries(st.sampled_from(["auth", "nonce", "proof"]) | st.text(max_size=3), inner),
    ).map(lambda it: json.dumps(it).encode())
)
def test_nothing_else_is_let_in_or_raises_anything_else(line: bytes) -> None:
    refused(lambda: ServerProof(Secrets([SECRET])).answer(line))
    refused(lambda: ClientProof(Secrets([SECRET])).answer(line))
    refused(lambda: ClientProof(Secrets([SECRET])).check(line))


# ---- The client refuses


@pytest.mark.parametrize(
    ("greeting", "said"),
    [
        ({"result": 1}, "doesn't ask for a proof"),
        ({"challenge": "0" * 63, "greentask": 1}, "doesn't ask for a proof"),
        ({"challenge": "0" * 64, "greentask": 2}, "another version"),
        ({"challenge": "0" * 64}, "another version"),
        ({"error": {"type": "Unauthenticated", "message": "try again in 6 s"}}, "try again in 6 s"),
        ({"error": {"message": "\x1b[2Jgone\nagain\u202e"}}, "\ufffd[2Jgone\ufffdagain\ufffd"),
        ({"error": {"message": "x" * 900}}, "x" * 200 + "…"),
        ({"error": {"message": ""}}, "doesn't ask for a proof"),
        ({"error": "x"}, "doesn't ask for a proof"),
    ],
)
def test_what_is_no_greeting(greeting: Any, said: str) -> None:
    told = refused(lambda: ClientProof(Secrets([SECRET])).answer(json.dumps(greeting).encode()))
    assert said in told
    assert told.isprintable()


def test_a_server_that_does_not_know_the_secret() -> None:
    client = ClientProof(Secrets([SECRET]))
    greeting = ServerProof(Secrets([OTHER])).greeting
    line = json.loads(client.answer(greeting))
    nonce, proof, challenge = line["auth"]["nonce"], line["auth"]["proof"], challenge_of(greeting)
    for wrong in (proof_of(OTHER, "server", challenge, nonce), proof, proof_of(SECRET, "server", nonce, challenge)):
        text = json.dumps({"auth": {"proof": wrong}}).encode()
        assert "doesn't know the secret" in refused(lambda text=text: client.check(text))
    for text in (b"{}", b'{"auth":{}}', b'{"auth":{"proof":1}}', b'{"id":1,"result":2}', b""):
        assert "didn't prove" in refused(lambda text=text: client.check(text))
    assert "no entry" in refused(lambda: client.check(b'{"error":{"message":"no entry"}}'))


# ---- Secrets


def test_secrets_do_not_show() -> None:
    secrets = Secrets([SECRET, OTHER])
    assert repr(secrets) == str(secrets) == f"{secrets}" == "<2 secrets>"
    for side in (ServerProof(secrets), ClientProof(secrets)):
        assert SECRET not in repr(side)
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(secrets)


@pytest.mark.parametrize("secrets", [[], ["fifteen letters"], [SECRET, ""], "short", b"short"])
def test_what_could_be_guessed_is_no_secret(secrets: Any) -> None:
    with pytest.raises(ConfigurationError, match="openssl rand") as caught:
        Secrets(secrets)
    assert "fifteen" not in str(caught.value)
    assert "short" not in str(caught.value)
