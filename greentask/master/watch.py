"""Sees source files change, for ``--reload``; by watchfiles, in a thread of gevent's pool."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from pathlib import Path

import gevent
from gevent.hub import get_hub

from ..errors import ConfigurationError

__all__ = ["watch_sources"]

logger = logging.getLogger(__name__)

_TURN = 1000  # milliseconds after which the thread looks whether it is to go on


def watch_sources(folders: Iterable[str], changed: Callable[[], object]) -> None:
    """Call ``changed`` after each burst of changes to Python files below these folders, in a greenlet, one at a time.

    Raises ``ConfigurationError`` where watchfiles is missing.
    """
    try:
        from watchfiles import PythonFilter, watch
    except ModuleNotFoundError:
        raise ConfigurationError("--reload needs watchfiles; install it with: pip install 'greentask[serve]'") from None
    logging.getLogger("watchfiles").setLevel(logging.WARNING)  # it would tell of each change as well
    changes = watch(
        *folders, watch_filter=PythonFilter(), rust_timeout=_TURN, yield_on_timeout=True, stop_event=threading.Event()
    )

    def run() -> None:
        while True:
            try:
                seen = get_hub().threadpool.apply(next, (changes,))
            except Exception as error:  # a folder is gone, or the system lets nobody watch so many
                logger.error("source files are no longer watched: %s: %s", type(error).__name__, error)
                return
            if seen:
                names = sorted({Path(path).name for _, path in seen})
                logger.info("%s changed: loading the code anew", ", ".join(names[:5]))
                changed()

    gevent.spawn(run)
