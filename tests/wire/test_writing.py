"""Writing a large value step by step comes to what writing it in one go does."""

import json
import math
import re
from collections import OrderedDict
from collections.abc import Callable, Generator
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from greentask.errors import InvalidResult
from greentask.wire.json import DEEPEST, dumps
from greentask.wire.steps import LARGE
from greentask.wire.writing import STEP, dumps_in_steps, is_large
from support.values import values

pytestmark = pytest.mark.once


def write(value: Any, large: int = LARGE, **options: Any) -> tuple[bytes, int]:
    """Its JSON, and in how many steps it was written."""
    return finish(dumps_in_steps(value, large=large, **options))


def finish(steps: Generator[None, None, list[bytes]]) -> tuple[bytes, int]:
    count = 0
    while True:
        try:
            next(steps)
        except StopIteration as end:
            return b"".join(end.value), count
        count += 1


class Rows(list[Any]):
    """Only the encoder knows what is in such a one."""


@given(values, st.integers(1, 64))
@example(("a tuple", (1, (2.5, None))), 3)
@example(OrderedDict(b=[1] * 50, a=Rows([2] * 50)), 5)
@example({1: "one", 2.5: [], None: "a" * 100}, 5)
@example({"a" * 50: 1, "b": "b" * 50}, 5)
@example({}, 1)
def test_it_comes_to_the_same(value: Any, large: int) -> None:
    assert outcome(lambda: write(value, large)[0]) == outcome(lambda: dumps(value))


def outcome(write: Callable[[], bytes]) -> bytes | str:
    try:
        return write()
    except InvalidResult as error:
        return str(error)


def nested(depth: int) -> Any:
    value: Any = "x" * 100
    for _ in range(depth):
        value = [1, value]
    return value


contains_itself: list[Any] = [1] * 100
contains_itself.append(contains_itself)


@pytest.mark.parametrize(
    "value",
    [
        [*range(100), math.nan],
        [*range(100), object()],
        {"rows": [{"name": "x" * 100, "at": [{1, 2}]}]},
        ["x" * 100 + "\ud800"],
        {"\ud800" * 100: 1},
        {**{str(number): number for number in range(100)}, 7: "seven"},
        [10**5000, "x" * 100],
        nested(21),
        [1, [2, nested(20)]],
        contains_itself,
    ],
    ids=["nan", "object", "deep within", "surrogate", "key", "keys that are one", "digits", "depth", "inner", "itself"],
)
def test_what_cannot_be_written_is_told_as_ever(value: Any) -> None:
    with pytest.raises(InvalidResult) as expected:
        dumps(value, 20)
    with pytest.raises(InvalidResult) as raised:
        write(value, 10, max_depth=20)
    assert str(raised.value) == str(expected.value)


@pytest.mark.parametrize("depth", [19, 20])
def test_as_deep_as_may_be(depth: int) -> None:
    assert write(nested(depth), 10, max_depth=20)[0] == dumps(nested(depth), 20)


@pytest.mark.parametrize(
    "value",
    [
        "é" * 500_000,
        list(range(100_000)),
        {f"key {number}": number for number in range(30_000)},
        [{"id": number, "tags": ["a", "b"]} for number in range(15_000)],
        {"a": {"b": [["x" * 1000] * 2000]}},
    ],
    ids=["string", "numbers", "object", "rows", "within"],
)
def test_no_step_is_large(value: Any) -> None:
    expected = dumps(value)
    assert is_large(value)
    written, steps = write(value, STEP)
    assert written == expected
    assert steps >= len(expected) / (5 * LARGE)


def test_each_look_at_a_value_in_itself_is_a_step() -> None:
    circle: list[Any] = []
    circle.append(circle)
    taken: list[None] = []
    with pytest.raises(InvalidResult, match=re.escape("result[0] contains itself")):
        taken.extend(dumps_in_steps(circle))
    assert len(taken) >= DEEPEST - 1


@pytest.mark.parametrize("value", [None, 1, "x" * 1000, {"a": ["b"] * 100}, [[]] * 1000, {1: 2}, Rows(), {}])
def test_what_is_small_is_written_in_one_go(value: Any) -> None:
    assert not is_large(value)
    assert write(value) == (dumps(value), 0)


@pytest.mark.parametrize("value", [Rows(range(100_000)), {"é": Rows(["x" * 100_000])}])
def test_what_only_the_encoder_knows_is_not_seen_to_be_large(value: Any) -> None:
    assert not is_large(value)
    assert write(value)[0] == dumps(value)


def test_what_is_changed_meanwhile_is_written_as_it_was_or_is() -> None:
    table = {str(number): [number] for number in range(100_000)}
    steps = dumps_in_steps(table)
    next(steps)
    table.clear()
    assert finish(steps)[0].startswith(b'{"0":[0],"1":[1],')


@pytest.mark.parametrize("change", [lambda rows: rows.extend(rows[:20_000]), lambda rows: rows.clear()])
def test_what_grows_or_shrinks_meanwhile_comes_to_an_end(change: Callable[[list[str]], object]) -> None:
    rows = [str(number) for number in range(20_000)]
    steps = dumps_in_steps(rows)
    for _ in range(1_000):
        try:
            next(steps)
        except StopIteration as end:
            written = json.loads(b"".join(end.value))
            break
        change(rows)
    else:
        pytest.fail("it does not end")
    assert written == [str(number) for number in range(len(written))]
    assert 0 < len(written) <= 20_000
