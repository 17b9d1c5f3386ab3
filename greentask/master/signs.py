"""The signs of life that others read: a pid file, a ready file, and what systemd is told.

The protocol of ``sd_notify(3)``: datagrams of ``NAME=value`` lines, to the socket that ``NOTIFY_SOCKET`` names.
"""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

from ..errors import ConfigurationError

__all__ = ["Notifier", "read_pid", "remove_file", "write_file"]


class Notifier:
    """Tells systemd how the service is; nobody, where it was not started by systemd (``Type=notify``)."""

    def __init__(self) -> None:
        self._path = os.environ.pop("NOTIFY_SOCKET", "")  # the fronts and what they start are not to speak for us

    def ready(self, status: str) -> None:
        """It serves: at its start, and after a reload."""
        self._tell("READY=1", f"STATUS={status}", f"MAINPID={os.getpid()}")

    def reloading(self) -> None:
        """A reload begins."""
        self._tell("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}", "STATUS=reloading")

    def stopping(self) -> None:
        """It drains, and ends."""
        self._tell("STOPPING=1", "STATUS=draining")

    def _tell(self, *lines: str) -> None:
        if not self._path:
            return
        name = "\0" + self._path[1:] if self._path.startswith("@") else self._path
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
                sock.sendto("\n".join(lines).encode(), socket.MSG_DONTWAIT, name)
        except OSError:
            pass  # who was to hear it is gone, or there is no descriptor left: a stop must go on all the same


def write_file(path: str, text: str, flag: str) -> None:
    """Write a file in one go: who reads it sees all or nothing. Raises ``ConfigurationError`` naming the flag."""
    target = Path(path)
    fresh = target.with_name(f".{target.name}.{os.getpid()}")
    try:
        fresh.write_text(text)
        fresh.replace(target)
    except OSError as error:
        raise ConfigurationError(f"{flag}: can't write {path}: {error.strerror}") from None


def read_pid(path: str) -> int | None:
    """The process id that a file has; None where there is none."""
    try:
        return int(Path(path).read_bytes())
    except (OSError, ValueError):
        return None


def remove_file(path: str, text: str) -> None:
    """Remove it, where it still says what we wrote: another server may have written it since."""
    try:
        if Path(path).read_text() == text:
            os.unlink(path)
    except OSError:
        pass  # it is gone, or not ours any more
