"""How many failed attempts at proving a secret an origin has, in memory that doesn't grow with the attempts."""

from __future__ import annotations

__all__ = ["Attempts"]

_MINUTE = 60.0
_ROUNDING = 0.001  # seconds


class Attempts:
    """Each origin may fail so many times in a row, and so many times a minute in the long run.

    At most ``most`` origins are known; beyond it the one that failed longest ago is forgotten. ``now`` is in seconds of
    a clock that doesn't jump.
    """

    def __init__(self, per_minute: int, most: int = 10_000) -> None:
        self._pause = _MINUTE / per_minute
        self._most = most
        self._forgiven_at: dict[str, float] = {}  # by origin, in the order of the last failures

    def __len__(self) -> int:
        return len(self._forgiven_at)

    def wait(self, origin: str, now: float) -> float:
        """Seconds until the origin may try again; 0 where it may now."""
        left = self._forgiven_at.get(origin, 0.0) - now - (_MINUTE - self._pause)
        return left if left > _ROUNDING else 0.0

    def failed(self, origin: str, now: float) -> None:
        """It has failed once more."""
        forgiven_at = max(self._forgiven_at.pop(origin, 0.0), now) + self._pause
        if len(self._forgiven_at) >= self._most:
            del self._forgiven_at[next(iter(self._forgiven_at))]
        self._forgiven_at[origin] = forgiven_at
