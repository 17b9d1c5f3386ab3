"""Whether the server at the other end of a connection is alive. Without I/O; times are on the monotonic clock."""

from __future__ import annotations

from typing import Literal

__all__ = ["Life"]

_LOOKS = 3  # in the time after which it is taken for dead
_MENDED_AFTER = 1.0  # seconds for which a look may be late
_MUCH = 64 * 1024  # bytes on their way, behind which what asks for a sign of life takes its time


class Life:
    """Of one connection, which is looked at when ``look_at`` has come.

    What is ``heard_at`` a time is a sign of life, whatever it is. That a question has arrived says nothing: the kernel
    takes it for a program that was stopped. But of a line that is large, what arrives is a sign: it is being read.
    """

    __slots__ = ("_arrived", "_busy_at", "_dead_after", "_idle_after", "heard_at", "look_at")

    def __init__(self, dead_after: float, idle_after: float) -> None:
        self.heard_at = self.look_at = 0.0
        self._dead_after = dead_after
        self._idle_after = idle_after
        self._busy_at = 0.0
        self._arrived: int | None = None  # bytes at the last look, if much was on its way

    def begin(self, now: float) -> None:
        """It is open."""
        self.heard_at = self._busy_at = now
        self.look_at = now + self._dead_after / _LOOKS

    def look(
        self, now: float, *, is_busy: bool, is_leaving: bool, arrived: int, missing: int
    ) -> Literal["well", "silent", "dead", "unused"]:
        """How it is: to be asked for a sign of life if it is ``silent``, and to be given up if ``dead`` or ``unused``.

        ``is_busy``: calls are in flight; ``is_leaving``: there will be no more; ``arrived``, ``missing``: bytes of what
        was written that the server's side has, and that it has not.
        """
        asks_after = self._dead_after / _LOOKS / 2
        overslept = now - self.look_at
        if overslept > asks_after:  # this thread did something else: it was we who didn't listen
            self.heard_at = min(now, self.heard_at + overslept)
        if is_busy:
            self._busy_at = now
        elif is_leaving or now - self._busy_at >= self._idle_after:
            return "unused"
        if self._arrived is not None and arrived > self._arrived:
            self.heard_at = now
        self._arrived = arrived if missing > _MUCH else None
        silence = now - self.heard_at
        if silence >= self._dead_after:
            return "dead"
        self.look_at = now + min(self._dead_after / _LOOKS, self._dead_after - silence)
        return "silent" if silence >= asks_after else "well"

    def is_late(self, now: float) -> bool:
        """Whether it should have been looked at a while ago."""
        return now > self.look_at + _MENDED_AFTER
