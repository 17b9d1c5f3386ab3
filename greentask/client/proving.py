"""The client's part of the proof, on a connection that has just been opened."""

from __future__ import annotations

from typing import Any

import gevent

from ..errors import Unauthenticated
from ..wire.proof import MAX_PROOF_LINE, ClientProof, Secrets

__all__ = ["prove"]


def prove(sock: Any, secrets: Secrets, timeout: float) -> bytes:
    """Prove ourselves to a server, and have it prove itself; what it sent behind that.

    Raises ``Unauthenticated`` where either fails or takes more than ``timeout`` seconds, ``OSError`` where the
    connection breaks.
    """
    proof = ClientProof(secrets)
    line, rest = _read_line(sock, b"", timeout, "it didn't ask for a proof")
    sock.sendall(proof.answer(line))
    line, rest = _read_line(sock, rest, timeout, "it didn't answer our proof")
    proof.check(line)
    return rest


def _read_line(sock: Any, held: bytes, timeout: float, complaint: str) -> tuple[bytes, bytes]:
    def read() -> bytes:
        data = held
        while b"\n" not in data:
            if len(data) > MAX_PROOF_LINE:
                raise Unauthenticated(f"{complaint}, but sent a long line: it is no greentask server")
            more = sock.recv(MAX_PROOF_LINE)
            if not more:
                raise Unauthenticated(f"{complaint}, but closed the connection")
            data += more
        return data

    heard = gevent.with_timeout(timeout, read, timeout_value=None)
    if heard is None:
        raise Unauthenticated(
            f"{complaint} within {timeout:g} s: is it a greentask server, started with --secret-file?"
        )
    line, _, rest = heard.partition(b"\n")
    return line.removesuffix(b"\r"), rest
