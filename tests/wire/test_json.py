"""Strict JSON: what is read, what is refused, and where in a value the thing is that can't be written."""

import array
import collections
import copy
import datetime
import decimal
import enum
import itertools
import json
import math
import sys
import uuid
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from greentask.errors import InvalidMessage, InvalidResult
from greentask.wire.json import (
    DEEPEST,
    MAX_DEPTH,
    Unfit,
    dumps,
    dumps_other,
    dumps_plain,
    find_fault,
    loads,
    loads_checked,
)
from support.values import alike, damaged, nested, pieces, values
from support.values import text as texts

MORE_EXAMPLES = settings(max_examples=5 * settings().max_examples)


def strict(text: bytes) -> Any:
    """The standard library's reading, with all refused that RFC 8259 forbids, and keys that are there twice."""

    def refuse(name: str) -> None:
        raise ValueError(name)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in pairs}) < len(pairs):
            raise ValueError("a key twice")
        return dict(pairs)

    value = json.loads(text.decode("utf-8"), parse_constant=refuse, object_pairs_hook=unique)
    check(value, MAX_DEPTH)
    return value


def check(value: Any, depth: int) -> None:
    if isinstance(value, float) and math.isinf(value):
        raise ValueError("beyond a float's range")
    if isinstance(value, str):
        value.encode("utf-8")
    if isinstance(value, (dict, list)):
        if depth == 0:
            raise ValueError("too deep")
        for inner in [*value, *value.values()] if isinstance(value, dict) else value:
            check(inner, depth - 1)


# ---- Reading


