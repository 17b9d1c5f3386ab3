"""Tracebacks as users want to see them: from their own code on."""

from __future__ import annotations

import importlib
import traceback
from pathlib import Path
from types import TracebackType

__all__ = ["trace_of"]

_OURS = str(Path(__file__).parent.parent)


def trace_of(error: BaseException) -> str:
    """The text of its traceback, without the frames that only led to the user's code."""
    return "".join(traceback.format_exception(type(error), error, _from_users_code(error)))


def _from_users_code(error: BaseException) -> TracebackType | None:
    trace = error.__traceback__
    while trace is not None and _leads_to_code(trace.tb_frame.f_code.co_filename):
        trace = trace.tb_next
    # A file that is no Python was never run: what there is to say of it is in the error. Anything else is in our code.
    return trace if trace is not None or isinstance(error, SyntaxError) else error.__traceback__


def _leads_to_code(file: str) -> bool:
    return file.startswith(("<frozen importlib", _OURS)) or file == importlib.__file__
