"""Large JSON texts, read step by step: whoever reads may do something else between two steps.

The standard library's parser takes a text in one go, and nothing else happens meanwhile. So a text is cut behind
commas that are in no string, wherever they are in the value. What is between two cuts becomes a text of its own with
what is missing of the containers around it: an element in front, brackets behind. It is read as any other, and what is
new in it is put into the containers that are there already. A string that is longer than a window is read for itself,
and something short stands in its place.
"""

from __future__ import annotations

import codecs
import json
import os
import re
import sys
from collections.abc import Callable, Generator, Iterator
from typing import Any

from ..errors import InvalidMessage
from .json import LONE_SURROGATE, MAX_DEPTH, Unfit, explain, has_lone_surrogate, is_deeper, read

__all__ = ["LARGE", "loads_in_steps", "take_apart"]

Steps = Generator[None, None, Any]

#: Bytes from which a text is large.
LARGE = 64 * 1024
#: Characters that are read in one step.
WINDOW = 16 * 1024
# Items that are let go of in one step, with what is in them.
_FEW = 2_000
_AT_ONCE = 100  # of them are taken out together

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_TO_LAST_COMMA = re.compile(rf'(?:[^"]*{_STRING})*[^"]*,', re.DOTALL)
_TO_OPEN_STRING = re.compile(rf'(?:[^"]*{_STRING})*[^"]*', re.DOTALL)
_NO_BRACKETS = re.compile(rf'{_STRING}|[^][{{}}"]+', re.DOTALL)
# In a string, up to its end or to an escape that goes on behind the text, or may do so: two can be one character.
_LOW = r"\\u[dD][c-fC-F][0-9a-fA-F]{2}"
_HIGH = rf"[dD][89abAB][0-9a-fA-F]{{2}}(?:{_LOW}|(?=.{{6}})(?!{_LOW}))"
_ESCAPE = rf"\\(?:[^u]|u(?:[dD][0-7c-fC-F][0-9a-fA-F]{{2}}|[0-9a-ce-fA-CE-F][0-9a-fA-F]{{3}}|{_HIGH}))"
_IN_STRING = re.compile(rf'[^"\\]*(?:{_ESCAPE}[^"\\]*)*', re.DOTALL)
_LONGEST_ESCAPE = 12  # characters

_scan_string: Callable[[str, int], tuple[str, int]] = json.decoder.scanstring  # type: ignore[attr-defined]


def loads_in_steps(
    text: bytes, max_depth: int = MAX_DEPTH, is_carried: Callable[[str], bool] | None = None, *, window: int = WINDOW
) -> Steps:
    """The value of a JSON text, as ``loads``, which takes what this takes and refuses what this refuses.

    Where ``is_carried(value["function"])``, and that is read first, ``value["args"]`` is checked but not kept: it is
    empty. Raises ``InvalidMessage``, as ``loads`` does, with another position perhaps.
    """
    value = _Value(max_depth, is_carried)
    try:
        yield from _read_all(_decode(text, window), value, window)
    except (RecursionError, ValueError) as error:
        raise explain(error, max_depth, text, f"behind char {value.length}") from None
    return value.end()


def _read_all(pieces: Iterator[str], value: _Value, window: int) -> Steps:
    held, enough = "", 0  # what is not read yet, and how much of it there must be for another look
    for piece in pieces:
        held += piece
        yield
        if len(held) < enough:
            continue
        found = _TO_LAST_COMMA.match(held)
        if found is not None:
            value.add(held[: found.end() - 1])
            held, enough = held[found.end() :], 0
            continue
        start = _TO_OPEN_STRING.match(held).end()  # type: ignore[union-attr]
        if start < len(held) >= window:
            string, rest = yield from _read_string(held[start + 1 :], pieces, value)
            held = held[:start] + value.stand_in(string) + rest
        enough = 2 * len(held)
    value.add(held, is_last=True)


def _decode(text: bytes, window: int) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8")()
    view = memoryview(text)
    for start in range(0, len(text), window):
        part = view[start : start + window]
        waiting = len(decoder.getstate()[0])
        try:
            yield decoder.decode(part, start + window >= len(text))
        except UnicodeDecodeError as error:
            place = start - waiting + error.start
            raise InvalidMessage(f"not UTF-8: byte {text[place]:#04x} at {place}") from None


