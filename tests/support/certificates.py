"""Certificates of an authority of the tests' own, as files."""

from pathlib import Path
from typing import Any

import trustme

__all__ = ["Authority", "flags"]


class Authority:
    """An authority, a server's certificate for localhost and 127.0.0.1, and a client's; as files."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._made = trustme.CA()
        self.folder = folder
        self.ca = str(folder / "ca.pem")
        self._made.cert_pem.write_to_path(self.ca)
        self.server = self.issue("server", "localhost", "127.0.0.1")
        self.client = self.issue("client", "client@example.org")

    def issue(self, name: str, *identities: str, **options: Any) -> tuple[str, str]:
        made = self._made.issue_cert(*identities, **options)
        cert, key = self.folder / f"{name}.pem", self.folder / f"{name}.key"
        cert.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        made.private_key_pem.write_to_path(key)
        key.chmod(0o600)
        return str(cert), str(key)


def flags(authority: Authority, *more: str) -> tuple[str, ...]:
    """What `greentask serve` is told."""
    cert, key = authority.server
    return ("--tls-cert", cert, "--tls-key", key, *more)
