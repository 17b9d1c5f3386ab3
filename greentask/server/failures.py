"""What is logged of tasks that fail: a middleware, as a user's would be."""

from __future__ import annotations

import logging

from ..tasks.middleware import CallInfo, Middleware
from ..wire.json import dumps

__all__ = ["FailureLog"]

logger = logging.getLogger(__name__)

_MOST = 1000  # characters of one line


class FailureLog(Middleware):
    """Logs the error of a task that failed, in one line that can't forge another or command a terminal."""

    def call_failed(self, call: CallInfo) -> None:
        if call.outcome != "failed" or not logger.isEnabledFor(logging.INFO):
            return
        text = dumps(call.error).decode("utf-8", "replace")
        if len(text) > _MOST:
            text = text[:_MOST] + "…"
        if not text.isprintable():  # JSON escapes controls, but for those above ASCII and what turns text around
            text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
        logger.info("task %s failed: %s", ascii(call.task)[1:-1], text)