def _read_string(text: str, pieces: Iterator[str], value: _Value) -> Generator[None, None, tuple[str, str]]:
    """The string whose inside begins with ``text`` and goes on in ``pieces``; and what is behind it."""
    parts: list[str] = []
    while True:
        end = _IN_STRING.match(text).end()  # type: ignore[union-attr]
        if end < len(text) and text[end] == '"':
            stop = end + 1
            parts.append(_scan_string(text, 0)[0])
            break
        if end:
            parts.append(_scan_string(text[:end] + '"', 0)[0])
        value.check(text[:end], parts[-1:])
        rest = text[end:]
        more = None if len(rest) > _LONGEST_ESCAPE else next(pieces, None)
        if more is None:  # it ends here, or does not end, or there is an escape that is none
            text = rest
            part, stop = _scan_string(text, 0)
            parts.append(part)
            break
        text = rest + more
        yield
    value.check(text[:stop], parts[-1:])
    return "".join(parts), text[stop:]


class _Value:
    """A value that grows."""

    def __init__(self, max_depth: int, is_carried: Callable[[str], bool] | None) -> None:
        self._max_depth = max_depth
        self._is_carried = is_carried
        self._drops = False
        self._stack: list[dict[str, Any] | list[Any]] = []  # containers that are open, from the outermost on
        self._root: Any = None
        self._has_begun = False
        self._unfit: str | None = None  # what is wrong with it, although it can be read
        # Nobody can guess them, so that they stand for nothing else.
        self._first = os.urandom(16).hex()  # the key of what is in front, where it is an object
        self._stand_ins: dict[str, str] = {}
        self.length = 0  # characters that were read, about

    def stand_in(self, string: str) -> str:
        """What to put in place of a string, as JSON."""
        name = os.urandom(16).hex()
        self._stand_ins[name] = string
        self.length += len(string)
        return f'"{name}"'

    def check(self, text: str, read: Any) -> None:
        """Look at what was read of ``text``: it may be JSON, and unfit all the same."""
        if is_deeper(text, read, self._max_depth):
            self._unfit = self._unfit or f"nested deeper than {self._max_depth}"
        if "\\u" in text and has_lone_surrogate(text, read):  # the first is the quicker search
            self._unfit = self._unfit or LONE_SURROGATE

    def end(self) -> Any:
        """The whole value. Raises ``Unfit``."""
        if self._unfit is not None:
            raise Unfit(self._unfit, self._root)
        if self._drops:
            self._root["args"].clear()
        return self._root

    def add(self, text: str, *, is_last: bool = False) -> None:
        """Read what comes next: up to a comma (which is left out) or the end."""
        if self._has_begun and not self._stack:
            raise InvalidMessage("not JSON: Extra data")
        if not is_last and text.rstrip(" \t\r\n")[-1:] in ("[", "{"):
            raise InvalidMessage(f"not JSON: Expecting value: behind char {self.length}")
        closed, opened = ("", "") if is_last else self._brackets(text)
        length = len(text) + 1
        kept = len(self._stack) - len(closed)
        behind = "".join("]" if type(each) is list else "}" for each in reversed(self._stack[:kept]))
        behind = opened[::-1].translate(_CLOSING) + behind
        text = self._in_front() + text + ("" if is_last else behind)
        value = read(text)
        self.check(text, value)
        for name in [name for name in self._stand_ins if name in text]:
            value = _replace(value, name, self._stand_ins.pop(name))
        if self._has_begun:
            levels = self._merge(value)
            inner = levels[kept - 1] if kept else None
        else:
            self._has_begun, self._root, inner = True, value, None
        self.length += length
        del self._stack[kept:]
        for _ in opened:
            inner = value if inner is None else _last(inner)
            self._stack.append(inner)
        if not self._drops and self._is_carried is not None and type(self._root) is dict:
            function = self._root.get("function")
            if isinstance(function, str) and len(self._stack) > 1 and next(reversed(self._root)) == "args":
                self._drops = self._is_carried(function)

    def _brackets(self, text: str) -> tuple[str, str]:
        """Those in ``text`` that close what is open, and those that open what stays so."""
        left = _unmatched(_NO_BRACKETS.sub("", text))
        opened = left.lstrip("]}")
        closed = left[: len(left) - len(opened)]
        expected = "".join("]" if type(each) is list else "}" for each in reversed(self._stack))
        if not expected.startswith(closed) or opened.strip("[{"):
            raise InvalidMessage("not JSON: the brackets don't match")
        return closed, opened

    def _in_front(self) -> str:
        """The open containers, the innermost with an element: a comma was behind it."""
        if not self._stack:
            return ""
        front = "".join("[" if type(each) is list else f'{{"{self._first}":' for each in self._stack)
        return f"{front}0,"

    def _merge(self, value: Any) -> list[Any]:
        """Put what is new into the open containers; what was read of each of them."""
        levels = []
        under = next(reversed(self._root)) if self._drops else None
        for depth, container in enumerate(self._stack):
            levels.append(value)
            drops = depth > 0 and under == "args"
            if isinstance(container, list):
                inner = value[0]
                if not drops:
                    container += value[1:]
            else:
                inner = value.pop(self._first)
                if not container.keys().isdisjoint(value):
                    raise InvalidMessage("an object has a key twice")
                container.update(dict.fromkeys(value) if drops else value)
            value = inner
        return levels


