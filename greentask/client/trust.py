"""What a client proves itself and others with: secrets and certificates, read anew when their files have changed."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from ..hub.files import Renewed, TLSFiles, read_secrets
from ..wire.proof import Secrets

if TYPE_CHECKING:
    from ssl import SSLContext

__all__ = ["context_of", "secrets_of"]


def secrets_of(secret: str | bytes | None, file: str | os.PathLike[str] | None) -> Callable[[], Secrets] | None:
    """Gives the secret at each connection; None where there is none."""
    if file is not None:
        if secret is not None:
            raise TypeError("pass secret or secret_file, not both")
        path = os.fspath(file)
        return Renewed([path], lambda: read_secrets(path)).get
    if secret is not None:
        fixed = Secrets([secret])
        return lambda: fixed
    return None


def context_of(files: TLSFiles) -> Callable[[], SSLContext]:
    """Gives the TLS context at each connection."""
    from ..hub.tls import client_context  # which imports ssl: not before a program was patched

    return Renewed(files.paths, partial(client_context, files)).get
