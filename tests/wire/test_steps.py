"""Reading a large text step by step comes to what reading it in one go does."""

import itertools
import json
import weakref
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greentask.errors import InvalidMessage
from greentask.wire.json import Unfit, loads
from greentask.wire.steps import WINDOW, loads_in_steps, take_apart

pytestmark = pytest.mark.once


def read(text: bytes, window: int = WINDOW, is_carried: Callable[[str], bool] | None = None) -> tuple[Any, int]:
    """The value, and in how many steps it was read."""
    steps = loads_in_steps(text, is_carried=is_carried, window=window)
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return end.value, count
        count += 1


def outcome(read: Callable[[], Any]) -> Any:
    try:
        return repr(read())  # which tells 1 from 1.0 and True, and the order of keys
    except Unfit as error:
        return type(error), str(error)
    except InvalidMessage as error:
        return type(error)


# Whatever may be in the way of a cut: commas, brackets, quotes and escapes in strings, and spaces.
strings = st.text(alphabet=st.sampled_from('ab,:[]{}"\\/\n\u00e9\u20ac\U0001f600\u2028'), max_size=12)
keys = strings | st.sampled_from(["function", "args", "id"])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | strings,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=40,
)
windows = st.integers(1, 40)


@st.composite
def texts(draw: st.DrawFn) -> bytes:
    options = draw(
        st.sampled_from(
            [
                {"ensure_ascii": True},
                {"ensure_ascii": False, "separators": (",", ":")},
                {"ensure_ascii": False, "separators": (" , ", "\t: ")},
                {"indent": 1},
            ]
        )
    )
    return json.dumps(draw(values), **options).encode()


@given(texts(), windows)
def test_a_value_is_read_as_in_one_go(text: bytes, window: int) -> None:
    assert repr(read(text, window)[0]) == repr(loads(text))


@given(texts(), windows, st.data())
def test_what_is_broken_is_refused_as_in_one_go(text: bytes, window: int, data: st.DataObject) -> None:
    broken = bytearray(text)
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(broken)))
        piece = data.draw(
            st.sampled_from(
                [b"", b",", b'"', b"\\", b"[", b"]", b"{", b"}", b":", b"0", b" ", b"\xff", b"\\ud800", b"1,"]
            )
        )
        broken[place : place + data.draw(st.integers(0, 2))] = piece
    expected = outcome(lambda: loads(bytes(broken)))
    assert outcome(lambda: read(bytes(broken), window)[0]) == expected


@given(st.lists(st.sampled_from(["\\ud83d", "\\ude00", "\\\\", "\\n", "\\u0041", "x", "\u00e9"]), max_size=30), windows)
@example(["\\\\", "\\ud83d", "\\ude00"], 1)
def test_a_long_string_is_cut_through_no_character(parts: list[str], window: int) -> None:
    text = f'["{"".join(parts)}", "\\ud83d\\ude00"]'.encode()
    assert outcome(lambda: read(text, window)[0]) == outcome(lambda: loads(text))


@pytest.mark.parametrize("window", [1, 2, 3, 7, 50, WINDOW])
@pytest.mark.parametrize(
    "text",
    [
        b"",
        b" ",
        b",",
        b"[1,]",
        b"[,1]",
        b"[1,[ ,2]]",
        b'{"a":{,"b":2}}',
        b"[1,,2]",
        b'{"a":1,}',
        b'{"a":[1,2],"a":3}',
        b'{"a":{"b":1,"c":2},"d":{"b":1,"e":[],"b":2}}',
        b"[1,2],[3]",
        b"[1,2]]",
        b"[1,2}",
        b'{"a":1,"b":[2,{"c":3,]}',
        b"[1,2] \t\r\n",
        b"[1,2] x",
        b"\xef\xbb\xbf[1,2]",
        b'["\xed\xa0\x80",1]',
        b'["' + b"\xe2\x82\xac" * 200 + b'\xe2\x82",1]',
        b'["' + b"x" * 300 + b'\n",1]',
        b'["' + b"x" * 300,
        b'["' + b"x" * 300 + b'\\u00g0",1]',
        b'["' + b"x" * 300 + b'\\q",1]',
        b'["' + b"\\ud83d\\ude00" * 50 + b'\\ud83d",1]',
        b'{"' + b"x" * 300 + b'":1,"' + b"x" * 300 + b'":2}',
        b'{"' + b"x" * 300 + b'":{"' + b"x" * 300 + b'":["' + b"x" * 300 + b'"]}}',
        b'{"a":"' + b"x" * 300 + b'","b":{"a":"' + b"y" * 300 + b'"}}',
        b'"' + b"x" * 300 + b'"',
        b"[" * 150 + b"1,2" + b"]" * 150,
        b"[" * 201 + b"1,2" + b"]" * 201,
        b'{"id":7,"args":' + b"[1," * 201 + b"1" + b"]" * 201 + b"}",
        b'{"args":' + b"[1," * 201 + b"1" + b"]" * 201 + b',"id":7}',
        b'{"id":7,"args":[' + b"[" * 300 + b"]" * 300 + b",1]}",
        b"[" * 5000 + b",1",
        b"[1," * 5000,
        b"[" + b"1" * 4300 + b",1]",
        b"[" + b"1" * 4301 + b",1]",
        b"[" + b" " * 4301 + b"1]",
        b"[1,NaN,2]",
        b"[1,1e999,2]",
        b'{"a":1,"b":[1,2,{"c":"\\ud800"}],"d":4}',
    ],
)
def test_the_corners(text: bytes, window: int) -> None:
    assert outcome(lambda: read(text, window)[0]) == outcome(lambda: loads(text))


