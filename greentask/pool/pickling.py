"""Values on their way between a pool and its processes. Pickled: only ever between a parent and its own children."""

from __future__ import annotations

import pickle
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from ..errors import Interrupt, TaskError
from .frames import Body

__all__ = ["RemoteTraceback", "dump", "dump_error", "load", "load_error", "load_pieces"]


_SMALL = 4096  # bytes
_PAUSE_AFTER = 1024 * 1024  # bytes: copying them takes a fraction of a millisecond


class _Pieces(list[Any]):
    """The file that a pickler writes to. It hands a large bytes object on as it is, and so that is never copied."""

    __slots__ = ()

    def write(self, piece: Any) -> None:
        if type(piece) is not bytes:  # what may change, and must not on its way
            piece = bytes(piece.raw() if isinstance(piece, pickle.PickleBuffer) else piece)
        self.append(piece)


# Picklers that nobody uses now: to make one costs more than to pickle something small.
_spare: list[tuple[pickle.Pickler, _Pieces]] = []


def dump(value: object) -> Body:
    """Pickle it. Large bytes objects in it become pieces of their own, uncopied."""
    try:
        pickler, pieces = _spare.pop()
    except IndexError:
        pieces = _Pieces()
        pickler = pickle.Pickler(pieces, pickle.HIGHEST_PROTOCOL)
    pickler.dump(value)
    if len(pieces) > 1:
        return list(pieces)
    body: bytes = pieces.pop()
    if len(body) <= _SMALL:  # else its memo has grown, and would be as slow to clear for ever
        pickler.clear_memo()
        _spare.append((pickler, pieces))
    return body


def load(body: Body) -> Any:
    """Unpickle it. Takes the pieces of what is large out of the list."""
    return pickle.loads(body) if isinstance(body, bytes) else load_pieces(body, lambda: None)


def load_pieces(pieces: list[bytes], pause: Callable[[], object]) -> Any:
    """Unpickle what is large, with a pause after each megabyte. Takes the pieces out of the list."""
    return pickle.Unpickler(_Reader(pieces, pause)).load()


class _Reader:
    """The file that an unpickler reads from: right into what it makes, piece by piece."""

    def __init__(self, pieces: list[bytes], pause: Callable[[], object]) -> None:
        self._pieces = deque(memoryview(piece) for piece in pieces)
        self._pause = pause
        self._since_pause = 0  # bytes
        pieces.clear()

    def read(self, size: int) -> bytes:
        data = bytearray(size)
        del data[self.readinto(memoryview(data)) :]
        return bytes(data)

    def readinto(self, target: memoryview) -> int:
        filled = 0
        while filled < len(target) and self._pieces:
            piece = self._pieces.popleft()
            part = piece[: len(target) - filled]
            target[filled : filled + len(part)] = part
            filled += len(part)
            if len(part) < len(piece):
                self._pieces.appendleft(piece[len(part) :])
            self._since_pause += len(part)
            if self._since_pause >= _PAUSE_AFTER:
                self._since_pause = 0
                self._pause()
        return filled

    def readline(self) -> bytes:
        raise pickle.UnpicklingError("a pickle of the newest protocol has no lines")


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
    except Interrupt:
        raise
    except BaseException:
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
    except BaseException as failed:
        return TaskError(f"it can't be unpickled here: {failed}", type="Exception")
    error.__cause__ = RemoteTraceback(text)
    return error
