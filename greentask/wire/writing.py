"""Large values, written as JSON step by step: whoever writes may do something else between two steps.

The encoder takes a value in one go, and nothing else happens meanwhile. So what is large is cut: a container into runs
of its items, a string into parts. Each is written as any other value, and loses the brackets or quotes around it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from typing import Any

from ..errors import InvalidResult
from .json import DEEPEST, dumps, find_fault
from .steps import LARGE

__all__ = ["STEP", "dumps_in_steps", "is_large"]

#: Characters that are written in one step, about.
STEP = 16 * 1024

_FEW = 16  # items
_ITEM = 8  # characters that an item takes, with what is around it
_TEXT = 8  # times as much of a text: it is quick to write, and what is written takes up memory until it's all there
_CONTAINERS = frozenset({dict, list, tuple})

_are_short = frozenset({int, float, bool, type(None)}).issuperset  # of types
_are_strings = frozenset({str}).issuperset


def is_large(value: Any, large: int = LARGE) -> bool:
    """Whether its JSON takes more than about so many characters. Looks at no more of it than that.

    Of a subclass of ``dict``, ``list`` or ``str`` it says no: only the encoder knows what is in such a one.
    """
    if type(value) is str:
        return len(value) > large
    if type(value) not in _CONTAINERS:
        return False
    if len(value) > _FEW:
        return _is_large(value, large)
    weight = 0  # as for most of them
    for inner in value.values() if type(value) is dict else value:
        if type(inner) is str:
            weight += len(inner)
        elif type(inner) in _CONTAINERS:
            return _is_large(value, large)
    return weight > large


def _is_large(value: Any, large: int) -> bool:
    weight, waiting = 0, [value]
    for item in waiting:
        weight += _ITEM * len(item)
        inside = item
        if type(item) is dict:
            inside = item.values()
            weight += _count_letters(item)
        if weight > large:
            return True
        if len(item) > _FEW and _are_short(set(map(type, inside))):
            continue
        for inner in inside:
            if type(inner) is str:
                weight += len(inner)
            elif type(inner) in _CONTAINERS:
                waiting.append(inner)
    return weight > large


def dumps_in_steps(value: Any, max_depth: int = DEEPEST, *, large: int = STEP) -> Generator[None, None, list[bytes]]:
    """The pieces of what ``dumps`` makes of a value. Raises ``InvalidResult`` as ``dumps`` does.

    What somebody changes in the value between two steps is written as it was or as it is then.
    """
    pieces: list[bytes] = []
    size = 0
    try:
        for piece in _pieces(value, max_depth, large):
            pieces.append(piece)
            size += len(piece)
            if size > large or not piece:
                size = 0
                yield
    except InvalidResult as error:
        raise InvalidResult(find_fault(value, "result", max_depth) or str(error)) from None
    return pieces


def _pieces(value: Any, max_depth: int, large: int) -> Iterator[bytes]:
    cuts = [_cut(value, max_depth, large)]
    while cuts:
        for piece in cuts[-1]:
            if type(piece) is bytes:
                yield piece
            else:
                yield b""  # to see that it is large took as long as a step, and there may be a thousand in each other
                cuts.append(_cut(piece, max_depth - len(cuts), large))
                break
        else:
            cuts.pop()


def _cut(value: Any, room: int, large: int) -> Iterator[Any]:
    """Its pieces, none of them empty, and in the place of something large in it, that itself.

    ``room``: so deeply may it be nested.
    """
    if type(value) is str:
        yield b'"'
        for start in range(0, len(value), _TEXT * large):
            yield dumps(value[start : start + _TEXT * large])[1:-1]
        yield b'"'
    elif type(value) not in _CONTAINERS or (type(value) is dict and not _are_strings(map(type, value))):
        # 1 and "1" are one key in JSON: who takes them apart doesn't see it.
        yield dumps(value, room)
    elif room <= 0:
        raise InvalidResult("nested too deeply")
    elif type(value) is dict:
        yield b"{"
        for comma, run in _runs(list(value.items()), large):
            if len(run) > 1 or not is_large(run, large):
                yield comma + dumps(dict(run), room)[1:-1]
            else:
                [(key, item)] = run
                yield comma + dumps(key) + b":"
                yield item if is_large(item, large) else dumps(item, room - 1)
        yield b"}"
    else:
        yield b"["
        for comma, run in _runs(value, large):
            if len(run) > 1 or not is_large(run, large):
                yield comma + dumps(run, room)[1:-1]
            else:
                if comma:
                    yield comma
                yield run[0]
        yield b"]"


def _runs(items: Any, large: int) -> Iterator[tuple[bytes, Any]]:
    """All of them, in runs that are not large or have one item; and what is to be written in front of each."""
    comma = b""
    most = length = max(1, large // _ITEM)  # more of them are large in any case
    start, end = 0, len(items)
    while start < min(end, len(items)):  # it may become shorter meanwhile, or longer without an end
        run = items[start : min(start + length, end)]
        length = min(most, length + length // 4 + 1)
        while len(run) > 1 and is_large(run, large):
            run = run[: len(run) // 2]
            length = len(run)  # so many of the next ones, too: to see that they are too many takes as long as a step
        yield comma, run
        comma = b","
        start += len(run)


def _count_letters(keys: dict[Any, Any]) -> int:
    try:
        return sum(map(len, keys))
    except TypeError:  # they are no strings
        return 0