@MORE_EXAMPLES
@given(
    st.binary(max_size=30)
    | st.lists(pieces, max_size=8).map(b"".join)
    | damaged(values.map(lambda value: json.dumps(value).encode()))
    | damaged(values.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode()))
)
@example(b"9" * 250 + b"e99")
def test_reading_agrees_with_the_strict_standard_library(text: bytes) -> None:
    try:
        expected = strict(text)
    except (ValueError, RecursionError):
        with pytest.raises(InvalidMessage):
            loads(text)
    else:
        assert alike(loads(text), expected)
        assert alike(loads_checked(text), expected)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "not JSON"),
        (b" ", "not JSON"),
        (b"NaN", "NaN is not a JSON value"),
        (b'{"a":[Infinity]}', "Infinity is not a JSON value"),
        (b"[-Infinity]", "-Infinity is not a JSON value"),
        (b"nan", "not JSON"),
        (b"[-]", "not JSON"),
        (b"-", "not JSON"),
        (b"+1", "not JSON"),
        (b"01", "not JSON"),
        (b"[-01]", "not JSON"),
        (b'{"a":00}', "not JSON"),
        (b"2.", "not JSON"),
        (b"[2.]", "not JSON"),
        (b"2.e3", "not JSON"),
        (b".5", "not JSON"),
        (b"-.5", "not JSON"),
        (b"1e", "not JSON"),
        (b"1e+", "not JSON"),
        (b"0x10", "not JSON"),
        (b"1_000", "not JSON"),
        ("\u0661".encode(), "not JSON"),
        (b"[1,]", "not JSON"),
        (b"[,1]", "not JSON"),
        (b'{"a":1,}', "not JSON"),
        (b"{a:1}", "not JSON"),
        (b"{1:1}", "not JSON"),
        (b"{'a':1}", "not JSON"),
        (b"[1 2]", "not JSON"),
        (b"1 2", "not JSON"),
        (b"{}{}", "not JSON"),
        (b"[1]//", "not JSON"),
        (b"True", "not JSON"),
        (b"nul", "not JSON"),
        (b'"a', "not JSON"),
        (b'"\t"', "not JSON"),
        (b'"\n"', "not JSON"),
        (b'"\x00"', "not JSON"),
        (b'"\x1f"', "not JSON"),
        (b"[1]\x00", "not JSON"),
        (b"\x00", "not JSON"),
        (b"\x0c1", "not JSON"),
        ("\xa01".encode(), "not JSON"),
        (b"\xef\xbb\xbf1", "not JSON"),
        (b'"\\x41"', "not JSON"),
        (b'"\\u00g0"', "not JSON"),
        (b'"\\u00"', "not JSON"),
        (b'"\\ud800"', "lone surrogate"),
        (b'["\\uDC00"]', "lone surrogate"),
        (b'{"\\udfff":1}', "lone surrogate"),
        (b'{"a":{"b":["\\ud83d\\u0041"]}}', "lone surrogate"),
        (b'"\\ude00\\ud83d"', "lone surrogate"),
        (b'"\xff"', "not UTF-8: byte 0xff at 1"),
        (b'"\xc0\xaf"', "not UTF-8: byte 0xc0 at 1"),
        (b'"\xed\xa0\x80"', "not UTF-8: byte 0xed at 1"),
        (b"1e400", "1e400 is beyond a float's range"),
        (b"[-1e999]", "-1e999 is beyond a float's range"),
        (b"1.8e308", "1.8e308 is beyond a float's range"),
        (b"9" * 250 + b"e99", "beyond a float's range"),
        (b"9" * 300 + b".5e9", "beyond a float's range"),
        (b"1e99999999999999999999", "beyond a float's range"),
        (b"9" * 10_000, "an integer has more than 4300 digits"),
        (b'{"a":1,"b":2,"a":3}', "an object has the key 'a' twice"),
        (b'[{"a" :":"},{"b":{"a"\t:" :","a" :"::"}}]', "an object has the key 'a' twice"),
        (b'{":":":",":":":"}', "an object has the key ':' twice"),
        (b"[" * 201 + b"]" * 201, "nested deeper than 200"),
        (b'{"a":' * 201 + b"1" + b"}" * 201, "nested deeper than 200"),
        (b"[" * 900 + b"]" * 900, "nested deeper than 200"),
        (b"[" * 100_000 + b"]" * 100_000, "nested deeper than 200"),
        (b"[" * 100_000, "nested deeper than 200|not JSON"),
        (b'{"a":' * 100_000, "nested deeper than 200|not JSON"),
    ],
)
def test_what_is_not_json_is_refused(text: bytes, says: str) -> None:
    with pytest.raises(InvalidMessage, match=says) as caught:
        loads(text)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b" \t\r\n1 \t\r\n", 1),
        (b'{"a" : ":\\":", "b"\t:[{":" :"::"}," :"]}', {"a": ':":', "b": [{":": "::"}, " :"]}),
        (b"null", None),
        (b"-0", 0),
        (b"-0.0", -0.0),
        (b"1E+2", 100.0),
        (b"1e-400", 0.0),
        (b"5e-324", 5e-324),
        (b"1.7976931348623157e308", sys.float_info.max),
        (b"9" * 100 + b"e99", float("9" * 100 + "e99")),
        (b"18446744073709551616", 1 << 64),
        (b"-9223372036854775809", -(1 << 63) - 1),
        (b"9" * 4_000, 10**4_000 - 1),
        (b'"\\ud83d\\ude00\\/\\u0000"', "\U0001f600/\0"),
        ('"\x7f\u2028\uffff"'.encode(), "\x7f\u2028\uffff"),
        (b'"NaN -Infinity [-] 01 2. 1e400 \\\\ud800"', "NaN -Infinity [-] 01 2. 1e400 \\ud800"),
        (b'"' + b"[" * 1_000 + b'"', "[" * 1_000),
        (b"[" * 200 + b"]" * 200, nested(200)),
        (b"[" + b"[]," * 300 + b"[]]", [[]] * 301),
        (b"[" * 199 + b"[],[]" + b"]" * 199, nested(199, [[], []])),
    ],
)
def test_what_is_json_is_read_exactly(text: bytes, value: Any) -> None:
    assert alike(loads(text), value)


@MORE_EXAMPLES
@given(
    st.lists(pieces, max_size=8).map(b"".join)
    | damaged(values.map(lambda value: json.dumps(value).encode()))
    | damaged(values.map(lambda value: json.dumps(value, ensure_ascii=False, indent=1).encode()))
)
@example(b"9" * 4_000)
@example(b"[" * 200 + b"]" * 200)
@example(b" \t\r\n-0.0 \t\r\n")
def test_what_was_checked_is_read_the_same_a_second_time(text: bytes) -> None:
    try:
        value = loads(text)
    except InvalidMessage:
        return
    assert alike(loads_checked(text), value)


