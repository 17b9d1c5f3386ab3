"""Proof of identity: server and client show each other that they know a secret, and neither sends it.

.. code-block:: text

    server   {"challenge": C, "greentask": 1}
    client   {"auth": {"nonce": N, "proof": HMAC-SHA256(secret, "greentask client" + C + N)}}
    server   {"auth": {"proof": HMAC-SHA256(secret, "greentask server" + C + N)}}

C and N are 32 random bytes each, in hex, as is a proof; what is hashed is their text as it was sent. C is the server's
and N the client's, both new for each connection and good for one answer: a proof that somebody overheard is of no use
on another connection or to another server. The word before them keeps the proof of one side from being sent back as
that of the other.

Errors say what to do, and never contain a secret or what a peer sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from typing import Any, NoReturn, TypeGuard

from ..errors import ConfigurationError, InvalidMessage, Unauthenticated
from .json import dumps, loads

__all__ = ["MAX_PROOF_LINE", "MIN_SECRET", "ClientProof", "Secrets", "ServerProof"]

#: Bytes of a line of the proof; the longest that there is takes 167.
MAX_PROOF_LINE = 1024
#: Bytes of a secret at least.
MIN_SECRET = 16

_VERSION = 1
_HEX = re.compile(r"[0-9a-f]{64}")
_MOST_SHOWN = 200  # characters of a server's complaint


class Secrets:
    """One secret or several: a server takes proof of any of them, a client proves the first.

    Raises ``ConfigurationError`` for none at all, or one that could be guessed. Neither ``repr`` nor ``pickle`` gives
    them away.
    """

    __slots__ = ("_keys",)

    def __init__(self, secrets: Iterable[str | bytes]) -> None:
        if isinstance(secrets, (str, bytes)):
            secrets = [secrets]
        self._keys = tuple(secret.encode() if isinstance(secret, str) else bytes(secret) for secret in secrets)
        if not self._keys:
            raise ConfigurationError("no secret is given: make one with openssl rand -hex 32")
        for number, key in enumerate(self._keys, 1):
            if len(key) < MIN_SECRET:
                raise ConfigurationError(
                    f"secret {number} of {len(self._keys)} has {len(key)} bytes, and could be guessed: it takes "
                    f"{MIN_SECRET} at least; make one with openssl rand -hex 32"
                )

    def __repr__(self) -> str:
        return f"<{len(self._keys)} secret{'s' * (len(self._keys) != 1)}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secrets are not pickled: pass on the file that they are in")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secrets) and self._keys == other._keys

    __hash__ = None  # type: ignore[assignment]

    def _of_first(self, side: str, challenge: str, nonce: str) -> bytes:
        return _hash(self._keys[0], side, challenge, nonce)

    def _find(self, challenge: str, nonce: str, proof: str) -> bytes | None:
        """The secret that a client has proven. Takes as long for a wrong proof as for a right one."""
        found = None
        for key in self._keys:
            if _are_same(_hash(key, "client", challenge, nonce), proof):
                found = key
        return found


class ServerProof:
    """The server's side, for one connection: send ``greeting``, then give ``answer`` the client's first line."""

    __slots__ = ("_challenge", "_secrets")

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._challenge: str | None = os.urandom(32).hex()

    @property
    def greeting(self) -> bytes:
        """The line to begin with."""
        return dumps({"challenge": self._challenge, "greentask": _VERSION}) + b"\n"

    def answer(self, line: bytes) -> bytes:
        """The line that proves the server to a client that has proven itself; else raises ``Unauthenticated``."""
        challenge, self._challenge = self._challenge, None  # there is no second attempt
        auth = _member(line, "auth")
        if challenge is None or not isinstance(auth, dict):
            raise Unauthenticated(
                "this server wants proof of a secret before anything else: give the client the secret's file "
                "(secret_file=, --secret-file or GREENTASK_SECRET_FILE)"
            )
        nonce, proof = auth.get("nonce"), auth.get("proof")
        if not (_is_hex(nonce) and _is_hex(proof)):
            raise Unauthenticated("auth must have a nonce and a proof, each of 64 hexadecimal digits in lower case")
        key = self._secrets._find(challenge, nonce, proof)
        if key is None:
            raise Unauthenticated("the proof is wrong: the client's secret is none of this server's")
        return dumps({"auth": {"proof": _hash(key, "server", challenge, nonce).decode()}}) + b"\n"


class ClientProof:
    """The client's side, for one connection: ``answer`` the server's first line, then ``check`` its second.

    Nothing else may be sent before ``check`` has returned: until then the server may be anybody.
    """

    __slots__ = ("_challenge", "_nonce", "_secrets")

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets
        self._challenge = ""
        self._nonce = os.urandom(32).hex()

    def answer(self, greeting: bytes) -> bytes:
        """The line that proves the client. Raises ``Unauthenticated`` for what is no greeting."""
        self._challenge = challenge = _member(greeting, "challenge")
        if not _is_hex(challenge):
            raise Unauthenticated(
                _complaint(greeting)
                or "it doesn't ask for a proof: it is no greentask server, or was started without --secret-file"
            )
        if _member(greeting, "greentask") != _VERSION:
            raise Unauthenticated(f"it wants another version of the proof than this client knows ({_VERSION})")
        proof = self._secrets._of_first("client", challenge, self._nonce)
        return dumps({"auth": {"nonce": self._nonce, "proof": proof.decode()}}) + b"\n"

    def check(self, line: bytes) -> None:
        """Raise ``Unauthenticated`` unless the line proves the server."""
        auth = _member(line, "auth")
        proof = auth.get("proof") if isinstance(auth, dict) else None
        if not _is_hex(proof):
            raise Unauthenticated(_complaint(line) or "it didn't prove that it knows the secret")
        if not _are_same(self._secrets._of_first("server", self._challenge, self._nonce), proof):
            raise Unauthenticated("it doesn't know the secret: the wrong server answers there")


def _are_same(hashed: bytes, proof: str) -> bool:
    import hmac

    return hmac.compare_digest(hashed, proof.encode())


def _hash(key: bytes, side: str, challenge: str, nonce: str) -> bytes:
    import hmac  # here, for it takes 5 ms, and most programs have no secret

    return hmac.digest(key, f"greentask {side}{challenge}{nonce}".encode(), "sha256").hex().encode()


def _is_hex(value: object) -> TypeGuard[str]:
    return isinstance(value, str) and _HEX.fullmatch(value) is not None


def _member(line: bytes, name: str) -> Any:
    """A member of the line's object; None where there is none, or the line is something else."""
    try:
        message = loads(line)
    except InvalidMessage:
        return None
    return message.get(name) if isinstance(message, dict) else None


def _complaint(line: bytes) -> str | None:
    """What a server said in place of its part. It may be anybody: nothing of it may command a terminal."""
    error = _member(line, "error")
    message = error.get("message") if isinstance(error, dict) else None
    if not isinstance(message, str) or not message:
        return None
    shown = "".join(char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in message[:_MOST_SHOWN])
    return shown + "…" * (len(message) > _MOST_SHOWN)
