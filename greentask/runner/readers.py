"""Who reads what becomes of calls, and may be behind with that.

None of a reader's calls begins while it is behind: each would only add to what it has to read. They wait here as well
as in the lines that are not taken from it meanwhile, so that whoever asks for a thousand large results at once gets
them at its own pace.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

__all__ = ["NOBODY", "QUEUE", "Reader"]


class Reader(Protocol):
    """The peer of a connection, say."""

    @property
    def peer(self) -> str | None:
        """Its name, for hooks."""

    @property
    def lags(self) -> bool:
        """Whether it may be behind: quick to ask, and where it is True, ``is_behind`` knows."""

    @property
    def is_behind(self) -> bool:
        """Whether no more of its calls may begin."""

    def hold(self, begin: Callable[[], object]) -> None:
        """Call ``begin`` when it has caught up, or is gone; never at once. It asks again, for it may not be alone."""


class _KeepsUp:
    """A ``Reader`` that takes whatever comes."""

    lags = is_behind = False

    def __init__(self, peer: str | None) -> None:
        self.peer = peer

    def hold(self, begin: Callable[[], object]) -> None:
        raise AssertionError("it is never behind")


NOBODY: Reader = _KeepsUp(None)
QUEUE: Reader = _KeepsUp("queue")
