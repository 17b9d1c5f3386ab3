"""Code that was written for Celery, on greentask: change the import.

::

    from greentask.contrib.celery_style import Celery

    app = Celery("tasks")

    @app.task
    def add(x, y):
        return x + y

    add.delay(2, 2).get(timeout=10)        # with `greentask serve tasks` running

Names are found where Celery has them: ``celery_style.result.AsyncResult``, ``celery_style.utils.log.get_task_logger``.
What isn't carried over raises ``NotCarriedOver`` at import or call, naming it and what to do instead; what needs a
queue on disk (``greentask serve --queue FILE``) raises ``NeedsQueue`` where the server has none.
"""

from __future__ import annotations

from typing import Any

from .app import Celery, shared_task
from .canvas import Signature, chain, chord, group, maybe_signature, signature
from .exceptions import NeedsQueue, NotCarriedOver
from .missing import refuse_import
from .result import AsyncResult, GroupResult
from .task import CeleryTask
from .utils import uuid

__all__ = [
    "AsyncResult",
    "Celery",
    "CeleryTask",
    "GroupResult",
    "NeedsQueue",
    "NotCarriedOver",
    "Signature",
    "chain",
    "chord",
    "group",
    "maybe_signature",
    "shared_task",
    "signature",
    "uuid",
]


def __getattr__(name: str) -> Any:
    return refuse_import(__name__, "", name)
