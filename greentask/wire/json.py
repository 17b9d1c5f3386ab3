"""JSON as the wire means it: ujson's speed, and the specification's strictness (RFC 8259).

ujson reads some things that are not JSON (``NaN``, ``[-]``, ``[01]``, raw tabs in strings) and lets lone
surrogates and infinities through. A quick search finds every text that could hold one of these, and only
such a text goes through the standard library's strict parser as well.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from typing import Any

import ujson

from ..errors import InvalidMessage, InvalidResult

__all__ = ["MAX_DEPTH", "dumps", "find_fault", "loads"]

#: How deeply arrays and objects may be nested; deeper is ``InvalidMessage``.
MAX_DEPTH = 200

_SUSPICIOUS = re.compile(
    r"""[\x00-\x1f]                 # control characters, in a string or (the blanks) outside of one
    | NaN | Infinity
    | (?:^|[\[,:\s-]) - (?!\d)      # a minus without a number
    | (?:^|[\[,:\s-]) 0\d           # a leading zero
    | \d\.(?!\d)                    # a point without a fraction
    | [eE][+-]?\d{3} | (?<!\d)\d{300}      # a float that may be infinite; an integer longer than Python converts
    | \\u[dD][89a-fA-F]             # a surrogate: one of a pair, or lone
    """,
    re.VERBOSE,
)


def loads(text: bytes) -> Any:
    """The value of a JSON text. Raises ``InvalidMessage``, and nothing else.

    Of duplicate keys the last wins; integers are exact whatever their size (up to Python's own limit).
    """
    try:
        decoded = text.decode("utf-8")
    except UnicodeDecodeError as error:
        raise InvalidMessage(f"not UTF-8: byte {text[error.start]:#04x} at {error.start}") from None
    strict = _SUSPICIOUS.search(decoded) is not None
    try:
        if strict:
            value = json.loads(decoded, parse_constant=_refuse_constant, parse_float=_finite)
        else:
            value = ujson.loads(decoded)
    except RecursionError:
        raise InvalidMessage(f"nested deeper than {MAX_DEPTH}") from None
    except ValueError as error:
        if "depth" in str(error):
            raise InvalidMessage(f"nested deeper than {MAX_DEPTH}") from None
        raise InvalidMessage(f"not JSON: {_shorten(str(error))}") from None
    if decoded.count("[") + decoded.count("{") > MAX_DEPTH:
        _check_depth(value)
    if strict:
        _check_surrogates(value)
    return value


def dumps(value: Any) -> bytes:
    """The JSON text of a value, as UTF-8 on one line.

    Raises ``InvalidResult``, which says where in the value the thing is that JSON can't carry.
    """
    try:
        text: str = ujson.dumps(
            value, ensure_ascii=False, escape_forward_slashes=False, allow_nan=False, reject_bytes=True
        )
        encoded = text.encode("utf-8")
    except (TypeError, ValueError, OverflowError, UnicodeEncodeError, RecursionError) as error:
        found = find_fault(value, "result")
        raise InvalidResult(found or f"JSON can't carry it: {_shorten(str(error))}") from None
    if text.count("[") + text.count("{") > MAX_DEPTH and (found := find_fault(value, "result")):
        raise InvalidResult(found)  # nobody could read it
    return encoded


def _refuse_constant(name: str) -> Any:
    raise InvalidMessage(f"not JSON: {name} is not a JSON value")


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise InvalidMessage(f"not JSON: {_shorten(digits)} is beyond a float's range")
    return number


def _check_surrogates(value: Any) -> None:
    waiting = [value]
    while waiting:
        item = waiting.pop()
        if isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError:
                raise InvalidMessage("not JSON: a lone surrogate is not a character") from None
        elif isinstance(item, dict):
            waiting.extend(item)
            waiting.extend(item.values())
        elif isinstance(item, list):
            waiting.extend(item)


def _check_depth(value: Any) -> None:
    level, depth = [value], 0
    while level:
        inner: list[Any] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(item.values())
            elif isinstance(item, list):
                inner.extend(item)
            else:
                continue
            if depth == MAX_DEPTH:
                raise InvalidMessage(f"nested deeper than {MAX_DEPTH}")
        level, depth = inner, depth + 1


def find_fault(value: Any, name: str) -> str | None:
    """Where in a value called ``name`` the thing is that JSON can't carry, in words; None where none was found."""
    leaves: dict[type, Callable[[Any], bool]] = {float: math.isfinite, str: _encodable}
    path_to: list[tuple[str, Any, frozenset[int]]] = [(name, value, frozenset())]
    while path_to:
        path, item, above = path_to.pop()
        if item is None or isinstance(item, (bool, int)):
            continue
        check = leaves.get(type(item))
        if check is not None:
            if not check(item):
                return f"{path} is {_shorten(ascii(item))}, which JSON can't carry"
        elif isinstance(item, (dict, list, tuple)):
            if id(item) in above:
                return f"{path} contains itself"
            if len(above) >= MAX_DEPTH:
                return f"{path[:80]}… is nested deeper than {MAX_DEPTH}"
            inside = above | {id(item)}
            pairs = item.items() if isinstance(item, dict) else enumerate(item)
            path_to.extend((f"{path}[{key!r:.80}]", inner, inside) for key, inner in pairs)
        elif not hasattr(item, "__json__") and not hasattr(item, "toDict"):
            return f"{path} is a {type(item).__qualname__}, which JSON can't carry: {_shorten(_safe_repr(item))}"
    return None


def _encodable(text: str) -> bool:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _safe_repr(item: Any) -> str:
    try:
        return repr(item)
    except Exception as error:
        return f"<its repr raises {type(error).__name__}>"


def _shorten(text: str, limit: int = 200) -> str:
    return text if len(text) <= limit else text[:limit] + "…"
