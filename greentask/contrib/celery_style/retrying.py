"""When a task is tried again, in Celery's words: ``self.retry``, ``autoretry_for`` and what goes with them."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from ...errors import ConfigurationError
from ...tasks.context import current
from ...tasks.retries import Retry
from .exceptions import MaxRetriesExceededError, NotCarriedOver, needs_queue
from .message import moment
from .request import Request

__all__ = ["OPTIONS", "Retrying"]

_Kinds = tuple[type[Exception], ...]


@dataclass(frozen=True)
class Retrying:
    """What a task says of it. Delays are in seconds; ``max_retries`` is None where there is no end to it."""

    autoretry_for: _Kinds = ()
    dont_autoretry_for: _Kinds = ()
    max_retries: int | None = 3
    default_retry_delay: float = 180
    retry_backoff: bool | float = False
    retry_backoff_max: float = 600
    retry_jitter: bool = True
    retry_kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("autoretry_for", "dont_autoretry_for"):
            kinds = getattr(self, name)
            object.__setattr__(self, name, tuple(kinds) if isinstance(kinds, (list, tuple)) else (kinds,))
            for kind in getattr(self, name):
                if not (isinstance(kind, type) and issubclass(kind, BaseException)):
                    raise ConfigurationError(f"{name} of a task is a tuple of exceptions' classes, not {kind!r:.80}")
        for name in self.retry_kwargs:
            if name not in ("max_retries", "countdown"):
                raise NotCarriedOver(
                    f"{name!r} in retry_kwargs of a task is not carried over from Celery: leave it out"
                )

    def is_worth_it(self, error: Exception) -> bool:
        """Whether the task is tried again after this error by itself."""
        return isinstance(error, self.autoretry_for) and not isinstance(error, self.dont_autoretry_for)

    def by_itself(self, request: Request, task: str, error: Exception) -> Exception:
        """What to raise after an error that is worth it."""
        given = {**self.retry_kwargs}
        if self.retry_backoff:
            given["countdown"] = self._pause(request.retries)
        return self.asked(request, task, error, **given)

    def asked(
        self,
        request: Request,
        task: str,
        error: BaseException | None = None,
        *,
        countdown: float | None = None,
        eta: datetime | None = None,
        max_retries: int | None = None,
    ) -> Exception:
        """What to raise where the task asks for it: ``Retry``, or an error where it has been tried too often."""
        error = sys.exc_info()[1] if error is None else error
        if not request.called_directly:
            most = self.max_retries if max_retries is None else max_retries
            if most is None or request.retries < most:
                if not request.is_eager and current().attempt is None:
                    return needs_queue(f"retry() of task {task!r}, which was not enqueued,")
                why = "" if error is None else f"tried again after {type(error).__name__}: {error}"
                return Retry(why, delay=self._delay(task, countdown, eta))
            if error is None:
                return MaxRetriesExceededError(f"{task}[{request.id}] has been tried again {request.retries} times")
        return error if isinstance(error, Exception) else Retry(f"{task} would be tried again")

    def _delay(self, task: str, countdown: float | None, eta: datetime | None) -> float:
        if countdown is not None:
            return max(0.0, countdown)
        if eta is not None:
            return max(0.0, moment(task, "eta", eta) - time.time())
        return self.default_retry_delay

    def _pause(self, retries: int) -> float:
        first = max(1.0, float(self.retry_backoff))
        longest = float(min(self.retry_backoff_max, first * 2 ** min(retries, 100)))
        return random.random() * longest if self.retry_jitter else longest


OPTIONS = tuple(Retrying.__dataclass_fields__)
