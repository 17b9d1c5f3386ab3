"""How much memory a process has (Linux)."""

from __future__ import annotations

import os

__all__ = ["resident"]

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int | None:
    """Bytes of resident memory, from /proc/PID/statm (proc(5)); None where the process is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return None
