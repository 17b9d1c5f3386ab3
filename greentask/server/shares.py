"""How connections are spread over fronts that accept them from the same sockets.

Each new connection wakes all fronts, and the quickest takes it: where they are idle that is the same one each time,
and clients that keep their connections would all have the one front. So fronts tell each other how many they have, in
memory that they share, and one that has more than another leaves a new one to that for a moment. Whatever is still
waiting then it takes: the other may be busy, or dead.

Each number has one writer, its front, and is written in one go. One that its front left behind is corrected by the next
front of that number; until then it costs the others that moment.
"""

from __future__ import annotations

import mmap
import os

__all__ = ["Shares", "make_shares"]

_SIZE = 8  # bytes of one front's entry: its process id, and how many connections it has
_NOBODY = 0


def make_shares(fronts: int) -> int:
    """The descriptor of memory for so many fronts."""
    fd = os.memfd_create("greentask-shares", os.MFD_CLOEXEC)
    os.ftruncate(fd, _SIZE * fronts)
    return fd


class Shares:
    """The memory behind ``fd``, as front ``number`` sees it. Takes the descriptor."""

    def __init__(self, fd: int, number: int) -> None:
        try:
            memory = mmap.mmap(fd, 0)
        finally:
            os.close(fd)
        self._entries = memoryview(memory).cast("Q")
        self._number = number
        self._pid = os.getpid()

    def enter(self) -> None:
        """This front accepts connections from now on; an older one of that number does so no more."""
        self._entries[self._number] = self._pid << 32

    def tell(self, connections: int) -> None:
        """It has so many."""
        if self._is_ours():
            self._entries[self._number] = self._pid << 32 | connections

    def leave(self) -> None:
        """It accepts no more."""
        if self._is_ours():
            self._entries[self._number] = _NOBODY

    def is_ahead(self, connections: int) -> bool:
        """Whether another front has fewer than so many."""
        return any(
            entry != _NOBODY and entry & 0xFFFFFFFF < connections
            for number, entry in enumerate(self._entries)
            if number != self._number
        )

    def _is_ours(self) -> bool:
        return self._entries[self._number] >> 32 == self._pid
