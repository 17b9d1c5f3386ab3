"""The part of Celery's utilities that task code imports."""

from __future__ import annotations

from uuid import uuid4

__all__ = ["uuid"]


def uuid() -> str:
    """A new id, for ``task_id=``."""
    return str(uuid4())
