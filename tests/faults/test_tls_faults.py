"""S3: plain text to a TLS port, wrong certificates, old TLS. See the fault matrix's strangers."""

import contextlib
import datetime
import json
import os
import signal
import socket
import ssl
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from greentask import Client, ConnectionLost
from support.certificates import Authority, flags
from support.programs import run_source
from support.servers import LineClient, RunningServer, serving, wait_until


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with serving(apps=["support.server_tasks:add"]) as server:
        yield server


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def secured(authority: Authority) -> Iterator[RunningServer]:
    options = flags(authority, "--handshake-timeout", "0.5")
    with serving(*options, apps=["support.server_tasks:add"], listen=["tls://127.0.0.1:0"]) as server:
        yield server
        assert "Traceback" not in server.output()


def test_s3_plain_text_to_a_tls_port_is_refused(secured: RunningServer) -> None:
    with LineClient(socket.create_connection(("127.0.0.1", secured.port))) as peer:
        peer.send({"function": "add", "args": [1, 2]})
        heard = b""
        with contextlib.suppress(ConnectionResetError):
            while data := peer.socket.recv(4096):
                heard += data
        assert b"result" not in heard


def test_s3_one_that_says_nothing_is_sent_away_and_holds_nobody_up(
    secured: RunningServer, authority: Authority
) -> None:
    silent = [socket.create_connection(("127.0.0.1", secured.port)) for _ in range(50)]
    with Client(secured.address, tls_ca=authority.ca) as client:
        assert client.call("add", 1, 2) == 3
    for sock in silent:
        sock.settimeout(10)
        assert sock.recv(1) == b""
        sock.close()


def test_s3_a_client_refuses_a_server_that_is_not_the_one(
    secured: RunningServer, authority: Authority, tmp_path: Path
) -> None:
    remedy = r"CERTIFICATE_VERIFY_FAILED.*; tls_ca= \(--tls-ca\) names the authority whose certificates are trusted$"
    with Client(secured.address) as client, pytest.raises(ConnectionLost, match=remedy):
        client.call("add", 1, 2)
    other = Authority(tmp_path / "other")
    with Client(secured.address, tls_ca=other.ca) as client, pytest.raises(ConnectionLost, match="VERIFY_FAILED"):
        client.call("add", 1, 2)
    names = authority.issue("elsewhere", "tasks.example")
    late = authority.issue("late", "localhost", "127.0.0.1", not_after=datetime.datetime(2020, 1, 1))
    for (cert, key), told in ((names, "Hostname mismatch|IP address mismatch"), (late, "expired")):
        with (
            serving(
                "--tls-cert", cert, "--tls-key", key, apps=["support.server_tasks:add"], listen=["tls://127.0.0.1:0"]
            ) as server,
            Client(server.address, tls_ca=authority.ca) as client,
            pytest.raises(ConnectionLost, match=told),
        ):
            client.call("add", 1, 2)


def test_s3_a_connection_that_somebody_cuts_runs_whole_lines_and_no_half_one(
    authority: Authority, tmp_path: Path
) -> None:
    """Whoever is between the two can end a connection, without TLS's farewell, behind any byte."""
    whole, half = tmp_path / "whole", tmp_path / "half"
    context = ssl.create_default_context(cafile=authority.ca)
    with serving(*flags(authority), listen=["tls://127.0.0.1:0"]) as server:
        sock = socket.create_connection(("127.0.0.1", server.port))
        cable = socket.socket(fileno=os.dup(sock.fileno()))
        with LineClient(context.wrap_socket(sock, server_hostname="127.0.0.1")) as peer, cable:
            peer.send({"function": "mark", "args": [str(whole), 0]})
            peer.send_bytes(json.dumps({"function": "mark", "args": [str(half), 0]}).encode())
            cable.shutdown(socket.SHUT_WR)
            wait_until(whole.exists, "the whole line is run")
            with contextlib.suppress(OSError):
                peer.hear_rest()  # until it has closed
        assert not half.exists()
        with Client(server.address, tls_ca=authority.ca) as client:
            assert client.call("greentask.status")["connections"] == 1
        assert "Traceback" not in server.output()


@pytest.mark.parametrize("is_agreed", [False, True])
def test_s3_garbage_costs_only_its_connection(secured: RunningServer, authority: Authority, is_agreed: bool) -> None:
    sock = socket.create_connection(("127.0.0.1", secured.port))
    if is_agreed:
        context = ssl.create_default_context(cafile=authority.ca)
        cable = socket.socket(fileno=os.dup(sock.fileno()))
        sock = context.wrap_socket(sock, server_hostname="127.0.0.1")
    else:
        cable = socket.socket(fileno=os.dup(sock.fileno()))
    with sock, cable:
        cable.sendall(b"\x17\x03\x03\x40\x00" + bytes(range(256)) * 100)
        cable.settimeout(10)
        with contextlib.suppress(ConnectionError):
            while cable.recv(4096):
                pass
    with Client(secured.address, tls_ca=authority.ca) as client:
        assert client.call("add", 1, 2) == 3


def test_s3_tls_to_a_plain_port_fails(server: RunningServer, authority: Authority) -> None:
    address = server.address.replace("tcp://", "tls://")
    with Client(address, tls_ca=authority.ca) as client, pytest.raises(ConnectionLost):
        client.call("add", 1, 2)


def test_s3_old_tls_is_refused(secured: RunningServer, authority: Authority) -> None:
    context = ssl.create_default_context(cafile=authority.ca)
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        context.minimum_version = ssl.TLSVersion.TLSv1
        context.maximum_version = ssl.TLSVersion.TLSv1_1
    with socket.create_connection(("127.0.0.1", secured.port)) as sock, pytest.raises((ssl.SSLError, OSError)):
        context.wrap_socket(sock, server_hostname="localhost")


def test_s3_silent_peers_count_for_their_address_and_do_not_hold_up_the_end(authority: Authority) -> None:
    options = flags(authority, "--handshake-timeout", "60", "--max-connections-per-address", "5")
    with serving(*options, apps=["support.server_tasks:add"], listen=["tls://127.0.0.1:0"]) as server:
        peers = [socket.create_connection(("127.0.0.1", server.port), 20) for _ in range(20)]
        wait_until(lambda: sum(is_closed(peer) for peer in peers) == 15, "all but five are sent away")
        began = time.monotonic()
        server.signal(signal.SIGTERM)
        assert server.wait() == 0
        assert time.monotonic() - began < 10
        for peer in peers:
            peer.close()


def is_closed(sock: socket.socket) -> bool:
    sock.setblocking(False)
    try:
        return sock.recv(1) == b""
    except BlockingIOError:
        return False
    except ConnectionResetError:
        return True


def test_s3_nobody_needs_the_ssl_module_who_uses_no_tls() -> None:
    """gevent can't patch it well once it is in use, and a program may be patched after it has imported us."""
    assert run_source(
        "import sys, greentask.client.client, greentask.server.server\n"
        "from gevent import monkey; monkey.patch_all()\n"
        "print('greentask.hub.tls' in sys.modules)"
    ) == ["False"]
