"""What is logged of tasks that fail."""

from __future__ import annotations

import logging

__all__ = ["log_failure"]

logger = logging.getLogger(__name__)

_MOST = 1000  # characters of one line
_REFUSED = b'{"type":"InvalidArguments"'


def log_failure(function: str, error: bytes) -> None:
    """Log the error object of a task that failed: JSON, which has no line feed or escape that could forge a line."""
    if error.startswith(_REFUSED):
        return  # it did not run
    if logger.isEnabledFor(logging.INFO):
        text = error.decode("utf-8", "replace")
        logger.info("task %s failed: %s", ascii(function)[1:-1], text if len(text) <= _MOST else text[:_MOST] + "…")
