"""Exceptions on their way from a process to its pool. Pickled: only ever between a parent and its own children."""

from __future__ import annotations

import pickle
import traceback

from ..errors import TaskError

__all__ = ["RemoteTraceback", "dump_error", "load_error"]


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a process: the traceback's text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def dump_error(error: BaseException) -> bytes:
    """An exception and its traceback's text; where it can't be made again, a ``TaskError`` with its name instead."""
    text = "".join(traceback.format_exception(type(error), error, error.__traceback__))
    error.__traceback__ = None
    try:
        dumped = pickle.dumps((error, text))
        pickle.loads(dumped)  # an exception whose __init__ wants more than its args can't be made again
    except Exception:
        try:
            message = str(error)
        except Exception as failed:
            message = f"<its message can't be shown: {type(failed).__name__}>"
        dumped = pickle.dumps((TaskError(message, type=type(error).__name__), text))
    return dumped


def load_error(data: bytes) -> BaseException:
    """The exception that a process sent, with the remote traceback as its cause."""
    error: BaseException
    try:
        error, text = pickle.loads(data)
    except Exception as failed:
        return TaskError(f"it can't be unpickled here: {failed}", type="Exception")
    error.__cause__ = RemoteTraceback(text)
    return error
