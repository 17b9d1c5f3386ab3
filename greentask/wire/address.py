"""Addresses: ``host:port``, ``tcp://``, ``tls://``, ``unix:///path`` and Workerman's ``Text://``."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import ConfigurationError

__all__ = ["DEFAULT_ADDRESS", "Address", "parse_address", "parse_addresses"]

DEFAULT_ADDRESS = "127.0.0.1:12345"  # where a server listens, and a client looks for one

_FORMS = "host:port, tcp://host:port, tls://host:port, Text://host:port, unix:///path, [::1]:port for IPv6"
_HOST_PORT = re.compile(r"(?:\[(?P<v6>[^\s\[\]]+)\]|(?P<host>[^\s:/\[\]]*)):(?P<port>[0-9]{1,5})")
_SCHEMES = {"tcp": "tcp", "text": "tcp", "tls": "tls", "unix": "unix"}


@dataclass(frozen=True, slots=True)
class Address:
    """Where a server listens. ``scheme`` is ``tcp``, ``tls`` or ``unix``; a unix one has only a ``path``."""

    scheme: str
    host: str = ""
    port: int = 0
    path: str = ""

    def __str__(self) -> str:
        if self.scheme == "unix":
            return f"unix://{self.path}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        if self.scheme == "unix" or self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host.partition("%")[0]).is_loopback
        except ValueError:
            return False


def parse_address(text: str) -> Address:
    """One address. Raises ``ConfigurationError`` naming the forms that there are.

    >>> str(parse_address("Text://127.0.0.1:12345"))
    'tcp://127.0.0.1:12345'
    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "tcp", scheme
    known = _SCHEMES.get(scheme.lower())
    if known is None:
        raise ConfigurationError(f"{text!r} is not an address: {scheme!r} is no scheme of ours; write {_FORMS}")
    if known == "unix":
        if not rest.startswith("/") or "\0" in rest:
            raise ConfigurationError(f"{text!r} is not an address: write unix:///absolute/path")
        return Address("unix", path=rest)
    match = _HOST_PORT.fullmatch(rest)
    if match is None:
        raise ConfigurationError(f"{text!r} is not an address: write {_FORMS}")
    if match["v6"] is not None and not _is_ipv6(match["v6"]):
        raise ConfigurationError(f"{text!r} is not an address: {match['v6']!r} is no IPv6 address")
    port = int(match["port"])
    if port > 65535:
        raise ConfigurationError(f"{text!r} is not an address: port {port} is above 65535")
    return Address(known, host=match["v6"] or match["host"] or "127.0.0.1", port=port)


def _is_ipv6(host: str) -> bool:
    try:
        ipaddress.IPv6Address(host)
    except ValueError:
        return False
    return True


def parse_addresses(text: str | Iterable[str]) -> tuple[Address, ...]:
    """Several addresses, comma separated or as a list: "any of these"."""
    given: object = text
    if not isinstance(given, Iterable) or isinstance(given, (bytes, bytearray)):
        raise ConfigurationError(f"{text!r} is not an address: write {_FORMS}")
    parts = text.split(",") if isinstance(text, str) else list(text)
    for part in parts:
        if not isinstance(part, str):
            raise ConfigurationError(f"{part!r} is not an address: write {_FORMS}")
    found = tuple(parse_address(part) for part in parts if part.strip())
    if not found:
        raise ConfigurationError(f"no address given: write {_FORMS}")
    return found
