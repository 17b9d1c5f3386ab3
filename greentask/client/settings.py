"""What a client is told of its servers, and of how to connect to them: checked, and the rest taken from elsewhere."""

from __future__ import annotations

import os
from collections.abc import Iterable

from ..hub.files import TLSFiles
from ..tasks.checks import check_count, check_seconds
from ..wire.address import parse_addresses
from .core import Core
from .environment import default_address, default_file
from .link import LinkOptions
from .trust import context_of, secrets_of

__all__ = ["core_of"]

_Path = str | os.PathLike[str] | None


def core_of(
    address: str | Iterable[str] | None,
    weights: Iterable[float] | None,
    *,
    connect_timeout: float,
    max_line: int,
    dead_after: float,
    idle_after: float,
    gone_after: float,
    resolve_after: float,
    secret: str | bytes | None,
    secret_file: _Path,
    tls: tuple[_Path, _Path, _Path],
) -> Core:
    """See ``Client``. ``tls`` are the paths of our certificate, of its key, and of the authority's certificate."""
    is_default = address is None
    if address is None:
        address = default_address()
        if secret is None:
            secret_file = secret_file or default_file("SECRET_FILE")
        cert, key, ca = tls
        tls = (
            cert or default_file("TLS_CERT"),
            key or default_file("TLS_KEY"),
            ca or default_file("TLS_CA"),
        )
    addresses = parse_addresses(address)
    files = TLSFiles(*(None if path is None else os.fspath(path) for path in tls))
    context = None
    if files.paths or any(one.scheme == "tls" for one in addresses):
        context = context_of(files)
    secrets = secrets_of(secret, secret_file)
    options = LinkOptions(
        check_seconds("connect_timeout", connect_timeout),
        check_count("max_line", max_line),
        check_seconds("dead_after", dead_after),
        check_seconds("idle_after", idle_after),
        check_seconds("gone_after", gone_after, zero=True),
        check_seconds("resolve_after", resolve_after),
        secrets,
        context,
    )
    return Core(addresses, None if weights is None else tuple(weights), options, is_default=is_default)
