"""How far a stream may be ahead of its reader, and of the network.

The reader grants items, a million at once if it likes. They are handed on to the task a few at a time, and none while
the reader is behind with what it was sent: so a task is never ahead by more than some items, whatever was granted, and
whoever grants much isn't cut off for reading slowly.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import gevent

from ..errors import Cancelled
from ..wire.reply import error_member

if TYPE_CHECKING:
    from .answer import Answer

__all__ = ["Stream"]

_AHEAD = 64  # items that the task may have to its credit at once
_TO_BEGIN_WITH = 8  # of these, while nobody knows how large one is

_NO_GRANTS = error_member(
    Cancelled("there are more items than were granted, and the reader has shut down its side", started=True)
)


class Stream:
    """The credit of one stream: what its reader has granted, and what of that was handed on to the task."""

    __slots__ = ("_answer", "_credit", "_last", "_lent", "_patience", "_reader_is_done", "_waits", "cut_off", "window")

    def __init__(self, answer: Answer, granted: int) -> None:
        self.window = min(granted, _TO_BEGIN_WITH)  # what the task has to begin with
        self.cut_off: bytes | None = None  # what its reader is told, where it is not to go on
        self._answer = answer
        self._credit = granted  # items that the reader still takes
        self._lent = self.window  # of these the task may still send so many
        self._last = 0  # bytes of the last item
        self._reader_is_done = False
        self._waits = False  # until the reader has caught up
        self._patience: gevent.Greenlet[[float], None] | None = None  # that the reader is given while the task waits

    def grant(self, items: int) -> None:
        """The reader takes so many more items."""
        self._credit += items
        self._lend()

    def grant_no_more(self) -> None:
        """The reader has shut down its side: it is cut off where it would wait for a grant, and not before."""
        self._reader_is_done = True
        self._lend()

    def takes(self, size: int) -> bool:
        """Whether the reader takes one more item, of so many bytes; if not, it is cut off."""
        if not self._credit:
            self.cut_off = self.cut_off or _NO_GRANTS
            return False
        self._credit -= 1
        self._lent -= 1
        self._last = size
        if self._lent <= self._ahead() // 2:
            self._lend()
        if not self._lent:
            self._be_patient(self._answer.session.server.limits.stream_timeout)
        return True

    def end(self) -> None:
        """It has ended."""
        self._be_patient(None)

    def _be_patient(self, within: float | None) -> None:
        if self._patience is not None:
            self._patience.kill(block=False)
        self._patience = gevent.spawn_later(within, self._give_up, within) if within else None

    def _give_up(self, within: float) -> None:
        self._patience = None
        told = f"its reader has taken nothing more for {within:g} s (stream_timeout)"
        self.cut_off = error_member(Cancelled(told, started=True))
        if self._answer.running is not None:
            self._answer.running.cancel()

    def _ahead(self) -> int:
        quarter = self._answer.session.server.limits.max_unsent // 4
        return max(1, min(_AHEAD, quarter // max(1, self._last)))

    def _lend(self) -> None:
        running, connection = self._answer.running, self._answer.session.connection
        # One past the credit, where there is no other way to find out whether there are more.
        more = min(self._ahead(), self._credit + self._reader_is_done) - self._lent
        if running is None or more <= 0 or self._waits:
            return
        if connection.is_behind:
            self._waits = True
            gevent.spawn(self._lend_later)
        else:
            self._be_patient(None)
            self._lent += more
            running.grant(more)

    def _lend_later(self) -> None:
        self._answer.session.connection.wait_until_read()
        self._waits = False
        self._lend()
