"""What the processes of a ``Pool`` run: any function that can be pickled, with its arguments."""

from __future__ import annotations

import functools
import importlib
import inspect
import pickle
import traceback
from multiprocessing import spawn
from typing import Any

from ..errors import Interrupt, TaskError, ended_by
from ..pool.child import Handler, Job
from ..pool.coroutines import run_coroutine
from .context import RunningTask, enter

__all__ = ["RemoteTraceback", "load_error", "make_handler"]


class RemoteTraceback(Exception):
    """The cause of an exception that was raised in a process: the traceback's text."""

    def __str__(self) -> str:
        return f'\n"""\n{self.args[0]}"""'


def make_handler(main: dict[str, str], preload: tuple[str, ...], initializer: bytes | None) -> Handler:
    """Import what is needed (in the template), and return what runs the calls (in the processes)."""
    # As multiprocessing does it: the program's main module, imported under another name, so that its functions are
    # found and what it guards with `if __name__ == "__main__"` isn't run.
    if "init_main_from_name" in main:
        spawn._fixup_main_from_name(main["init_main_from_name"])  # type: ignore[attr-defined]
    elif "init_main_from_path" in main:
        spawn._fixup_main_from_path(main["init_main_from_path"])  # type: ignore[attr-defined]
    for module in preload:
        importlib.import_module(module)
    return _WorkHandler(initializer)


class _WorkHandler:
    def __init__(self, initializer: bytes | None) -> None:
        self._initializer = initializer

    def prepare(self) -> None:
        if self._initializer is not None:
            function, args = pickle.loads(self._initializer)
            function(*args)

    def run(self, job: Job) -> tuple[bool, bytes]:
        report = functools.partial(_report, job) if job.wants_progress else None
        enter(RunningTask(None, None, job.call.deadline, report))
        try:
            function, args, kwargs = pickle.loads(job.call.payload)
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                result = run_coroutine(result)
            return True, pickle.dumps(result, pickle.HIGHEST_PROTOCOL)
        except Interrupt:
            raise
        except BaseException as error:
            return False, _dump_error(error)
        finally:
            enter(None)

    def interrupted(self, interrupt: Interrupt) -> bytes:
        return _dump_error(ended_by(interrupt))


def _report(job: Job, progress: dict[str, Any]) -> None:
    job.progress(pickle.dumps(progress))


def _dump_error(error: BaseException) -> bytes:
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
