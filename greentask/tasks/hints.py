"""Which names are close to one that is none: a help to people, and of bounded cost, for strangers may ask as well."""

from __future__ import annotations

import difflib
import time
from collections.abc import Iterable

__all__ = ["Hints"]

_LONGEST = 80  # characters of a name that are looked at
_SHARE = 0.05  # of the time, for looking
_AT_ONCE = 0.05  # seconds


class Hints:
    """Looks for close names, as long as no more than a twentieth of the time goes into that.

    Among a thousand names it takes ten milliseconds, and whoever calls what there isn't, again and again, would keep
    everybody else from being served.
    """

    def __init__(self) -> None:
        self._credit = _AT_ONCE  # seconds
        self._counted_at = time.monotonic()

    def close(self, name: str, names: Iterable[str]) -> list[str]:
        """Up to three of the names; none where too much has been asked for."""
        began = time.monotonic()
        self._credit = min(_AT_ONCE, self._credit + _SHARE * (began - self._counted_at))
        self._counted_at = began
        if self._credit <= 0:
            return []
        close = difflib.get_close_matches(name[:_LONGEST], names, n=3)
        self._credit -= time.monotonic() - began
        return close
