"""What strangers try: to call without the right, to learn the secret, to listen where nobody should.

Each test is named for its row (S) in the list of faults that there are.
"""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from greentask import Client, Unauthenticated
from support.programs import environment, greentask
from support.proofs import OTHER, SECRET, answer, proof_of, prove, secret_file
from support.servers import LineClient, RunningServer, connect, serving, wait_until

pytestmark = pytest.mark.once


@pytest.fixture
def secrets(tmp_path: Path) -> Path:
    return secret_file(tmp_path)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """One that nobody's failures make refuse others."""
    file = secret_file(tmp_path_factory.mktemp("secrets"))
    with serving("--secret-file", str(file), "--max-failures", "1000000", "--debug", processes=1) as running:
        yield running


def status(server: RunningServer, address: str | None = None) -> dict[str, Any]:
    with connect(address or server.address) as peer:
        found: dict[str, Any] = prove(peer).call("greentask.status")
        return found


def connect_from(host: str, server: RunningServer) -> LineClient:
    """A connection from another address of this machine."""
    return LineClient(socket.create_connection(("127.0.0.1", server.port), 20, source_address=(host, 0)))


def is_refused(peer: LineClient) -> str:
    """It gets one line, which says why, and then the end."""
    (error,) = peer.hear_rest()
    assert set(error) == {"error"}
    assert error["error"]["type"] == "Unauthenticated"
    assert SECRET not in json.dumps(error)
    return str(error["error"]["message"])


# ---- S1: no proof, wrong proof, replayed proof, proof for another server, truncated handshake, 10,000 guesses


@pytest.mark.parametrize(
    "message",
    [
        {"function": "add", "args": [1, 2]},
        {"id": 7, "function": "greentask.ping"},
        {"auth": None},
        {"challenge": "0" * 64, "greentask": 1},
        {"jsonrpc": "2.0", "method": "add", "id": 1},
    ],
    ids=str,
)
def test_s1_no_proof(server: RunningServer, message: object) -> None:
    with server.connect() as peer:
        assert "challenge" in peer.hear()
        peer.send(message, {"id": 8, "function": "greentask.ping"})
        assert "wants proof of a secret" in is_refused(peer)


