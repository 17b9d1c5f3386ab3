"""How a template process is started, and what it is told first."""

from __future__ import annotations

import os
import pickle
import socket
import struct
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from .pickling import dump

__all__ = ["DEFAULT_START", "Setup", "is_loading", "loading", "receive_setup", "setup_message", "start_template"]

#: Seconds that a template, and then each process, has for loading what the tasks need.
DEFAULT_START = 300.0
_LENGTH = struct.Struct("<Q")


@dataclass(frozen=True)
class Setup:
    """What a pool's processes run.

    ``factory`` is ``module:function``, called once in the template with ``args``; what it returns is the ``Handler``
    of every process. ``path`` becomes the processes' ``sys.path``. ``farewell``: seconds that the processes without a
    call have for their end in good order when the pool is closed. ``start``: seconds that the template has for
    importing what they run, and that a process gives itself for getting ready; 0: any time.
    """

    factory: str
    args: tuple[Any, ...] = ()
    path: tuple[str, ...] = field(default_factory=lambda: tuple(sys.path))
    farewell: float = 0.0
    start: float = DEFAULT_START


_loading = False


def is_loading() -> bool:
    """Whether this process is a template that is importing what its processes will run."""
    return _loading


@contextmanager
def loading() -> Iterator[None]:
    """While a template imports: a pool that is used by the way would start another template, without end."""
    global _loading
    _loading = True
    try:
        yield
    finally:
        _loading = False


def start_template(control: socket.socket) -> int:
    """Start a template on the other end of ``control``'s pair; its process id.

    A fresh interpreter, by multiprocessing's own way of starting one: it inherits no thread, no hub, no descriptor but
    this and the standard three, and needs no SIGCHLD handler, which in a gevent program is gevent's.
    """
    from multiprocessing import util  # here, for the template imports this module too, and starts nothing

    fd = control.fileno()
    # _args_from_interpreter_flags: -W, -X, -O … of this interpreter, as multiprocessing hands them on.
    flags: list[str] = util._args_from_interpreter_flags()  # type: ignore[attr-defined]
    root = str(Path(__file__).parents[2])
    program = f"import sys; sys.path.insert(0, {root!r}); from greentask.pool.template import main; main({fd})"
    python = os.fsencode(_python())
    return util.spawnv_passfds(python, [python, *flags, "-c", program], [fd])


def _python() -> str:
    """This interpreter's program. ``sys.executable`` is another one where Python is a part of it, as it is of uWSGI.

    What ``multiprocessing.set_executable`` was told goes first.
    """
    from multiprocessing import spawn

    told = spawn.get_executable()
    executable = os.fsdecode(told) if told else ""
    if executable != sys.executable or Path(executable).name.startswith(("python", "pypy")):
        return executable
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    beside = [str(Path(sys.prefix, "bin", name)) for name in (version, "python3", "python")]
    return next(filter(os.path.exists, [*beside, getattr(sys, "_base_executable", "")]), executable)


def setup_message(setup: Setup) -> list[bytes]:
    """What a template must be told first, in pieces."""
    body = dump(setup)
    pieces = [body] if isinstance(body, bytes) else body
    return [_LENGTH.pack(sum(map(len, pieces))), *pieces]


def receive_setup(control: socket.socket) -> Setup:
    """What the pool that started this process says. It is pickled: only ever between a parent and its child."""
    (length,) = _LENGTH.unpack(_receive(control, _LENGTH.size))
    setup = pickle.loads(_receive(control, length))
    assert isinstance(setup, Setup)
    return setup


def _receive(control: socket.socket, length: int) -> bytes:
    data = control.recv(length, socket.MSG_WAITALL)
    if len(data) < length:
        raise EOFError("the pool went away")
    return data
