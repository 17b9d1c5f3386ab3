"""A name server of the test's own: whatever is asked, it gives the same addresses."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_A, _IN = 1, 1


@contextmanager
def naming(*addresses: str) -> Iterator[dict[str, str]]:
    """Every name has these (IPv4) addresses, in this order; yields the environment that makes gevent ask here."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        thread = threading.Thread(target=_answer, args=(sock, addresses))
        thread.start()
        try:
            yield {
                "GEVENT_RESOLVER": "ares",
                "GEVENTARES_SERVERS": "127.0.0.1",
                "GEVENTARES_UDP_PORT": str(sock.getsockname()[1]),
            }
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", sock.getsockname())
            thread.join(5)


def _answer(sock: socket.socket, addresses: tuple[str, ...]) -> None:
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
