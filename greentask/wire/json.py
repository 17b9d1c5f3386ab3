"""JSON as the wire means it: strictly (RFC 8259), by the standard library's C code.

ujson reads what was checked before: a task's arguments in its process, after the server has read the line.
A quicker parser that reads what isn't JSON (ujson: ``NaN``, ``[-]``, ``[01]``, raw tabs in strings) needs a search for
all of that in front of it, which takes longer than it saves. Writing, ujson rounds a ``Decimal``, makes any key a
string and copies what an object's ``__json__`` says into the line as it is: so it writes only what has none of these
in it, strings, integers and the like, where it comes to the same text (tests/wire compares them).
"""

from __future__ import annotations

import codecs
import json
import math
import re
import sys
from collections.abc import Callable, Iterable
from itertools import chain
from typing import Any

import ujson

from ..errors import InvalidMessage, InvalidResult

__all__ = [
    "DEEPEST",
    "MAX_DEPTH",
    "Unfit",
    "dumps",
    "dumps_other",
    "dumps_plain",
    "find_fault",
    "loads",
    "loads_checked",
]

#: How deeply arrays and objects may be nested, unless whoever reads says otherwise; deeper is ``InvalidMessage``.
MAX_DEPTH = 200
#: How deeply they may be in what is written; and the most that a reader can be told to take. Python's own parser gives
#: up at about 900 (fewer where it is called far down the stack), ujson at 1,024, that of PHP at 512.
DEEPEST = 500

#: How many digits an integer may have: what Python reads and writes unless it is told otherwise. A program may have
#: lifted that limit; a stranger's line of digits would then keep the server busy for minutes.
MAX_DIGITS = 4300

#: What is said of a string that can't be written as UTF-8.
LONE_SURROGATE = "not JSON: a lone surrogate is not a character"

# Half of a pair that stands for one character, or a lone one.
_SURROGATE = re.compile(r"\\u[dD][89a-fA-F]")

_MANY_DIGITS = re.compile(rf"\d{{{MAX_DIGITS + 1}}}")

_CONTAINERS = (dict, list, tuple)

# What JSON has besides objects and arrays; the encoder takes these for keys as well.
_LEAVES = (str, int, float, type(None))
_are_leaves = frozenset({*_LEAVES, bool}).issuperset  # of types; the quickest way to see it
_are_strings = frozenset({str}).issuperset
_are_dicts = frozenset({dict}).issuperset

# What ujson writes as the standard library does, a string aside. Not a float: what both write is exact, and not alike.
_PLAIN = frozenset({int, bool, type(None)})
_FEW = 16  # values
_SHORT = 2_000  # characters of the strings among them

# What is before the colon of a pair, and seldom before one in a string.
_COLONS = ('":', " :", "\t:", "\n:", "\r:")


class Unfit(InvalidMessage):
    """``InvalidMessage`` for a text that is JSON, and refused for its contents; ``value`` is what was read."""

    def __init__(self, message: str, value: Any) -> None:
        super().__init__(message)
        self.value = value

    @property
    def type(self) -> str:
        return "InvalidMessage"


def _refuse_constant(name: str) -> Any:
    raise InvalidMessage(f"not JSON: {name} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidMessage(f"not JSON: {_shorten(digits)} is beyond a float's range")
    return number


def _integer(digits: str) -> int:
    if len(digits) - digits.startswith("-") > MAX_DIGITS:
        raise InvalidMessage(_too_long(MAX_DIGITS))
    return int(digits)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise InvalidMessage(f"an object has the key {_show(_find_duplicate(pairs), 80)} twice")
    return members


_STRICT: dict[str, Any] = {
    "parse_constant": _refuse_constant,
    "parse_float": _finite,
    "object_pairs_hook": _object,
}
_decode = json.JSONDecoder(**_STRICT).decode
_decode_bounded = json.JSONDecoder(**_STRICT, parse_int=_integer).decode  # slower, where there are many integers
#: Reads a value, and returns it with where it ends. Quicker than a decoder by half: it calls nothing of ours for each
#: object, and so keeps the last of a key's values; ``read`` and ``finish_loading`` look for that.
scan: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    parse_constant=_refuse_constant, parse_float=_finite
).scan_once  # type: ignore[attr-defined]


