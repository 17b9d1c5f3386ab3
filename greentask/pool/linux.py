"""What the system has for processes: not to be left behind (on Linux only), and to be told from each other."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys

__all__ = [
    "become_subreaper",
    "children",
    "die_with_parent",
    "give_memory_back",
    "outlive_parent",
    "raise_descriptors",
    "set_title",
]

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h


def die_with_parent() -> None:
    """From now on the kernel kills this process when its parent (the thread that started it) ends."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def outlive_parent() -> None:
    """No longer die with the parent."""
    _prctl(_PR_SET_PDEATHSIG, 0)


def become_subreaper() -> None:
    """From now on the orphans among this process's descendants become its children."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children() -> list[int]:
    """The process ids of the direct children."""
    pid = os.getpid()
    try:
        with open(f"/proc/{pid}/task/{pid}/children") as file:
            return [int(word) for word in file.read().split()]
    except OSError:
        return []


def give_memory_back() -> None:
    """Let the system have what the C library keeps of memory that was freed. Takes some milliseconds."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it
        if trim is not None:
            trim(0)


def raise_descriptors() -> None:
    """Let this process, and those that it starts, have as many descriptors open as the system lets it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def set_title(title: str) -> None:
    """How ``ps`` names this process; as it was started, where setproctitle is not installed."""
    try:
        from setproctitle import setproctitle
    except ModuleNotFoundError:
        return
    setproctitle(f"greentask: {title}")


def _prctl(option: int, argument: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None, use_errno=True).prctl(option, argument, 0, 0, 0)
