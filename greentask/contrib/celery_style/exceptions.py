"""What goes wrong with tasks that are written for Celery, under Celery's names where it has one.

.. code-block:: text

    GreentaskError
    ├── NotCarriedOver          what Celery has and greentask has not       (also NotImplementedError)
    │   └── NeedsQueue          what needs a queue on disk
    ├── TimeoutError            a result was not there in time              (also TimeoutError)
    ├── MaxRetriesExceededError a task asked to be tried again, and had been too often
    ├── IncompleteStream        collect() came to a result that wasn't there
    ├── TaskRevokedError        the task was revoked, or had expired: it did not run to its end
    └── ChordError              a task of a chord's header failed: its body did not run
"""

from __future__ import annotations

import builtins

from ...errors import GreentaskError
from ...tasks.retries import Retry

__all__ = [
    "ChordError",
    "IncompleteStream",
    "MaxRetriesExceededError",
    "NeedsQueue",
    "NotCarriedOver",
    "Retry",
    "TaskRevokedError",
    "TimeoutError",
    "needs_queue",
]


class NotCarriedOver(GreentaskError, NotImplementedError):
    """A part or an option of Celery's that greentask has not. The message names it, and what to do instead."""


class NeedsQueue(NotCarriedOver):
    """What must outlive the program that asks for it needs a queue on disk, ``greentask serve --queue FILE``."""


class MaxRetriesExceededError(GreentaskError):
    """The task asked to be tried again, and had been ``max_retries`` times."""


class IncompleteStream(GreentaskError):
    """A task that is linked to another has not ended, so what is linked to it isn't known to be complete."""


class TimeoutError(GreentaskError, builtins.TimeoutError):
    """The result was not there in time. The task goes on."""


class TaskRevokedError(GreentaskError):
    """The task was revoked, or had expired before its turn came."""


class ChordError(GreentaskError):
    """A task of the chord's header failed, so its body did not run; the cause is that task's error."""


def needs_queue(what: str, remedy: str = "") -> NeedsQueue:
    """The error for something that can't be had without a queue on disk."""
    return NeedsQueue(f"{what} needs a durable queue: start the server with --queue FILE{remedy and ', '}{remedy}")


def __getattr__(name: str) -> object:
    if name.startswith("__"):  # of the import system
        raise AttributeError(name)
    from .missing import refuse_import

    return refuse_import(__name__, "exceptions", name)
