"""Files that an operator replaces while a program runs: secrets, keys and certificates."""

from __future__ import annotations

import logging
import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from ..errors import ConfigurationError
from ..wire.proof import MIN_SECRET, Secrets

__all__ = ["Renewed", "TLSFiles", "check_private", "read_secrets"]

logger = logging.getLogger(__name__)

_LOOKED_EVERY = 1.0  # seconds
_MOST_BYTES = 64 * 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TLSFiles:
    """The files of one side, in PEM.

    cert, key
        Its certificate (with the chain behind it), and the key; the key may be in the same file.
    ca
        A server: callers must have a certificate of this authority (mutual TLS). A client: the server's must be of
        this one, and not of one of those that the system trusts.
    """

    cert: str | None = None
    key: str | None = None
    ca: str | None = None

    @property
    def paths(self) -> tuple[str, ...]:
        """Those that there are."""
        return tuple(path for path in (self.cert, self.key, self.ca) if path is not None)


class Renewed(Generic[T]):
    """What ``load`` makes of some files; made anew by ``get`` when one of them has changed.

    It looks at most once a second. Files that can't be used any more leave in use what there was, and are logged once.
    Raises ``ConfigurationError`` where they can't be used at first.
    """

    def __init__(
        self, paths: Iterable[str], load: Callable[[], T], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._paths = tuple(paths)
        self._load = load
        self._clock = clock
        self._stamp = self._look()  # before loading: a change meanwhile is seen later
        self._looked_at = clock()
        self._loaded = load()

    def get(self) -> T:
        """The newest that could be had."""
        now = self._clock()
        if now - self._looked_at >= _LOOKED_EVERY:
            self._looked_at = now
            stamp = self._look()
            if stamp != self._stamp:
                self._stamp = stamp
                try:
                    self._loaded = self._load()
                except ConfigurationError as error:
                    logger.warning("what was loaded before stays in use: %s", error)
                else:
                    logger.info("loaded anew: %s", ", ".join(self._paths))
        return self._loaded

    def _look(self) -> tuple[object, ...]:
        return tuple(map(_stamp, self._paths))


def _stamp(path: str) -> object:
    try:
        found = os.stat(path)
    except OSError as error:
        return error.errno
    return found.st_ino, found.st_mtime_ns, found.st_ctime_ns, found.st_size


def read_secrets(path: str) -> Secrets:
    """The secrets of a file, one a line; empty lines, and those that begin with ``#``, are none.

    Raises ``ConfigurationError``, with nothing of the file in it.
    """
    try:
        with open(path, "rb") as file:
            check_private(path, os.fstat(file.fileno()))
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise ConfigurationError(
            f"the secret file {path} can't be read: {error.strerror or error}; make one with: "
            f"(umask 077; openssl rand -hex 32 > {path})"
        ) from None
    if len(content) > _MOST_BYTES:
        raise ConfigurationError(f"the secret file {path} has more than {_MOST_BYTES} bytes: is it another file?")
    found = []
    for number, line in enumerate(content.splitlines(), 1):
        secret = line.strip()
        if not secret or secret.startswith(b"#"):
            continue
        if len(secret) < MIN_SECRET:
            raise ConfigurationError(
                f"line {number} of the secret file {path} has {len(secret)} bytes, and could be guessed: a secret "
                f"takes {MIN_SECRET} at least; make one with openssl rand -hex 32"
            )
        found.append(secret)
    if not found:
        raise ConfigurationError(
            f"the secret file {path} has no secret in it; make one with: (umask 077; openssl rand -hex 32 > {path})"
        )
    return Secrets(found)


def check_private(path: str, found: os.stat_result) -> None:
    """Raise ``ConfigurationError`` for a file that everybody on this machine can read, or more than its owner write.

    Its group may read it: that is how secrets are handed to a service that has a user of its own.
    """
    mode = stat.S_IMODE(found.st_mode)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        raise ConfigurationError(
            f"{path} is open to others (mode {mode:04o}), and what is in it is no secret then: chmod 600 {path}, or "
            "640 where its group has to read it"
        )
