"""What the processes of a ``Pool`` run: any function that can be pickled, with its arguments."""

from __future__ import annotations

import functools
import importlib
import inspect
import pickle
from multiprocessing import spawn
from typing import Any

from ..errors import Interrupt, ended_by
from ..pool.child import Handler, Job
from ..pool.coroutines import run_coroutine
from ..pool.frames import Body
from ..pool.packing import unpack
from ..pool.pickling import dump, dump_error, load
from ..pool.within import within
from .context import RunningTask, enter

__all__ = ["make_handler"]


def make_handler(
    program: dict[str, Any], preload: tuple[str, ...], initializer: Body | None, start: float = 0.0
) -> Handler:
    """Import what is needed (in the template), and return what runs the calls (in the processes).

    ``start``: seconds that the initializer has; 0: any time.
    """
    # As multiprocessing does it: the program's main module, imported under another name, so that its functions are
    # found and what it guards with `if __name__ == "__main__"` isn't run; its arguments; its managers' key.
    spawn.prepare(program)
    for module in preload:
        importlib.import_module(module)
    return _WorkHandler(initializer, start)


class _WorkHandler:
    def __init__(self, initializer: Body | None, start: float) -> None:
        self._initializer = initializer
        self._start = start

    def prepare(self) -> None:
        if self._initializer is not None:
            with within(self._start):
                function, args = load(self._initializer)
                function(*args)

    def finish(self) -> None:
        """Nothing: what it has needs no end."""

    def run(self, job: Job) -> tuple[bool, Body]:
        report = functools.partial(_report, job) if job.wants_progress else None
        enter(RunningTask(None, None, job.call.deadline, report))
        try:
            function, args, kwargs = unpack(job.call.name, job.take_payload())
            result = function(*args, **kwargs)
            if inspect.iscoroutine(result):
                result = run_coroutine(result)
            return True, dump(result)
        except Interrupt:
            raise
        except BaseException as error:
            return False, dump_error(error)
        finally:
            enter(None)

    def interrupted(self, interrupt: Interrupt) -> bytes:
        return dump_error(ended_by(interrupt))


def _report(job: Job, progress: dict[str, Any]) -> None:
    job.progress(pickle.dumps(progress))
