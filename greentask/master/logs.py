"""Where a serving process logs: to stderr, or to a file that can be opened anew after a rotation."""

from __future__ import annotations

import logging
from logging.handlers import WatchedFileHandler

from ..errors import ConfigurationError

__all__ = ["configure_logging", "reopen_logs"]

_FORMAT = "%(asctime)s %(name)s: %(message)s"


def configure_logging(*, debug: bool, file: str | None = None) -> None:
    """Set up the root logger. Raises ``ConfigurationError`` where the file can't be written."""
    try:
        handler = logging.StreamHandler() if file is None else WatchedFileHandler(file, encoding="utf-8")
    except OSError as error:
        raise ConfigurationError(f"--log-file: can't write {file}: {error.strerror}") from None
    handler.setFormatter(logging.Formatter(_FORMAT))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.raiseExceptions = debug  # a full disk or a closed stderr is no reason for a traceback, or for ending


def reopen_logs() -> None:
    """Go on in a new file, if the old one was moved away."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, WatchedFileHandler):
            handler.reopenIfNeeded()
