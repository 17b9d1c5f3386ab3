"""Where a serving process logs, and in which form: lines of text, or of JSON, with what a record has besides."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from logging.handlers import WatchedFileHandler
from typing import Any

from gevent.monkey import get_original

from ..errors import ConfigurationError

__all__ = ["FORMATS", "configure_logging", "reopen_logs"]

logger = logging.getLogger(__name__)

FORMATS = ("text", "json")

_TEXT = "%(asctime)s %(name)s: %(message)s"
_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}  # what every record has


class JSONFormatter(logging.Formatter):
    """One object a line: ``time`` (RFC 3339, UTC), ``level``, ``logger``, ``message``, and what ``extra`` has."""

    def format(self, record: logging.LogRecord) -> str:
        told: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            "pid": record.process,
        }
        told.update({name: value for name, value in vars(record).items() if name not in _OWN})
        if record.exc_info:
            told["traceback"] = self.formatException(record.exc_info)
        return json.dumps(told, default=repr)  # ASCII: no terminal obeys any of it


class LogFile(WatchedFileHandler):
    """A file that may be moved away. While it can't be opened (its folder is gone, say), lines go to stderr."""

    def __init__(self, path: str) -> None:
        super().__init__(path, encoding="utf-8")
        self._instead: logging.StreamHandler[Any] = logging.StreamHandler()

    def setFormatter(self, fmt: logging.Formatter | None) -> None:
        super().setFormatter(fmt)
        self._instead.setFormatter(fmt)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            super().emit(record)
        except OSError:  # from opening; what goes wrong with writing stays in there
            self._instead.emit(record)


def configure_logging(*, debug: bool, file: str | None = None, form: str = "text") -> None:
    """Set up the root logger. Raises ``ConfigurationError`` where the file can't be written."""
    try:
        handler = logging.StreamHandler() if file is None else LogFile(file)
    except OSError as error:
        raise ConfigurationError(f"--log-file: can't write {file}: {error.strerror}") from None
    handler.setFormatter(JSONFormatter() if form == "json" else logging.Formatter(_TEXT))
    # The system's lock, not gevent's: the watchdog's thread logs as well, and what runs in the loop can't wait for a
    # greenlet's. Nothing that has it switches.
    handler.lock = get_original("_thread", "RLock")()
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if debug else logging.INFO)
    logging.raiseExceptions = debug  # a full disk or a closed stderr is no reason for a traceback, or for ending


def reopen_logs() -> None:
    """Go on in a new file, if the old one was moved away."""
    for handler in logging.getLogger().handlers:
        if isinstance(handler, LogFile):
            try:
                handler.reopenIfNeeded()
            except OSError as error:
                logger.warning("--log-file: can't write %s: %s", handler.baseFilename, error.strerror)
