"""Listening sockets: where they really listen, and what is said when they can't."""

import grp
import os
import pwd
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from gevent.socket import socket as GreenSocket

from greentask.errors import ConfigurationError
from greentask.hub.files import TLSFiles
from greentask.server.listening import bound_address, listen_on, parse_mode, socket_files
from greentask.server.server import DEFAULT_LISTEN
from greentask.wire.address import parse_address, parse_addresses
from support.forking import run_in_child
from support.programs import environment


@contextmanager
def listening(*addresses: str, **options: Any) -> Iterator[list[GreenSocket]]:
    sockets = listen_on(parse_addresses(addresses), **options)
    try:
        yield sockets
    finally:
        for sock in sockets:
            sock.close()


def refusal(*addresses: str, **options: Any) -> str:
    with pytest.raises(ConfigurationError) as caught, listening(*addresses, **options):
        pass
    return str(caught.value)


def can_connect(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as peer:
        peer.settimeout(5)
        return peer.connect_ex(str(path)) == 0


# ---- TCP


@pytest.mark.parametrize("address", ["127.0.0.1:0", "localhost:0", "tcp://127.0.0.1:0", "Text://127.0.0.1:0", ":0"])
def test_port_0_is_one_that_the_kernel_chose(address: str) -> None:
    with listening(address) as (sock,):
        bound = bound_address(sock)
        assert (bound.scheme, bound.host) == ("tcp", "127.0.0.1")
        assert bound.port > 0
        socket.create_connection((bound.host, bound.port), 5).close()


def test_ipv6() -> None:
    with listening("[::1]:0") as (sock,):
        bound = bound_address(sock)
        assert str(bound) == f"tcp://[::1]:{bound.port}"
        socket.create_connection((bound.host, bound.port), 5).close()


def test_several_addresses() -> None:
    with listening("127.0.0.1:0", "127.0.0.1:0") as sockets:
        assert len({bound_address(sock).port for sock in sockets}) == 2


def test_a_port_that_is_taken_names_the_remedy() -> None:
    with listening("127.0.0.1:0") as (sock,):
        address = str(bound_address(sock))
        said = refusal(address)
        assert said == (
            f"can't listen on {address}: another program listens there; stop it, or choose another port (--listen)"
        )


def test_none_stays_open_when_one_can_not_be_had() -> None:
    with listening("127.0.0.1:0") as (sock,):
        taken = str(bound_address(sock))
        with listening("127.0.0.1:0") as (free,):
            address = str(bound_address(free))
        refusal(address, taken)
        with listening(address):
            pass


def test_a_port_with_connections_that_have_just_been_closed_can_be_had() -> None:
    with listening("127.0.0.1:0") as (sock,):
        bound = bound_address(sock)
        peer = socket.create_connection((bound.host, bound.port), 5)
        connection, _ = sock.accept()
        connection.close()  # this side first: it is the one that is left in TIME_WAIT
        peer.close()
    with listening(str(bound)):
        pass


@pytest.mark.parametrize("address", ["0.0.0.0:0", "[::]:0", "192.0.2.1:0", "example.org:12345", "[2001:db8::1]:1"])
def test_what_other_machines_can_reach_needs_insecure(address: str) -> None:
    said = refusal(address)
    assert str(parse_address(address)) in said
    assert "--insecure" in said
    assert "127.0.0.1" in said


def test_with_insecure_it_is_meant() -> None:
    with listening("0.0.0.0:0", insecure=True) as (sock,):
        assert bound_address(sock).host == "0.0.0.0"


def test_the_default_is_this_machine_only() -> None:
    assert parse_address(DEFAULT_LISTEN).is_loopback


def test_an_address_that_this_machine_does_not_have() -> None:
    with pytest.raises(ConfigurationError, match=r"192\.0\.2\.1"):
        listen_on(parse_addresses("192.0.2.1:0"), insecure=True)


@pytest.mark.parametrize("tls", [None, TLSFiles(ca="of the callers")])
def test_tls_needs_a_certificate(tls: TLSFiles | None) -> None:
    assert "needs a certificate: pass --tls-cert and --tls-key" in refusal("tls://127.0.0.1:0", tls=tls)


# ---- Unix sockets


def test_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening(f"unix://{path}") as (sock,):
        assert bound_address(sock) == parse_address(f"unix://{path}")
        assert stat.S_ISSOCK(path.stat().st_mode)
        assert can_connect(path)


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening(f"unix://{path}"):
        pass
    assert path.exists()
    assert not can_connect(path)
    with listening(f"unix://{path}"):
        assert can_connect(path)


def test_a_socket_that_answers_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening(f"unix://{path}"):
        said = refusal(f"unix://{path}")
        assert "a server answers there already" in said
        assert f"unix://{path}" in said
        assert can_connect(path)


def test_a_socket_whose_server_is_too_busy_to_answer_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    waiting = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as busy:
        busy.bind(str(path))
        busy.listen(0)
        while True:  # until its queue is full
            peer = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            waiting.append(peer)
            peer.setblocking(False)
            if peer.connect_ex(str(path)):
                break
        inode = path.stat().st_ino
        assert "a server answers there already" in refusal(f"unix://{path}")
        assert path.stat().st_ino == inode
        for peer in waiting:
            peer.close()


@pytest.mark.parametrize("kind", ["file", "directory"])
def test_what_is_no_socket_is_left_alone(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "socket"
    if kind == "file":
        path.write_text("important")
    else:
        path.mkdir()
    assert "the file is there, and is no socket" in refusal(f"unix://{path}")
    assert path.is_dir() if kind == "directory" else path.read_text() == "important"


@pytest.mark.parametrize(
    ("name", "told"),
    [("none/socket", "there is no directory"), ("x" * 200, "too long"), ("file/socket", "Not a directory")],
)
def test_a_path_that_can_not_be(tmp_path: Path, name: str, told: str) -> None:
    (tmp_path / "file").touch()
    said = refusal(f"unix://{tmp_path}/{name}")
    assert said.startswith(f"can't listen on unix://{tmp_path}/{name}: ")
    assert told in said
    assert "\n" not in said


def test_a_folder_that_may_not_be_written_to(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    program = (
        "import os, sys\n"
        "from greentask.server.listening import listen_on\n"
        "from greentask.wire.address import parse_addresses\n"
        "listen_on(parse_addresses('127.0.0.1:0'))[0].close()\n"  # what is imported only when it is needed
        "if os.geteuid() == 0: os.seteuid(65534)\n"  # root may write anywhere
        "try: listen_on(parse_addresses(sys.argv[1]))\n"
        "except ValueError as error: print(error)\n"
    )
    address = f"unix://{tmp_path}/socket"
    done = subprocess.run([sys.executable, "-c", program, address], capture_output=True, text=True, env=environment())
    assert done.stdout == f"can't listen on {address}: permission denied; choose another path (--listen)\n", done


# ---- The file of a unix socket


def test_its_file_is_removed_by_whoever_bound_it(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with listening("127.0.0.1:0", f"unix://{path}") as sockets:
        (file,) = socket_files(sockets)
        assert run_in_child(file.remove) == 0
        assert can_connect(path), "a child of its isn't who bound it"
        file.remove()
        assert not path.exists()
        file.remove()


@pytest.mark.parametrize("with_what", ["a file", "another server's socket"])
def test_a_file_that_is_no_longer_ours_is_left_alone(tmp_path: Path, with_what: str) -> None:
    path = tmp_path / "socket"
    with listening(f"unix://{path}") as sockets:
        (file,) = socket_files(sockets)
        path.unlink()
        if with_what == "a file":
            path.write_text("important")
            file.remove()
            assert path.read_text() == "important"
        else:
            with listening(f"unix://{path}"):
                file.remove()
                assert can_connect(path)


def test_none_is_left_when_another_address_can_not_be_had(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    refusal(f"unix://{path}", "192.0.2.1:0")
    assert not path.exists()


@pytest.mark.parametrize("mode", [0o600, 0o660, 0o666, 0o777])
def test_its_mode_is_what_was_asked_for_whatever_the_umask(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "socket"
    before = os.umask(0o027)
    try:
        with listening(f"unix://{path}", socket_mode=mode):
            assert stat.S_IMODE(path.stat().st_mode) == mode
        (tmp_path / "file").touch()
        assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o640, "the umask is as it was"
    finally:
        os.umask(before)


def test_without_a_mode_the_umask_counts(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    before = os.umask(0o027)
    try:
        with listening(f"unix://{path}"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o750
    finally:
        os.umask(before)


def test_its_owner(tmp_path: Path) -> None:
    """Root may give it to anybody, others have it themselves and may give it to a group of theirs."""
    path = tmp_path / "socket"
    if os.geteuid() == 0:
        user, group, numbers = pwd.getpwall()[-1], grp.getgrall()[-1], (12345, 54321)
    else:
        user, group = pwd.getpwuid(os.geteuid()), grp.getgrgid((os.getgroups() or [os.getegid()])[-1])
        numbers = (user.pw_uid, group.gr_gid)
    for owner, ids in {
        user.pw_name: (user.pw_uid, os.getegid()),
        f":{group.gr_name}": (os.geteuid(), group.gr_gid),
        f"{user.pw_name}:{group.gr_name}": (user.pw_uid, group.gr_gid),
        f"{numbers[0]}:{numbers[1]}": numbers,
    }.items():
        with listening(f"unix://{path}", socket_owner=owner, socket_mode=0o660):
            found = path.stat()
            assert (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) == (*ids, 0o660)
            assert can_connect(path)


def test_an_owner_that_can_not_be(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    for owner in ("nobody-of-that-name", "root:nobody-of-that-name"):
        said = refusal(f"unix://{path}", socket_owner=owner)
        assert owner in said
        assert "user:group" in said
    assert not path.exists()


def test_an_owner_that_only_root_can_give_it_to() -> None:
    program = (
        "import os, sys\n"
        "from greentask.server.listening import listen_on\n"
        "from greentask.wire.address import parse_addresses\n"
        "listen_on(parse_addresses('127.0.0.1:0'))[0].close()\n"
        "if os.geteuid() == 0: os.seteuid(65534)\n"
        "try: listen_on(parse_addresses(sys.argv[1]), socket_owner='0:0')\n"
        "except ValueError as error: print(error)\n"
    )
    with tempfile.TemporaryDirectory() as folder:  # pytest's is private to us
        Path(folder).chmod(0o777)
        command = [sys.executable, "-c", program, f"unix://{folder}/socket"]
        done = subprocess.run(command, capture_output=True, text=True, env=environment())
        assert "only root can give a file to somebody else; leave --socket-owner out" in done.stdout, done
        assert list(Path(folder).iterdir()) == []


@pytest.mark.parametrize("text", ["660", "0660", "777"])
def test_a_mode_is_octal(text: str) -> None:
    assert parse_mode(text) == int(text, 8)


@pytest.mark.parametrize("text", ["", "u+w", "888", "66", "1777", "0o660", "rw-rw----", "-600"])
def test_what_is_no_mode(text: str) -> None:
    with pytest.raises(ConfigurationError, match="three octal digits"):
        parse_mode(text)
