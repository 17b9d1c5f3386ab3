"""What every HTTP connection is bounded by: the head of a request, and the time that all of it takes."""

from __future__ import annotations

import math
from typing import BinaryIO

from gevent.socket import SHUT_RDWR
from gevent.socket import socket as GreenSocket

from ..errors import ConfigurationError

__all__ = ["DEFAULT_MAX_HEAD", "Head", "break_off", "check_limits"]

#: Bytes of a request's head.
DEFAULT_MAX_HEAD = 16 * 1024
_MOST_LINES = 100


class Head:
    """The file of a request, of which no more is read than its head may take: then a ``ValueError`` is raised."""

    def __init__(self, file: BinaryIO, most: int) -> None:
        self._file = file
        self._most = self._bytes = most
        self._lines = _MOST_LINES

    @property
    def closed(self) -> bool:
        return self._file.closed

    def readline(self, most: int = -1) -> bytes:
        if not (self._bytes and self._lines):
            raise ValueError(f"the head of the request has more than {self._most} bytes or {_MOST_LINES} lines")
        line = self._file.readline(min(most, self._bytes) if most >= 0 else self._bytes)
        self._bytes -= len(line)
        self._lines -= 1
        return line

    def read(self, _most: int = -1) -> bytes:
        return b""

    def close(self) -> None:
        self._file.close()


def break_off(sock: GreenSocket) -> None:
    """End a connection for whoever reads from it or writes to it. It stays theirs to close."""
    try:
        sock.shutdown(SHUT_RDWR)
    except OSError:
        pass  # it is gone


def check_limits(*, max_connections: int, request_timeout: float, max_head: int) -> None:
    """Raise ``ConfigurationError`` for what is no limit."""
    for name, number in (("max_connections", max_connections), ("max_head", max_head)):
        if number < 1:
            raise ConfigurationError(f"{name} is 1 or more, not {number!r}")
    if not 0 < request_timeout < math.inf:
        raise ConfigurationError(f"request_timeout is in seconds above 0, not {request_timeout!r}")