def _make_encode() -> Callable[[Any, int], Iterable[str]]:
    encoder = json.JSONEncoder(check_circular=False, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    make = json.encoder.c_make_encoder  # type: ignore[attr-defined]
    if make is None:
        return lambda value, _level: (encoder.encode(value),)
    # What `encode` makes anew for each value. Used again it must keep no list of what it is in (which an exception
    # leaves as it is): a value that contains itself is one that is nested too deeply.
    text_of = json.encoder.encode_basestring
    encode: Callable[[Any, int], Iterable[str]] = make(
        None, encoder.default, text_of, None, ":", ",", False, False, False
    )
    return encode


_encode = _make_encode()  # a value, and how deep it is: 0


def loads(text: bytes, max_depth: int = MAX_DEPTH) -> Any:
    """The value of a JSON text. Raises ``InvalidMessage``, and nothing else.

    Integers are exact, up to ``MAX_DIGITS``. An object that has a key twice is refused: whoever looked at the text
    before (a proxy that checks the function, a log) may have taken the other one.
    """
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidMessage(f"not UTF-8: byte {text[error.start]:#04x} at {error.start}") from None
    try:
        value = read(decoded)
    except (RecursionError, ValueError) as error:
        raise explain(error, max_depth, text) from None
    _check(text, decoded, value, max_depth)
    return value


def finish_loading(text: bytes, decoded: str, value: Any, end: int, max_depth: int) -> Any:
    """The value of a text that ``scan`` has read; raises ``InvalidMessage`` where ``loads`` does."""
    try:
        value = _finish_reading(decoded, value, end)
    except (RecursionError, ValueError) as error:
        raise explain(error, max_depth, text) from None
    _check(text, decoded, value, max_depth)
    return value


def _check(text: bytes, decoded: str, value: Any, max_depth: int) -> None:
    if len(text) > max_depth and is_deeper(decoded, value, max_depth):
        raise Unfit(f"nested deeper than {max_depth}", value)
    if "\\u" in decoded and has_lone_surrogate(decoded, value):
        raise Unfit(LONE_SURROGATE, value)


def read(text: str) -> Any:
    """The value of a JSON text, whatever its depth, and with surrogates as they are.

    Raises ``InvalidMessage``, or what ``explain`` is for.
    """
    if len(text) > MAX_DIGITS and not _python_bounds_digits():
        return _decode_bounded(text)
    try:
        value, end = scan(text, 0)
    except StopIteration:
        return _decode(text)  # raises what it says of it
    return _finish_reading(text, value, end)


def _finish_reading(text: str, value: Any, end: int) -> Any:
    if end == len(text):
        # A colon for each pair, and more in strings: where there are only as many as keys, none was there twice.
        colons = text.count(":")
        if type(value) is dict:
            keys = len(value)
            for item in value.values():
                if type(item) is dict:
                    keys += len(item)
            if keys == colons:
                return value  # as most are: there are none further inside
        keys = _count_keys(value) if type(value) is dict or type(value) is list else 0
        if keys == colons or keys == sum(map(text.count, _COLONS)):
            return value
    return _decode(text)


def explain(error: Exception, max_depth: int, text: bytes, place: str = "") -> InvalidMessage:
    """What to say of an error of ``read``; ``place`` is where it is, if not where it says itself."""
    if isinstance(error, RecursionError):
        return InvalidMessage(f"nested deeper than {max_depth}")
    if not isinstance(error, json.JSONDecodeError):
        return InvalidMessage(_too_long(sys.get_int_max_str_digits()))
    hint = " (a byte order mark)" if text.startswith(codecs.BOM_UTF8) else ""
    return InvalidMessage(f"not JSON: {_shorten(f'{error.msg}: {place}' if place else str(error))}{hint}")


def _count_keys(value: dict[str, Any] | list[Any]) -> int:
    inside: Iterable[Any] = value
    count = 0
    if type(value) is dict:
        count, inside = len(value), value.values()
    for item in inside:
        kind = type(item)
        if kind is dict or kind is list:
            count += _count_keys(item)
    return count


def loads_checked(text: bytes) -> Any:
    """The value of a text that ``loads`` has accepted before, somewhat quicker.

    What ujson reads of such a text is what the standard library reads (tests/wire looks for one where it isn't).
    Raises ``ValueError`` for an integer longer than Python was told to read meanwhile.
    """
    return ujson.loads(text)


def dumps_plain(value: Any) -> bytes | None:
    """The JSON text of a short value, or of an object or array of a few, in half the time; None for any other.

    Most arguments and results are such.
    """
    kind, weight, has_floats = type(value), 0, False
    # Two loops that look at values alike: one for both, and a look at the keys, takes an object 7 to 15 % longer.
    if kind is dict:
        if len(value) > _FEW:
            return None
        value = value.copy()  # another thread may change it between the look at it and the writing
        for key, inner in value.items():
            kind = type(inner)
            if kind is str:
                weight += len(inner)
            elif kind is float:
                has_floats = True
            elif kind not in _PLAIN:
                return None
            if type(key) is not str:
                return None
    elif kind is str:
        weight = len(value)
    elif kind is list:
        if len(value) > _FEW:
            return None
        value = value.copy()
        for inner in value:
            kind = type(inner)
            if kind is str:
                weight += len(inner)
            elif kind is float:
                has_floats = True
            elif kind not in _PLAIN:
                return None
    elif kind not in _PLAIN:
        return None
    if weight > _SHORT:
        return None
    try:
        if has_floats:
            text = "".join(_encode(value, 0))
        else:
            # By position, in half the time: not only ASCII, and neither "/" nor what is special in HTML is escaped.
            text = ujson.dumps(value, False, False, False)
        return text.encode() if len(text) <= MAX_DIGITS else None
    except ValueError:  # a lone surrogate, an integer that is too long, or NaN
        return None


def dumps(value: Any, max_depth: int = DEEPEST) -> bytes:
    """The JSON text of a value, as UTF-8 on one line.

    Raises ``InvalidResult``, which says where in the value the thing is that JSON can't carry.
    """
    plain = dumps_plain(value) if max_depth > 0 else None
    return dumps_other(value, max_depth) if plain is None else plain


def dumps_other(value: Any, max_depth: int = DEEPEST) -> bytes:
    """``dumps`` of what is not plain."""
    try:
        text = "".join(_encode(value, 0))
        encoded = text.encode("utf-8")
    except Exception as error:  # whatever a dict's subclass raises, too
        found = find_fault(value, "result", max_depth)
        raise InvalidResult(found or f"JSON can't carry it: {_shorten(str(error))}") from None
    if len(text) > max_depth and is_deeper(text, value, max_depth):
        # Nobody could read it.
        raise InvalidResult(find_fault(value, "result", max_depth) or f"nested deeper than {max_depth}")
    # 1 and "1" are two keys here and one there; and not every reader takes what a Python without a limit writes.
    pairs = text.count('":')  # and some in strings, perhaps
    if (pairs and not _keys_are_strings(value, pairs)) or (
        len(text) > MAX_DIGITS and not _python_bounds_digits() and _MANY_DIGITS.search(text)
    ):
        found = find_fault(value, "result", max_depth)
        if found is not None:
            raise InvalidResult(found)
    return encoded


def _python_bounds_digits() -> bool:
    limit = sys.get_int_max_str_digits() if hasattr(sys, "get_int_max_str_digits") else 0  # before Python 3.10.7
    return 0 < limit <= MAX_DIGITS


def _too_long(limit: int) -> str:
    return f"an integer has more than {limit} digits"


def _find_duplicate(pairs: list[tuple[str, Any]]) -> str | None:
    seen = set()
    for key, _ in pairs:
        if key in seen:
            return key
        seen.add(key)
    return None


def _keys_are_strings(value: Any, pairs: int) -> bool:
    # As most are: an object, or an array of them, with all the pairs that there are, so that there are none inside.
    if type(value) is dict:
        if len(value) == pairs and _are_strings(map(type, value)):
            return True
    elif type(value) is list and _are_dicts(map(type, value)):
        if sum(map(len, value)) == pairs and _are_strings(map(type, chain.from_iterable(value))):
            return True
    elif not isinstance(value, _CONTAINERS):
        return True
    waiting = [value]
    try:
        for item in waiting:
            inside: Any = item
            if isinstance(item, dict):
                "".join(dict.keys(item))
                inside = dict.values(item)
            if not _are_leaves(map(type, inside)):
                waiting += [inner for inner in inside if isinstance(inner, _CONTAINERS)]
    except TypeError:
        return False
    return True


def has_lone_surrogate(text: str, value: Any) -> bool:
    """Whether there is half of a character in a value that was read of that text."""
    return _SURROGATE.search(text) is not None and _has_lone_surrogate(value)


def _has_lone_surrogate(value: Any) -> bool:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            if not _is_plain(item):
                return True
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)
    return False


