"""The states of a task, by Celery's names. A task may give itself others, by ``update_state``."""

from __future__ import annotations

__all__ = ["FAILURE", "PENDING", "READY_STATES", "RETRY", "REVOKED", "STARTED", "SUCCESS"]

#: It waits for its turn, or runs and has said nothing.
PENDING = "PENDING"
#: It runs, and was declared with ``track_started=True``.
STARTED = "STARTED"
#: It has failed, and waits to be tried again.
RETRY = "RETRY"
SUCCESS = "SUCCESS"
FAILURE = "FAILURE"
#: It was revoked, or had expired before its turn came.
REVOKED = "REVOKED"

#: Those that don't change any more.
READY_STATES = frozenset({SUCCESS, FAILURE, REVOKED})