# ---- Writing


@MORE_EXAMPLES
@given(values)
def test_what_is_written_reads_the_same(value: Any) -> None:
    text = dumps(value)
    assert alike(loads(text), value)
    assert alike(strict(text), value)


@given(values)
def test_what_is_written_is_one_line_without_blanks_around(value: Any) -> None:
    text = dumps(value)
    assert text.splitlines() == [text]
    assert text == text.strip()


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"a": [1, 2.5, None, True]}, b'{"a":[1,2.5,null,true]}'),
        ("\xe9/\U0001f600\u2028", '"\xe9/\U0001f600\u2028"'.encode()),
        ('\0\n\r\t"\\', b'"\\u0000\\n\\r\\t\\"\\\\"'),
        ((1, (2,)), b"[1,[2]]"),
        (collections.namedtuple("Point", "x y")(1, 2), b"[1,2]"),
        (collections.OrderedDict(b=1, a=2), b'{"b":1,"a":2}'),
        (enum.IntEnum("Color", "RED").RED, b"1"),  # type: ignore[attr-defined]
        ({1: 2, None: 3, False: 4, 1.5: 5}, b'{"1":2,"null":3,"false":4,"1.5":5}'),
        (1 << 70, b"1180591620717411303424"),
        (-0.0, b"-0.0"),
        (1e22, b"1e+22"),
    ],
)
def test_values_are_written_so(value: Any, text: bytes) -> None:
    assert dumps(value) == text


