"""A name server of the test's own: whatever is asked, it gives the same addresses."""

import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from gevent.resolver.ares import Resolver

from greentask.hub.home import find_home

_A, _IN = 1, 1


@contextmanager
def naming(*addresses: str) -> Iterator[dict[str, str]]:
    """Every name has these (IPv4) addresses, in this order; yields the environment that makes gevent ask here."""
    with _name_server(addresses) as port:
        yield {"GEVENT_RESOLVER": "ares", "GEVENTARES_SERVERS": "127.0.0.1", "GEVENTARES_UDP_PORT": str(port)}


@contextmanager
def named(addresses: Sequence[str]) -> Iterator[None]:
    """To the clients of this process every name has these (IPv4) addresses, also those that are added meanwhile."""
    home = find_home()
    before: list[Any] = []

    def use(port: int) -> None:
        home.keep()  # the next one would have another hub, with another resolver
        before.append(home.hub.resolver)
        home.hub.resolver = Resolver(home.hub, servers=["127.0.0.1"], udp_port=port)

    def use_no_more() -> None:
        own, home.hub.resolver = home.hub.resolver, before.pop()
        own.close()
        home.let_go()

    with _name_server(addresses) as port:
        home.run(use, port)
        try:
            yield
        finally:
            home.run(use_no_more)


@contextmanager
def _name_server(addresses: Sequence[str]) -> Iterator[int]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=_answer, args=(sock, addresses))
        thread.start()
        try:
            yield sock.getsockname()[1]
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", sock.getsockname())
            thread.join(5)


def _answer(sock: socket.socket, addresses: Sequence[str]) -> None:
    while True:
        query, peer = sock.recvfrom(4096)
        if not query:
            return
        end = 12
        while query[end]:  # the labels of the name
            end += query[end] + 1
        question = query[12 : end + 5]
        kind = int.from_bytes(question[-4:-2], "big")
        found = addresses if kind == _A else ()
        header = query[:2] + b"\x81\x80" + b"\x00\x01" + len(found).to_bytes(2, "big") + bytes(4)
        records = [
            b"\xc0\x0c" + _A.to_bytes(2, "big") + _IN.to_bytes(2, "big") + bytes(4) + b"\x00\x04" + socket.inet_aton(ip)
            for ip in found
        ]
        sock.sendto(header + question + b"".join(records), peer)
