"""What goes between a pool and its processes: large bytes are not copied, functions go by their name."""

import os
import pickle
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.pool import packing, pickling
from greentask.pool.frames import whole
from greentask.pool.packing import pack, unpack
from greentask.pool.pickling import dump, load, load_pieces
from support import work

values = st.recursive(
    st.none() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner) | st.tuples(inner, inner),
    max_leaves=20,
)


@given(st.lists(values, max_size=5))
def test_one_after_another_comes_out_as_it_went_in(several: list[Any]) -> None:
    # A pickler is used again, and must not remember: what was pickled before, or that it failed.
    for value in several:
        with pytest.raises((pickle.PicklingError, AttributeError)):
            dump([value, lambda: None])
        assert load(dump([value, value])) == [value, value]


def test_one_within_another_comes_out_too() -> None:
    assert load(load(dump(Nested([1, 2])))) == [1, 2]


class Nested:
    def __init__(self, value: Any) -> None:
        self.value = value

    def __reduce__(self) -> tuple[Callable[[Any], Any], tuple[Any]]:
        return whole, (dump(self.value),)


def test_large_bytes_are_never_copied() -> None:
    large = os.urandom(1_000_000)
    pieces = dump(("a", large, "b"))
    assert isinstance(pieces, list)
    assert any(piece is large for piece in pieces)


def test_what_may_still_change_is_copied() -> None:
    large = bytearray(os.urandom(1_000_000))
    before, body = bytes(large), dump(large)
    large[:] = bytes(1_000_000)
    assert load(body) == before


class Shrinks:
    """Empties a bytearray as it is pickled."""

    def __init__(self, victim: bytearray) -> None:
        self.victim = victim

    def __reduce__(self) -> tuple[Callable[[], int], tuple[()]]:
        self.victim.clear()
        return int, ()


def test_what_changes_while_it_is_pickled_is_as_it_was() -> None:
    victim = bytearray(b"x" * 100_000)
    assert load(dump([victim, Shrinks(victim)])) == [bytearray(b"x" * 100_000), 0]


def test_a_buffer_is_copied_as_it_is() -> None:
    assert load(dump(pickle.PickleBuffer(b"x" * 100_000))) == b"x" * 100_000


def test_a_pickler_that_has_grown_is_not_used_again() -> None:
    dump(0)
    before = len(pickling._spare)
    dump(list(map(str, range(100_000))))
    assert len(pickling._spare) == before - 1


@pytest.mark.parametrize(
    "value",
    [b"x" * 3_000_000, "é" * 1_000_000, [b"x" * 300_000, b"y" * 300_000], bytearray(700_000), list(range(300_000))],
    ids=["bytes", "str", "two", "bytearray", "list"],
)
@pytest.mark.parametrize("size", [1000, 65_537])
def test_pieces_of_any_size_are_unpickled_with_pauses(value: Any, size: int) -> None:
    pickled, pauses = pickle.dumps(value, pickle.HIGHEST_PROTOCOL), list[None]()
    pieces = [pickled[start : start + size] for start in range(0, len(pickled), size)]
    assert load_pieces(pieces, lambda: pauses.append(None)) == value
    assert len(pauses) == len(pickled) // (1024 * 1024)
    assert pieces == []  # whoever holds the list doesn't hold the bytes


@given(values, st.integers(1, 10))
def test_the_smallest_pieces_are_unpickled_too(value: Any, size: int) -> None:
    pickled = pickle.dumps(value, pickle.HIGHEST_PROTOCOL)
    pieces = [pickled[start : start + size] for start in range(0, len(pickled), size)]
    assert load_pieces(pieces, lambda: None) == value


def test_what_is_cut_off_is_an_error() -> None:
    with pytest.raises((EOFError, pickle.UnpicklingError)):
        load_pieces([pickle.dumps(b"x" * 1_000_000, pickle.HIGHEST_PROTOCOL)[:-10]], lambda: None)


@pytest.mark.parametrize(
    "function",
    [work.add, pow, partial(work.add, 1), work.Picky, str.upper, "abc".count],
    ids=["function", "builtin", "partial", "class", "method", "bound method"],
)
def test_any_function_that_can_be_pickled_is_found_again(function: Callable[..., Any]) -> None:
    for _ in range(2):  # the second time it is known
        name, payload = pack(function, (1, 2), {"a": 3})
        found, args, kwargs = unpack(name, payload)
        assert (args, kwargs) == ((1, 2), {"a": 3})
        assert found is function or pickle.dumps(found) == pickle.dumps(function)


def test_a_plain_function_is_known_by_its_name() -> None:
    for _ in range(2):
        assert pack(work.add, (1,), {})[0] == "support.work:add"


class Answers:
    """A callable that answers for any attribute."""

    def __call__(self, value: Any) -> Any:
        return value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name != "__qualname__":
            raise AttributeError(name)
        return ["a", name]


class LongName:
    def __init__(self) -> None:
        self.__qualname__ = "x" * 70_000

    def __call__(self, value: Any) -> Any:
        return value


@pytest.mark.parametrize("function", [Answers(), LongName()], ids=["any attribute", "long name"])
def test_a_callable_may_have_any_name(function: Any) -> None:
    name, payload = pack(function, (1,), {})
    assert isinstance(name, str)
    assert len(name) <= 200
    found, args, _ = unpack(name, payload)
    assert found(*args) == 1


def test_arguments_are_pickled_once() -> None:
    def new() -> None: ...

    new.__module__, new.__qualname__ = __name__, "new"
    globals()["new"] = new
    counted = Counted()
    pack(new, (counted,), {})
    assert counted.number == 1


class Counted:
    number = 0

    def __reduce__(self) -> tuple[Callable[[], int], tuple[()]]:
        self.number += 1
        return int, ()


def test_a_function_that_cannot_be_imported_is_refused_each_time() -> None:
    def inner() -> None: ...

    for function in (inner, lambda: None):
        for _ in range(2):
            with pytest.raises((pickle.PicklingError, AttributeError)):
                pack(function, (), {})


def test_functions_without_number_are_not_all_remembered() -> None:
    for number in range(packing.MOST_FUNCTIONS + 10):
        exec(f"def numbered_{number}(): pass", globals())
        pack(globals()[f"numbered_{number}"], (), {})
    assert len(packing._names) <= packing.MOST_FUNCTIONS