def written_by_the_standard_library(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def test_every_character_is_written_alike_in_plain_values() -> None:
    for start in range(0, 0x110000, 0x100):
        some = "".join(map(chr, range(start, start + 0x100)))
        if 0xD800 <= start < 0xE000:  # surrogates, which are none
            assert all(dumps_plain({"a": character}) is None for character in some)
            assert dumps_plain({some[0]: 1}) is dumps_plain(some) is dumps_plain([some]) is None
        else:
            for value in (some, [some], {some: some}, {some: 0.5}):
                assert dumps_plain(value) == written_by_the_standard_library(value)


PLAIN_TYPES = (str, int, float, bool, type(None))
plain_ones = texts | st.integers() | st.booleans() | st.none() | st.floats(allow_nan=False, allow_infinity=False)


@given(values | st.dictionaries(texts, plain_ones, max_size=17) | st.lists(plain_ones, max_size=17))
def test_plain_values_are_written_as_any_other(value: Any) -> None:
    text = dumps_plain(value)
    assert text is None or text == written_by_the_standard_library(value) == dumps_other(value)
    inside = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else [value]
    is_plain = len(inside) <= 16 and {type(one) for one in inside} <= set(PLAIN_TYPES) and type(value) is not float
    assert (text is not None) == is_plain


@pytest.mark.parametrize(
    "value",
    [
        {1: 2},
        {True: 2},
        {collections.UserString("a"): 2},
        {"a": decimal.Decimal("1.10")},
        1.5,
        {"a": math.nan},
        {"a": -math.inf, "b": 1},
        [math.nan],
        {"a": [1]},
        {"a": {}},
        [[]],
        (1, 2),
        "a" * 2_001,
        [10**4_300],
        [decimal.Decimal(1)],
        {"a": "b" * 2_001},
        {"b" * 5_000: 1},
        {"a": 10**4_300},
        {"a": enum.IntEnum("Color", "RED").RED},  # type: ignore[attr-defined]
        {type("Name", (str,), {})("a"): 1},
        {"a": type("Name", (str,), {})("a")},
        collections.OrderedDict(a=1),
    ],
)
def test_what_is_not_plain_is_left_to_the_standard_library(value: Any) -> None:
    assert dumps_plain(value) is None


def at_line(number: int, change: Callable[[], object], run: Callable[[], Any]) -> Any:
    """What ``run`` returns where another thread makes a change before so many lines of json.py, or None at an end."""
    lines = itertools.count()
    is_made = False

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal is_made
        if frame.f_code.co_filename != dumps.__code__.co_filename:
            return None
        if event == "line" and next(lines) == number:
            is_made = True
            change()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        returned = run()
    finally:
        sys.settrace(before)
    return returned if is_made else None


@pytest.mark.parametrize(
    "put",
    [math.nan, -math.inf, decimal.Decimal("1.10"), {1: 2}, "\ud800", b"", [1, [2]], 10**5_000, "a" * 3_000],
    ids=lambda put: type(put).__name__,
)
@pytest.mark.parametrize("value", [{"a": 1, "b": 2.5}, {"a": 1, "b": "c"}, [1, 2.5], ["a", None, 3]])
def test_what_another_thread_changes_meanwhile_is_written_as_it_was_or_as_it_is(value: Any, put: Any) -> None:
    def write(changing: Any) -> bytes:
        try:
            return dumps(changing)
        except InvalidResult:
            return b"refused"

    def put_it(changing: Any) -> None:
        changing["a" if type(changing) is dict else 0] = put

    def make_longer(changing: Any) -> None:
        changing.update(z=put) if type(changing) is dict else changing.append(put)

    for change in (put_it, make_longer):
        changed = copy.copy(value)
        change(changed)
        fine = {write(value), write(changed), b"refused"}
        for number in itertools.count():  # each line in turn
            changing = copy.copy(value)
            text = at_line(number, lambda: change(changing), lambda: write(changing))  # noqa: B023
            if text is None:
                break
            assert text in fine
        assert number > 5


class Broken:
    """Says nothing about itself, and would write what is no JSON."""

    def __repr__(self) -> str:
        raise RuntimeError("no words")

    def __json__(self) -> str:
        return '{"forged":1}\n{"id":2'

    def toDict(self) -> dict[str, int]:
        raise RuntimeError("no dict")


class Treacherous(dict[str, Any]):
    def items(self) -> Any:
        raise OSError("the database is gone")


def circle() -> list[Any]:
    ring: list[Any] = [1]
    ring.append({"back": ring})
    return ring


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ({1}, "result is a set, which JSON can't carry: {1}"),
        ([0, {"a": frozenset()}], "result[1]['a'] is a frozenset, which JSON can't carry: frozenset()"),
        ({"a": (1, b"x")}, "result['a'][1] is a bytes, which JSON can't carry: b'x'"),
        ([bytearray(b"x")], "result[0] is a bytearray, which JSON can't carry: bytearray(b'x')"),
        ([memoryview(b"x")], "result[0] is a memoryview, which JSON can't carry: <memory at "),
        (float("nan"), "result is nan, which JSON can't carry"),
        ([1.0, float("-inf")], "result[1] is -inf, which JSON can't carry"),
        ({"a": [0, "\ud800"]}, "result['a'][1] is '\\ud800', which JSON can't carry"),
        (decimal.Decimal("1.10"), "result is a Decimal, which JSON can't carry: Decimal('1.10')"),
        ({"price": decimal.Decimal("NaN")}, "result['price'] is a Decimal, which JSON can't carry: Decimal('NaN')"),
        ([datetime.date(2026, 1, 2)], "result[0] is a date, which JSON can't carry: datetime.date(2026, 1, 2)"),
        (datetime.datetime(2026, 1, 2), "result is a datetime, which JSON can't carry: datetime.datetime(2026"),
        (uuid.UUID(int=1), "result is a UUID, which JSON can't carry: UUID("),
        (enum.Enum("Color", "RED").RED, "result is a Color, which JSON can't carry: <Color.RED: 1>"),  # type: ignore[attr-defined]
        (array.array("i", [1]), "result is an array, which JSON can't carry: array('i', [1])"),
        (range(3), "result is a range, which JSON can't carry: range(0, 3)"),
        ({"a": {}.keys()}, "result['a'] is a dict_keys, which JSON can't carry: dict_keys([])"),
        (1j, "result is a complex, which JSON can't carry: 1j"),
        ([ValueError("x")], "result[0] is a ValueError, which JSON can't carry: ValueError('x')"),
        (print, "result is a builtin_function_or_method, which JSON can't carry: <built-in function print>"),
        ({(1, 2): 3}, "result has the key (1, 2), which JSON can't carry"),
        ([{b"x": 1}], "result[0] has the key b'x', which JSON can't carry"),
        ({"a": {"\udfff": 1}}, "result['a'] has the key '\\udfff', which JSON can't carry"),
        ({float("nan"): 1}, "result has the key nan, which JSON can't carry"),
        ({Broken(): 1}, "result has the key <its repr raises RuntimeError>, which JSON can't carry"),
        ([Broken()], "result[0] is a Broken, which JSON can't carry: <its repr raises RuntimeError>"),
        (Treacherous(a=1), "JSON can't carry it: the database is gone"),
        ([{"a": 10**5_000}], "result[0]['a'] is an integer of 16610 bits, which JSON can't carry"),
        (circle(), "result[1]['back'] contains itself"),
        ([set(), b""], "result[0] is a set, which JSON can't carry: set()"),
        ({"a": 1, "x" * 500: object()}, "result['xxxxx"),
    ],
    ids=lambda item: item[:60] if isinstance(item, str) else "",
)
def test_what_json_cannot_carry_is_named_with_its_place(value: Any, says: str) -> None:
    with pytest.raises(InvalidResult) as caught:
        dumps(value)
    assert str(caught.value).startswith(says)
    assert len(str(caught.value)) < 500
    str(caught.value).encode("utf-8")