def is_deeper(text: str, value: Any, limit: int) -> bool:
    """Whether a value, with that text, is nested deeper than ``limit``."""
    return text.count("[") + text.count("{") > limit and _is_deeper(value, limit)


def _is_deeper(value: Any, limit: int) -> bool:
    level: list[Any] = [(value,)]
    for _ in range(limit + 1):
        level = [
            inner
            for item in level
            for inner in (item.values() if isinstance(item, dict) else item)
            if isinstance(inner, _CONTAINERS)
        ]
        if not level:
            return False
    return True


def find_fault(value: Any, name: str, max_depth: int = DEEPEST) -> str | None:
    """Where in a value called ``name`` the thing is that JSON can't carry, in words; None where none was found."""
    path_to: list[tuple[str, Any, frozenset[int]]] = [(name, value, frozenset())]
    while path_to:
        path, item, above = path_to.pop()
        if isinstance(item, _CONTAINERS):
            if id(item) in above:
                return f"{path} contains itself"
            if len(above) >= max_depth:
                return f"{path[:80]}… is nested deeper than {max_depth}"
            inside = above | {id(item)}
            if isinstance(item, dict):
                written: dict[str, Any] = {}
                for key in dict.keys(item):
                    if not isinstance(key, _LEAVES) or not _is_plain(key):
                        return f"{path} has the key {_show(key)}, which JSON can't carry"
                    same = written.setdefault(key if isinstance(key, str) else "".join(_encode(key, 0)), key)
                    if same is not key:
                        return f"{path} has the keys {_show(same)} and {_show(key)}, which are one in JSON"
                pairs = [(_show(key, 80), inner) for key, inner in dict.items(item)]
            else:
                pairs = [(str(index), inner) for index, inner in enumerate(item)]
            path_to.extend((f"{path}[{key}]", inner, inside) for key, inner in reversed(pairs))
        elif not isinstance(item, _LEAVES):
            kind = type(item).__qualname__
            return f"{path} is {'an' if kind[0] in 'aeioAEIO' else 'a'} {kind}, which JSON can't carry: {_show(item)}"
        elif not _is_plain(item):
            return f"{path} is {_show(item)}, which JSON can't carry"
    return None


def _is_plain(item: str | int | float | None) -> bool:
    if isinstance(item, str):
        try:
            item.encode("utf-8")
        except UnicodeEncodeError:  # a lone surrogate
            return False
    elif isinstance(item, int):
        try:
            return len(int.__repr__(item)) <= MAX_DIGITS + (item < 0)
        except ValueError:  # longer than Python converts
            return False
    return not isinstance(item, float) or math.isfinite(item)


def _show(item: Any, limit: int = 200) -> str:
    try:
        return _shorten(repr(item), limit)
    except Exception as error:
        if isinstance(item, int):
            return f"an integer of {item.bit_length()} bits"
        return f"<its repr raises {type(error).__name__}>"


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
