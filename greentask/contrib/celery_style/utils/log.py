"""``get_task_logger``, which most task modules import."""

from __future__ import annotations

import logging

__all__ = ["get_logger", "get_task_logger"]


def get_task_logger(name: str) -> logging.Logger:
    """The logger of that name. Which lines are written where, ``greentask serve`` says (``--log-file``)."""
    return logging.getLogger(name)


get_logger = get_task_logger
