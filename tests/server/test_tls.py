"""TLS on both sides, with real certificates of an authority that the tests make."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from greentask import Client, ConfigurationError, ConnectionLost, Server, TextServer, TLSFiles
from support import server_tasks
from support.certificates import Authority, flags
from support.pools import children
from support.programs import greentask
from support.servers import LineClient, RunningServer, serving, wait_until


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("ours"))


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("others"))


@pytest.fixture(scope="module")
def server(ours: Authority) -> Iterator[RunningServer]:
    listen = ["tls://127.0.0.1:0", "127.0.0.1:0"]
    with serving(*flags(ours), "--handshake-timeout", "1", listen=listen) as server:
        yield server
        assert "Traceback" not in server.output()


@pytest.fixture(scope="module")
def strict(ours: Authority) -> Iterator[RunningServer]:
    """One that wants to see a certificate, and so may listen where anybody can call."""
    with serving(*flags(ours, "--tls-client-ca", ours.ca), listen=["tls://0.0.0.0:0"]) as server:
        yield server


def context_for(authority: Authority) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=authority.ca)


def connect(server: RunningServer, context: ssl.SSLContext) -> LineClient:
    sock = socket.create_connection(("127.0.0.1", server.port), 20)
    return LineClient(context.wrap_socket(sock, server_hostname="localhost"))


# ---- Calls


def test_calls_go_through_it(server: RunningServer, ours: Authority) -> None:
    assert server.address.startswith("tls://127.0.0.1:")
    with Client(server.address, tls_ca=ours.ca) as client:
        assert client.call("add", 1, 2) == 3
        assert client.call("add_in_process", 1, 2) == 3
        assert list(client.map("add", range(500), range(500))) == [2 * number for number in range(500)]
        large = "é" * 3_000_000
        assert client.call("echo", large) == large
        assert client.call("echo_in_process", large) == large
        assert list(client.stream("count", 200)) == list(range(200))


def test_any_tls_client_can_call(server: RunningServer, ours: Authority) -> None:
    with connect(server, context_for(ours)) as peer:
        assert peer.socket.version() == "TLSv1.3"
        assert peer.call("add", 1, 2) == 3
        peer.send_bytes(b'{"function":"add",')
        peer.send_bytes(b'"args":[2,3]}\n')
        assert peer.hear() == {"result": 5}


def test_older_tls_is_spoken_down_to_1_2(server: RunningServer, ours: Authority) -> None:
    context = context_for(ours)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with connect(server, context) as peer:
        assert peer.call("add", 1, 2) == 3


def test_a_secret_goes_with_it(ours: Authority, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef0123456789abcdef\n")
    secret.chmod(0o600)
    options = flags(ours, "--secret-file", str(secret))
    with (
        serving(*options, apps=["support.server_tasks:add"], listen=["tls://127.0.0.1:0"]) as server,
        Client(server.address, tls_ca=ours.ca, secret_file=secret) as client,
    ):
        assert client.call("add", 1, 2) == 3


def test_the_command_line_can_call(server: RunningServer, strict: RunningServer, ours: Authority) -> None:
    done = greentask("call", "-s", server.address, "--tls-ca", ours.ca, "add", "a=1", "b=2")
    assert (done.returncode, done.stdout) == (0, "3\n")
    cert, key = ours.client
    address = f"tls://127.0.0.1:{strict.port}"
    done = greentask(
        "call", "-s", address, "add", "a=1", GREENTASK_TLS_CA=ours.ca, GREENTASK_TLS_CERT=cert, GREENTASK_TLS_KEY=key
    )
    assert (done.returncode, done.stdout) == (0, "1\n")


# ---- Who is who


def test_callers_have_to_show_a_certificate_where_that_is_wanted(
    strict: RunningServer, ours: Authority, others: Authority
) -> None:
    address = f"tls://127.0.0.1:{strict.port}"
    cert, key = ours.client
    with Client(address, tls_ca=ours.ca, tls_cert=cert, tls_key=key) as client:
        assert client.call("add", 1, 2) == 3
    with Client(address, tls_ca=ours.ca) as client, pytest.raises(ConnectionLost):
        client.call("add", 1, 2)
    cert, key = others.client
    with Client(address, tls_ca=ours.ca, tls_cert=cert, tls_key=key) as client, pytest.raises(ConnectionLost):
        client.call("add", 1, 2)
    wait_until(lambda: "the TLS handshake with 127.0.0.1 failed" in strict.output(), "it is logged")


def test_renewed_certificates_are_picked_up_without_a_restart(tmp_path: Path) -> None:
    authority = Authority(tmp_path / "renewed")

    def serial(server: RunningServer) -> str:
        with connect(server, context_for(authority)) as peer:
            number: str = peer.socket.getpeercert()["serialNumber"]
            return number

    with (
        serving(*flags(authority), apps=["support.server_tasks:add"], listen=["tls://127.0.0.1:0"]) as server,
        connect(server, context_for(authority)) as peer,
    ):
        before = serial(server)
        Path(authority.server[1]).write_text("broken")
        wait_until(lambda: serial(server) == before and "stays in use" in server.output(), "the broken one is seen")
        authority.issue("server", "localhost", "127.0.0.1")
        wait_until(lambda: serial(server) != before, "the new one is shown")
        assert peer.call("add", 1, 2) == 3, "and who was connected stays so"


# ---- What goes wrong at start


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ((), "needs a certificate: pass --tls-cert and --tls-key"),
        (("--tls-cert", "/no/such"), "TLS: /no/such can't be used: No such file"),
        (("--tls-cert", __file__), "can't be used"),
    ],
)
def test_what_can_not_be_used_is_an_error_at_start(options: tuple[str, ...], told: str) -> None:
    done = greentask("serve", "support.server_tasks:add", "--listen", "tls://127.0.0.1:0", *options)
    assert done.returncode == 1
    assert told in done.stderr.splitlines()[-1]


def test_a_certificate_that_can_not_be_used_leaves_nothing_behind_in_a_program() -> None:
    before, listen, tls = children(), "tls://127.0.0.1:0", TLSFiles("/no/such")
    for server in (Server([server_tasks.spin], listen, tls=tls), TextServer(listen, print, tls=tls)):
        with pytest.raises(ConfigurationError, match="/no/such can't be used: No such file"):
            server.start()
        assert server.addresses == []
        assert children() == before


def test_a_certificate_that_no_address_would_show_is_an_error_at_start(ours: Authority) -> None:
    cert, key = ours.server
    done = greentask(
        "serve", "support.server_tasks:add", "--listen", "127.0.0.1:0", "--tls-cert", cert, "--tls-key", key
    )
    assert done.returncode == 1
    assert "tcp://127.0.0.1:0 is none: write --listen tls://host:port" in done.stderr
    with pytest.raises(ConfigurationError, match="TLS is spoken on tls:// addresses only"):
        TextServer("127.0.0.1:0", print, tls=TLSFiles(cert, key)).start()


def test_a_certificate_of_its_own_alone_opens_nothing_to_the_world(ours: Authority) -> None:
    done = greentask("serve", "support.server_tasks:add", "--listen", "tls://0.0.0.0:0", *flags(ours))
    assert done.returncode == 1
    assert "--tls-client-ca" in done.stderr.splitlines()[-1]
