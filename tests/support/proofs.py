"""Proofs of a secret, made without greentask's own code, and files of secrets."""

import hashlib
import hmac
import os
from pathlib import Path

from support.servers import LineClient

__all__ = ["OTHER", "SECRET", "answer", "proof_of", "prove", "secret_file"]

SECRET = "correct horse battery staple"
OTHER = "an other secret, of a good length"


def proof_of(secret: str, side: str, challenge: str, nonce: str) -> str:
    return hmac.new(secret.encode(), f"greentask {side}{challenge}{nonce}".encode(), hashlib.sha256).hexdigest()


def answer(secret: str, challenge: str) -> dict[str, dict[str, str]]:
    """The client's line."""
    nonce = os.urandom(32).hex()
    return {"auth": {"nonce": nonce, "proof": proof_of(secret, "client", challenge, nonce)}}


def prove(peer: LineClient, secret: str = SECRET) -> LineClient:
    """Prove ourselves on a new connection, and see that the server does."""
    greeting = peer.hear()
    assert greeting["greentask"] == 1
    ours = answer(secret, greeting["challenge"])
    theirs = peer.ask(ours)
    assert theirs == {"auth": {"proof": proof_of(secret, "server", greeting["challenge"], ours["auth"]["nonce"])}}
    return peer


def secret_file(folder: Path, *lines: str, mode: int = 0o600) -> Path:
    path = folder / "secrets"
    path.write_text("".join(f"{line}\n" for line in lines or (SECRET,)))
    path.chmod(mode)
    return path