def test_the_id_of_what_is_unfit_is_told() -> None:
    for text in (b'{"args":' + b"[1," * 201 + b"1" + b"]" * 201 + b',"id":7}', b'{"id":7,"args":["\\ud800",1,2]}'):
        with pytest.raises(Unfit) as caught:
            read(text, 20)
        assert caught.value.value["id"] == 7


def test_says_what_is_wrong_and_where() -> None:
    with pytest.raises(InvalidMessage, match=r"^not JSON: Expecting value: behind char 19\d\d\d$"):
        read(b"[" + b"1," * 10_000 + b"x," + b"1," * 10_000 + b"1]", 1000)
    with pytest.raises(InvalidMessage, match=r"^not UTF-8: byte 0xff at 20001$"):
        read(b"[" + b"1," * 10_000 + b"\xff]", 1000)
    with pytest.raises(InvalidMessage, match="byte order mark"):
        read(b"\xef\xbb\xbf[1,2]", 2)


CARRIED = b'{"id":1,"function":"f","args":{"a":[1,[2,{"b":"%b"},3],4],"c":{"d":1,"e":2}},"timeout":5}' % (b"x" * 200)


@pytest.mark.parametrize("window", [1, 5, 30, 100])
def test_arguments_that_are_only_carried_are_checked_and_not_kept(window: int) -> None:
    asked: list[str] = []

    def is_carried(name: str) -> bool:
        asked.append(name)
        return True

    value, _ = read(CARRIED, window, is_carried)
    assert value == {"id": 1, "function": "f", "args": {}, "timeout": 5}
    assert set(asked) == {"f"}
    assert read(CARRIED, window, lambda name: False)[0] == json.loads(CARRIED)
    for broken in (
        CARRIED.replace(b'"d":1', b'"e":1'),
        CARRIED.replace(b"4]", b"4,]"),
        CARRIED.replace(b'"c"', b'"a"'),
        CARRIED.replace(b"3", b"NaN"),
        CARRIED.replace(b"}}", b"}]"),
    ):
        with pytest.raises(InvalidMessage):
            read(broken, window, is_carried)


def test_arguments_before_the_function_are_kept() -> None:
    text = b'{"args":[1,2,[3,4,5]],"function":"f"}'
    assert read(text, 3, lambda name: True)[0] == json.loads(text)


def test_each_step_is_short() -> None:
    value = {"numbers": list(range(100_000)), "text": "x" * 500_000, "records": [{"a": [1, "é"]}] * 30_000}
    text = json.dumps(value, ensure_ascii=False).encode()
    assert loads(text) == value
    read_value, steps = read(text)
    assert read_value == value
    assert steps >= len(text) // WINDOW


def test_taking_apart_lets_go_of_everything_step_by_step() -> None:
    class Leaf:
        pass

    alive = weakref.WeakSet[Leaf]()

    def leaf() -> Leaf:
        made = Leaf()
        alive.add(made)
        return made

    value = {
        "a": [[leaf()] for _ in range(10_000)],
        "b": {str(n): {"c": [leaf()] * 3} for n in range(10_000)},
        "d": leaf(),
    }
    values: list[Any] = [[value]]
    del value
    left = [len(alive)]
    for _ in take_apart(values):
        left.append(len(alive))
    assert not alive
    assert not values
    assert max(before - after for before, after in itertools.pairwise(left)) <= 6_000


def test_taking_apart_leaves_alone_what_others_have() -> None:
    mine = [1, [2, 3]]
    theirs = {"a": list(range(10_000))}
    for _ in take_apart([[mine, theirs, [4]], mine]):
        pass
    assert mine == [1, [2, 3]]
    assert theirs == {"a": list(range(10_000))}
