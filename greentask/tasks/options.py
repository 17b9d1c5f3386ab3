"""The options with which a function is made a task, for the types of those who hand them on to ``Task``."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypedDict

from .resources import Resource
from .retries import Backoff, Exceptions
from .schedules import Every
from .singletons import Singleton

__all__ = ["TaskOptions"]


class TaskOptions(TypedDict, total=False):
    """As ``Task`` has them."""

    name: str | None
    process: bool | str
    timeout: float | None
    max_running: int | None
    max_waiting: int | None
    needs: Iterable[Resource[Any]]
    retries: int | None
    backoff: Backoff | None
    retry_on: Exceptions | None
    give_up_on: Exceptions | None
    every: Every | None
    timezone: str | None
    catch_up: bool
    rate: str | None
    singleton: Singleton
    ttl: float | None
    priority: int
