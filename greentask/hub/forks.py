"""Which process this is. The kernel is asked once after each fork, also after those that nobody tells Python of.

Who wants to know it for each call would ask for little else: a system call takes longer than everything around it.
"""

from __future__ import annotations

import mmap
import os
import sys

__all__ = ["current_pid"]

_WIPE_ON_FORK = 18  # Linux's MADV_WIPEONFORK (since 4.14), which Python doesn't name: a forked child finds zeros there


def _make_page() -> mmap.mmap | None:
    if sys.platform != "linux":
        return None
    page = mmap.mmap(-1, mmap.PAGESIZE, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    try:
        page.madvise(_WIPE_ON_FORK)
    except OSError:  # an older kernel, or somebody's imitation of one
        page.close()
        return None
    return page


_page = _make_page()
_pid = 0


def current_pid() -> int:
    """What ``os.getpid`` says."""
    global _pid
    if _page is None:
        return os.getpid()
    if not _page[0]:
        _pid = os.getpid()
        _page[0] = 1
    return _pid
