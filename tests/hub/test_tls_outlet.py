"""The outlet of a TLS connection: records leave in the order in which they were encrypted, whoever comes in between."""

import socket
import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
import pytest
from gevent.hub import get_hub
from gevent.socket import socket as GreenSocket

from greentask.hub import outlet as outlet_module
from greentask.hub import tls as tls_module
from greentask.hub.files import TLSFiles
from greentask.hub.outlet import Outlet
from greentask.hub.tls import TLSSocket
from support.certificates import Authority
from support.interrupting import at_each_moment, ctrl_c

LINE, OF_HANDLER, LAST = b"a" * 40_000 + b"\n", b"of the handler\n", b"last\n"


@pytest.fixture(scope="module")
def contexts(tmp_path_factory: pytest.TempPathFactory) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    cert, key = authority.server
    ours = tls_module.server_context(TLSFiles(cert=cert, key=key))
    return ours, tls_module.client_context(TLSFiles(ca=authority.ca))


@contextmanager
def connected(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> Iterator[tuple[Outlet, TLSSocket]]:
    ends = []
    for end in socket.socketpair():
        ends.append(GreenSocket(fileno=end.detach()))
    ours, theirs = TLSSocket(ends[0], contexts[0]), TLSSocket(ends[1], contexts[1], server_name="localhost")
    both = [gevent.spawn(ours.handshake, 20), gevent.spawn(theirs.handshake, 20)]
    gevent.joinall(both, raise_error=True)
    outlet = ours.make_outlet(get_hub().loop, unexpected)
    try:
        yield outlet, theirs
    finally:
        outlet.close()
        ours.close()
        theirs.close()


def unexpected(error: OSError) -> None:
    raise AssertionError(f"the other end is not gone: {error}")


def read_up_to(reader: TLSSocket, last: bytes) -> bytes:
    data = b""
    with gevent.Timeout(20):
        while not data.endswith(last):
            piece = reader.recv(65536)
            assert piece, data[-100:]
            data += piece
    return data


@pytest.mark.parametrize("of_handler", ["write", "write_now"])
def test_what_a_signal_handler_writes_at_any_moment_comes_between_lines(
    contexts: tuple[ssl.SSLContext, ssl.SSLContext], of_handler: str
) -> None:
    orders = set()

    def handler() -> None:
        getattr(outlet, of_handler)(OF_HANDLER)

    for run in at_each_moment(tls_module, outlet_module, handler=handler):
        with connected(contexts) as (outlet, reader):
            run(lambda: outlet.write(LINE))
            outlet.write(LAST)
            read = read_up_to(reader, LAST)
            orders.add(b"".join(piece[:1] for piece in read.splitlines(keepends=True)))
            assert read.replace(LINE, b"", 1).replace(LAST, b"", 1) in (OF_HANDLER, b"")
    assert {b"al", b"oal", b"aol"} == orders


def test_a_ctrl_c_at_any_moment_breaks_no_connection(contexts: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    found = set()
    for run in at_each_moment(tls_module, outlet_module, handler=ctrl_c):
        with connected(contexts) as (outlet, reader):
            run(lambda: outlet.write(LINE))
            outlet.mend()
            outlet.write(LAST)
            found.add(read_up_to(reader, LAST))
    assert found == {LINE + LAST, LAST}
