"""Where a client calls that was given no address, and what it proves itself with: as the environment says.

``GREENTASK_URL``, and the files that ``GREENTASK_SECRET_FILE``, ``GREENTASK_TLS_CA``, ``_CERT`` and ``_KEY`` name.
"""

from __future__ import annotations

import os

from ..errors import ConfigurationError
from ..wire.address import DEFAULT_ADDRESS, parse_addresses

__all__ = ["default_address", "default_file"]


def default_address() -> str:
    """``GREENTASK_URL``, or else 127.0.0.1:12345. Raises ``ConfigurationError`` where the former is no address."""
    address = os.environ.get("GREENTASK_URL")
    if address:
        try:
            parse_addresses(address)
        except ConfigurationError as error:
            raise ConfigurationError(f"GREENTASK_URL in the environment: {error}") from None
    return address or DEFAULT_ADDRESS


def default_file(name: str) -> str | None:
    """The path in ``GREENTASK_`` + name, if there is one."""
    return os.environ.get(f"GREENTASK_{name}") or None
