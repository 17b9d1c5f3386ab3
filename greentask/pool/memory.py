"""How much memory a process has (Linux)."""

from __future__ import annotations

import os

__all__ = ["is_stopped", "resident"]

_PAGE = os.sysconf("SC_PAGE_SIZE")


def resident(pid: int) -> int | None:
    """Bytes of resident memory, from /proc/PID/statm (proc(5)); None where the process is gone."""
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:
            return int(file.read().split()[1]) * _PAGE
    except (OSError, IndexError):
        return None


def is_stopped(pid: int) -> bool:
    """Whether a signal has stopped the process (SIGSTOP, a debugger), from /proc/PID/stat."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            return file.read().rpartition(b") ")[2][:1] in b"Tt"
    except OSError:
        return False