@pytest.mark.parametrize("data", [b"\n\n\x00\n", b"\x16\x03\x01\x02\x00\x01\x00\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_s1_no_json(server: RunningServer, data: bytes) -> None:
    with server.connect() as peer:
        peer.hear()
        peer.send_bytes(data)
        assert "wants proof of a secret" in is_refused(peer)


def test_s1_a_wrong_proof(server: RunningServer) -> None:
    with server.connect() as peer:
        peer.send(answer(OTHER, peer.hear()["challenge"]), {"function": "add", "args": [1, 2]})
        assert "the proof is wrong" in is_refused(peer)


def test_s1_a_replayed_proof(server: RunningServer) -> None:
    with server.connect() as peer, server.connect() as thief:
        ours = answer(SECRET, peer.hear()["challenge"])
        assert "auth" in peer.ask(ours)
        thief.hear()
        thief.send(ours)
        assert "the proof is wrong" in is_refused(thief)
        assert peer.call("add", 1, 2) == 3
    with server.connect() as thief:
        thief.hear()
        thief.send(ours)
        assert "the proof is wrong" in is_refused(thief)


def test_s1_a_proof_for_another_server(server: RunningServer, secrets: Path) -> None:
    options = ("--secret-file", str(secrets))
    with serving(*options, apps=["support.server_tasks:add"]) as other, server.connect() as peer:
        thief = other.connect()
        thief.hear()
        thief.send(answer(SECRET, peer.hear()["challenge"]))
        assert "the proof is wrong" in is_refused(thief)
        thief.close()


def test_s1_the_server_s_own_proof_sent_back(server: RunningServer) -> None:
    with server.connect() as peer:
        challenge, nonce = peer.hear()["challenge"], "0" * 64
        peer.send({"auth": {"nonce": nonce, "proof": proof_of(SECRET, "server", challenge, nonce)}})
        assert "the proof is wrong" in is_refused(peer)


@pytest.mark.parametrize("length", [1, 20, 166])
def test_s1_a_truncated_handshake(server: RunningServer, length: int) -> None:
    with server.connect() as peer:
        line = json.dumps(answer(SECRET, peer.hear()["challenge"])).encode()
        peer.send_bytes(line[:length])
        peer.end_sending()
        assert "wants proof of a secret" in is_refused(peer)


def test_s1_who_only_looks_whether_somebody_is_here_is_no_stranger(server: RunningServer) -> None:
    before = server.output()
    with server.connect() as peer:
        peer.hear()
        peer.end_sending()
        assert peer.hear_rest() == []
    with server.connect() as peer:
        peer.reset()
    status(server)
    assert server.output() == before


@pytest.mark.parametrize("data", [b"x" * 2000, b'{"auth":"' + b"x" * 2000 + b'"}\n'])
def test_s1_a_long_line_is_not_waited_for(server: RunningServer, data: bytes) -> None:
    with server.connect() as peer:
        peer.hear()
        peer.send_bytes(data)
        is_refused(peer)


def test_s1_calls_may_be_as_long_as_ever_after_the_proof(server: RunningServer) -> None:
    with server.connect() as peer:
        assert prove(peer).call("length", "x" * 100_000) == 100_000


def test_s1_who_says_nothing_is_not_waited_for(secrets: Path) -> None:
    with serving(
        "--secret-file", str(secrets), "--handshake-timeout", "0.3", apps=["support.server_tasks:add"]
    ) as slow:
        for begin in (b"", b'{"auth":'):
            began = time.monotonic()
            with slow.connect() as peer:
                peer.hear()
                peer.send_bytes(begin)
                assert "no proof came within 0.3 s (handshake_timeout)" in is_refused(peer)
            assert 0.25 < time.monotonic() - began < 5
        with slow.connect() as peer:
            prove(peer)
            time.sleep(0.4)  # the limit is over, and was the handshake's only
            assert peer.call("add", 1, 2) == 3


@pytest.mark.slow
def test_s1_a_server_that_stops_does_not_wait_for_a_proof(secrets: Path) -> None:
    options = ("--secret-file", str(secrets))
    with serving(*options, apps=["support.server_tasks:add"]) as stopping, stopping.connect() as peer:
        peer.hear()
        began = time.monotonic()
        stopping.process.terminate()
        assert peer.hear_rest() == []
        assert stopping.wait() == 0
        assert time.monotonic() - began < 3


def guess(server: RunningServer, host: str, count: int, heard: list[str]) -> None:
    for _ in range(count):
        with connect_from(host, server) as peer:
            greeting = peer.hear()
            if "challenge" in greeting:
                peer.send(answer(os.urandom(16).hex(), greeting["challenge"]))
                heard.append(is_refused(peer))
            else:
                heard.append(greeting["error"]["message"])
                assert peer.hear_rest() == []


@pytest.mark.parametrize("count", [200, pytest.param(10_000, marks=pytest.mark.slow)])
def test_s1_10_000_guesses(secrets: Path, tmp_path: Path, count: int) -> None:
    addresses = ["127.0.0.1:0", f"unix://{tmp_path}/socket"]
    with serving("--secret-file", str(secrets), apps=["support.server_tasks:add"], listen=addresses) as server:
        memory = server.memory()
        heard: list[str] = []
        guessing = [
            threading.Thread(target=guess, args=(server, "127.0.0.2", count // 4, heard), daemon=True) for _ in range(4)
        ]
        for thread in guessing:
            thread.start()
        with prove(connect_from("127.0.0.3", server)) as honest:
            while any(thread.is_alive() for thread in guessing):
                assert honest.call("add", 1, 2) == 3
        with prove(connect(server.addresses[1])) as honest:
            assert honest.call("add", 1, 2) == 3, "and so on the other address"
        assert len(heard) == count
        wrong = sum("the proof is wrong" in text for text in heard)
        assert 10 <= wrong <= 10 + count // 1000 + 10, "so many were looked at"
        assert sum("too many proofs from your address were wrong" in text for text in heard) == count - wrong
        assert status(server, server.addresses[1])["refused"]["unauthenticated"] == count
        assert server.output().count("127.0.0.2") <= 3 * wrong, "and no line for each of the others"
        assert server.memory() - memory < 20_000_000


@pytest.mark.slow
def test_s1_many_guesses_at_the_same_time_are_no_more_guesses(secrets: Path) -> None:
    with serving("--secret-file", str(secrets), "--max-failures", "5", apps=["support.server_tasks:add"]) as server:
        peers = [server.connect() for _ in range(50)]
        challenges = [peer.hear()["challenge"] for peer in peers]
        for peer, challenge in zip(peers, challenges):
            peer.send(answer(OTHER, challenge))
        said = [is_refused(peer) for peer in peers]
        assert sum("the proof is wrong" in text for text in said) == 5
        for peer in peers:
            peer.close()
        said = r"too many proofs from your address were wrong: try again in \d+ s"
        with Client(server.address, secret=SECRET) as client, pytest.raises(Unauthenticated, match=said):
            client.call("add", 1, 2)


def test_s1_a_stranger_does_not_write_into_the_log(server: RunningServer) -> None:
    forged = "2026-01-01 00:00:00 greentask: all is well\x1b[2J"
    for message in ({"auth": forged}, {"auth": {"nonce": forged, "proof": forged}}, {forged: 1}):
        with server.connect() as peer:
            peer.hear()
            peer.send(message)
            assert "all is well" not in is_refused(peer)
    with server.connect() as peer:
        peer.hear()
        peer.send_bytes(forged.encode() + b"\n")
        is_refused(peer)
    text = server.output()
    assert "all is well" not in text
    assert "\x1b" not in text
    assert "is refused: auth must have a nonce and a proof" in text


# ---- Addresses


def test_addresses_that_are_not_allowed_are_closed_unheard(tmp_path: Path) -> None:
    listen = ["127.0.0.1:0", "[::1]:0", f"unix://{tmp_path}/socket"]
    options = ("--allow", "127.0.0.1", "--allow", "127.0.1.0/24", "--allow", "2001:db8::/32")
    with serving(*options, apps=["support.server_tasks:add"], listen=listen) as server:
        for _ in range(20):
            with connect_from("127.0.0.2", server) as peer:
                assert is_closed(peer)
        with connect(server.addresses[1]) as peer:
            assert is_closed(peer), "::1 is no 127.0.0.1"
        for peer in (server.connect(), connect_from("127.0.1.7", server), connect(server.addresses[2])):
            with peer:
                assert peer.call("add", 1, 2) == 3
        status: dict[str, Any] = server.call("greentask.status")
        assert status["refused"]["not_allowed"] == 21
        assert server.output().count("its address is not allowed") == 1
        assert "the connection from 127.0.0.2 is closed, for its address is not allowed (1 so far" in server.output()


def is_closed(peer: LineClient) -> bool:
    try:
        peer.send({"function": "add", "args": [1, 2]})
        return peer.line() is None
    except ConnectionError:
        return True


def test_a_network_that_is_none() -> None:
    done = greentask("serve", "support.server_tasks:add", "-l", "127.0.0.1:0", "--allow", "10.0.0.1/8")
    assert done.returncode == 1
    assert done.stderr.startswith("greentask serve: '10.0.0.1/8' is no network: write 10.0.0.0/8")


# ---- S2: listening beyond loopback with no secret or mutual TLS


def test_s2_beyond_loopback_it_wants_to_know_who_calls(secrets: Path) -> None:
    done = greentask("serve", "support.server_tasks:add", "--listen", "0.0.0.0:0")
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("greentask serve: tcp://0.0.0.0:0 can be reached from other machines")
    fenced = greentask("serve", "support.server_tasks:add", "--listen", "0.0.0.0:0", "--allow", "127.0.0.1")
    assert fenced.stderr == done.stderr, "an address says where somebody is, and not who"
    for remedy in ("127.0.0.1", "--secret-file", "--insecure"):
        assert remedy in done.stderr
    with serving("--secret-file", str(secrets), apps=["support.server_tasks:add"], listen=["0.0.0.0:0"]) as server:
        client = Client(f"127.0.0.1:{server.port}", secret_file=secrets)
        assert client.call("add", 1, 2) == 3
        client.close()


def test_s2_a_secret_file_that_everybody_can_read_protects_nothing(tmp_path: Path) -> None:
    file = secret_file(tmp_path, mode=0o644)
    for arguments in (("serve", "support.server_tasks:add", "-l", "127.0.0.1:0"), ("call", "add"), ("tasks",)):
        done = greentask(*arguments, "--secret-file", str(file))
        assert done.returncode == (1 if arguments[0] == "serve" else 2)
        assert f"{file} is open to others (mode 0644), and what is in it is no secret then: chmod 600" in done.stderr
        assert "Traceback" not in done.stderr
        assert SECRET not in done.stderr


# ---- S9: secrets in ps, logs, error lines, tracebacks, status


def traces_of(pid: int) -> str:
    """What the system tells anybody of a process and of those below it."""
    processes = [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]
    return "\n".join(repr((one.name(), one.cmdline(), one.environ())) for one in processes)


def test_s9_the_secret_is_nowhere(secrets: Path) -> None:
    with serving("--secret-file", str(secrets), "--debug", forked=False) as server:
        seen = []
        with prove(server.connect()) as peer:
            for function, args in (("fail", []), ("fail_in_process", []), ("add", ["x", 2]), ("none", []), ("die", [])):
                seen.append(json.dumps(peer.ask({"function": function, "args": args})))
            assert "Traceback" in seen[0]
            for function in ("greentask.status", "greentask.tasks"):
                seen.append(json.dumps(peer.call(function)))
        for secret in (OTHER, SECRET[:-1]):
            with server.connect() as peer:
                peer.send(answer(secret, peer.hear()["challenge"]))
                seen.append(json.dumps(peer.hear_rest()))
        traces = traces_of(server.process.pid)
        assert "greentask" in traces
        seen.append(traces)
        server.process.terminate()
        server.wait()
        seen.append(server.output())
        assert "the proof is wrong" in seen[-1]
    assert SECRET not in "\n".join(seen)


def test_s9_a_client_does_not_give_it_away_either(secrets: Path, server: RunningServer) -> None:
    calling = subprocess.Popen(
        [sys.executable, "-m", "greentask", "call", "nap", "seconds=0.5", "-s", server.address],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment(GREENTASK_SECRET_FILE=str(secrets)),
    )
    with prove(server.connect()) as peer:
        wait_until(lambda: peer.call("greentask.status")["in_flight"] > 1, "the call is there")
    seen = traces_of(calling.pid)
    output, _ = calling.communicate(timeout=20)
    assert output == "0.5\n"
    failed = greentask("call", "fail", "-s", server.address, "--secret-file", str(secrets))
    assert failed.returncode == 1
    assert "Traceback" in failed.stderr
    assert SECRET not in seen + failed.stderr


def test_without_the_secret_a_command_says_what_to_pass(server: RunningServer) -> None:
    done = greentask("tasks", "-s", server.address)
    assert (done.returncode, done.stdout) == (4, "")
    assert done.stderr.startswith("greentask: Unauthenticated: the server wants proof of a secret: pass secret_file=")
    assert "--secret-file" in done.stderr
