"""Runs calls: one in, one answer out, in a greenlet or in a task process. Knows nothing of a network."""

from .readers import NOBODY, QUEUE
from .runner import Runner, Running
from .watched import too_large

__all__ = ["NOBODY", "QUEUE", "Runner", "Running", "too_large"]