@pytest.mark.parametrize("depth", [501, 900, 5_000, 100_000])
def test_what_nobody_could_read_is_not_written(depth: int) -> None:
    with pytest.raises(InvalidResult, match=r"^result\[0\]\[0\].*… is nested deeper than 500$"):
        dumps(nested(depth))
    with pytest.raises(InvalidResult, match=r"^result\['a'\]\[0\]\[0\].*… is nested deeper than 500$"):
        dumps({"a": nested(depth)})
    with pytest.raises(InvalidResult, match=r"is nested deeper than 500$"):
        dumps(nested(500, [{}]))


def test_what_can_just_be_read_is_written() -> None:
    assert dumps(nested(500)) == b"[" * 500 + b"]" * 500
    assert dumps(nested(499, [{}, ()])) == b"[" * 499 + b"{},[]" + b"]" * 499
    assert loads(dumps(nested(500)), DEEPEST) == nested(500)
    assert loads_checked(dumps(nested(500))) == nested(500)
    assert len(dumps([{"a": "[{"}] * 300)) == 300 * 11 + 1


def test_the_depth_is_the_readers_and_the_writers() -> None:
    assert loads(b"[[[]]]", 3) == [[[]]]
    assert loads(b'"[[[["', 1) == "[[[["
    with pytest.raises(Unfit, match=r"^nested deeper than 2$") as caught:
        loads(b'{"id":7,"a":[[]]}', 2)
    assert caught.value.value == {"id": 7, "a": [[]]}
    assert caught.value.type == "InvalidMessage"
    assert dumps([[[]]], 3) == b"[[[]]]"
    with pytest.raises(InvalidResult, match=r"^result\[0\]\[0\]… is nested deeper than 2$"):
        dumps([[[]]], 2)


def at_depth(frames: int, function: Callable[[], Any]) -> Any:
    return function() if frames == 0 else at_depth(frames - 1, function)


def test_every_depth_that_may_be_set_is_read_and_written_from_far_down_the_stack() -> None:
    text = b'{"a":[' * 250 + b"]}" * 250
    for frames in (0, 100, 300):
        value = at_depth(frames, lambda: loads(text, DEEPEST))
        assert at_depth(frames, lambda value=value: dumps(value)) == text


def test_the_same_thing_twice_is_no_circle() -> None:
    twice = [1]
    assert dumps([twice, {"a": twice}]) == b'[[1],{"a":[1]}]'


@given(
    st.recursive(
        values | st.binary() | st.sets(st.integers()) | st.floats() | st.text(st.characters()) | st.decimals(),
        lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers() | st.binary(), inner),
        max_leaves=8,
    )
)
def test_writing_raises_nothing_else(value: Any) -> None:
    found = find_fault(value, "result")
    if found is None:
        strict(dumps(value))
    else:
        with pytest.raises(InvalidResult) as caught:
            dumps(value)
        assert str(caught.value) == found


def test_the_name_of_what_is_searched_is_the_callers() -> None:
    assert find_fault({"a": [b""]}, "args") == "args['a'][0] is a bytes, which JSON can't carry: b''"
    assert find_fault({"a": [1, "b", None, 2.5, True, ()]}, "args") is None
