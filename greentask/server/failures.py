"""What is logged of tasks that fail."""

from __future__ import annotations

import logging

__all__ = ["log_failure"]

logger = logging.getLogger(__name__)

_MOST = 1000  # characters of one line
_REFUSED = b'{"type":"InvalidArguments"'


def log_failure(function: str, error: bytes) -> None:
    """Log the error object of a task that failed, in one line that can't forge another or command a terminal."""
    if error.startswith(_REFUSED):
        return  # it did not run
    if logger.isEnabledFor(logging.INFO):
        text = error.decode("utf-8", "replace")
        if len(text) > _MOST:
            text = text[:_MOST] + "…"
        if not text.isprintable():  # JSON escapes controls, but for those above ASCII and what turns text around
            text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
        logger.info("task %s failed: %s", ascii(function)[1:-1], text)