_CLOSING = str.maketrans("[{", "]}")


def _unmatched(brackets: str) -> str:
    for _ in range(20):  # levels
        before = len(brackets)
        brackets = brackets.replace("[]", "").replace("{}", "")
        if len(brackets) == before:
            return brackets
    left: list[str] = []  # there are many levels: one bracket after the other
    for bracket in brackets:
        if left and left[-1].translate(_CLOSING) == bracket and left[-1] != bracket:
            left.pop()
        else:
            left.append(bracket)
    return "".join(left)


def _last(container: dict[str, Any] | list[Any]) -> Any:
    return container[-1] if isinstance(container, list) else next(reversed(container.values()))


def _replace(value: Any, name: str, string: str) -> Any:
    """Put the string where its stand-in is, as a value or as a key."""
    if value == name:
        return string
    waiting = [value]
    for item in waiting:
        if isinstance(item, list):
            if name in item:
                item[item.index(name)] = string
            waiting += [inner for inner in item if isinstance(inner, (dict, list))]
        elif isinstance(item, dict):
            if name in item:
                if string in item:
                    raise InvalidMessage("an object has a key twice")
                pairs = [(string if key == name else key, inner) for key, inner in item.items()]
                item.clear()
                item.update(pairs)
            for key, inner in item.items():
                if inner == name:
                    item[key] = string
            waiting += [inner for inner in item.values() if isinstance(inner, (dict, list))]
    return value


def take_apart(values: list[Any]) -> Steps:
    """Let go of large values: Python does so with all that is in a value in one go. Takes them out of the list.

    What somebody else refers to as well is left as it is.
    """
    count = 0
    while values:
        value = values.pop()
        if sys.getrefcount(value) > 2 or not isinstance(value, (list, dict)):
            continue
        while value:
            if isinstance(value, list):
                some = value[-_AT_ONCE:]
                del value[-_AT_ONCE:]
            else:
                some = [value.popitem()[1] for _ in range(min(_AT_ONCE, len(value)))]
            while some:
                item = some.pop()
                count += 1
                if type(item) is dict or type(item) is list:
                    size = _count_items(item)
                    count += size
                    if size > _FEW:
                        values.append(item)
                item = None
            if count > _FEW:
                count = 0
                yield


def _count_items(value: Any) -> int:
    """All that is in it, or more than a few."""
    count, waiting = 0, [value]
    for item in waiting:
        count += len(item)
        if count > _FEW:
            break
        inside = item.values() if isinstance(item, dict) else item
        waiting += [inner for inner in inside if type(inner) is dict or type(inner) is list]
    return count
