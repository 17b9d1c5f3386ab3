"""Arguments from the wire, bound to parameters before the function runs."""

import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.errors import InvalidArguments
from greentask.tasks.binding import Binder


def plain(a: Any, b: Any = 2) -> Any:
    return [a, b]


def mail(from_: Any, to: Any = None, class_: Any = None) -> Any:
    return [from_, to, class_]


def options(a: Any = 1, **kwargs: Any) -> Any:
    return [a, kwargs]


def mail_options(from_: Any, **kwargs: Any) -> Any:
    return [from_, kwargs]


def positional_only(a: Any, b: Any = 2, /) -> Any:
    return [a, b]


def positional_and_options(a: Any, /, **kwargs: Any) -> Any:
    return [a, kwargs]


def keyword_only(a: Any, *, b: Any, c: Any = 3) -> Any:
    return [a, b, c]


def many(*args: Any) -> Any:
    return list(args)


def all_kinds(a: Any, /, b: Any, *args: Any, c: Any, d: Any = 4, **kwargs: Any) -> Any:
    return [a, b, args, c, d, kwargs]


def nothing() -> Any:
    return []


FUNCTIONS = [
    *(plain, mail, options, mail_options, positional_only, positional_and_options),
    *(keyword_only, many, all_kinds, nothing),
]


def call(function: Callable[..., Any], args: Any) -> Any:
    """What the function returns, called with what is bound."""
    positional, named = Binder(function, function.__name__).bind(args)
    return function(*positional, **named)


@pytest.mark.parametrize(
    ("function", "args", "result"),
    [
        (plain, {"a": 1}, [1, 2]),
        (plain, {"b": 5, "a": 1}, [1, 5]),
        (plain, [1], [1, 2]),
        (plain, [1, None], [1, None]),
        (plain, {"a": {"b": 1}}, [{"b": 1}, 2]),
        (nothing, None, []),
        (nothing, {}, []),
        (nothing, [], []),
        (mail, {"from": "me"}, ["me", None, None]),
        (mail, {"from_": "me"}, ["me", None, None]),
        (mail, {"class": "c", "to": "you", "from": "me"}, ["me", "you", "c"]),
        (mail, ["me", "you"], ["me", "you", None]),
        (options, {"from": 1, "class": 2, "import": 3}, [1, {"from": 1, "class": 2, "import": 3}]),
        (options, {"from": 1, "from_": 2}, [1, {"from": 1, "from_": 2}]),
        (options, {"a": 5, "\xe9 b": 1, "": 2}, [5, {"\xe9 b": 1, "": 2}]),
        (mail_options, {"from": "me", "class": 1, "x": 2}, ["me", {"class": 1, "x": 2}]),
        (positional_only, [1], [1, 2]),
        (positional_only, [1, 5], [1, 5]),
        (positional_and_options, [1], [1, {}]),
        (keyword_only, {"a": 1, "b": 2}, [1, 2, 3]),
        (keyword_only, {"a": 1, "b": 2, "c": 4}, [1, 2, 4]),
        (many, [1, 2, 3], [1, 2, 3]),
        (many, {}, []),
        (many, None, []),
    ],
)
def test_arguments_find_their_parameters(function: Callable[..., Any], args: Any, result: Any) -> None:
    assert call(function, args) == result


@pytest.mark.parametrize(
    ("function", "args", "says"),
    [
        (plain, {}, "missing a required .*'a'"),
        (plain, None, "missing a required .*'a'"),
        (plain, {"a": 1, "c": 1}, "unexpected keyword argument 'c'"),
        (plain, {"a": 1, "from": 1}, "unexpected keyword argument 'from_'"),
        (plain, [1, 2, 3], "too many positional arguments"),
        (nothing, [1], "too many positional arguments"),
        (nothing, {"a": 1}, "unexpected keyword argument 'a'"),
        (mail, {"from": 1, "from_": 2}, "'from' and 'from_' are the same parameter"),
        (mail_options, {"from": 1, "from_": 2}, "'from' and 'from_' are the same parameter"),
        (mail_options, {"class": 1}, "missing a required .*'from_'"),
        (positional_only, {"a": 1}, "'a' is passed by position only: pass the arguments as an array"),
        (positional_only, {}, "'a' is passed by position only"),
        (positional_only, [], "missing a required .*'a'"),
        (positional_and_options, {"a": 1}, "'a' is passed by position only"),
        (all_kinds, {"a": 1, "b": 2, "c": 3}, "'a' is passed by position only"),
        (keyword_only, {"a": 1}, "missing a required .*'b'"),
        (keyword_only, [1], "missing a required .*'b'"),
        (keyword_only, [1, 2], "too many positional arguments"),
        (many, {"args": [1]}, "unexpected keyword argument 'args'"),
        (all_kinds, [1, 2, 3], "missing a required .*'c'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_with_the_signature(
    function: Callable[..., Any], args: Any, says: str
) -> None:
    binder = Binder(function, "the.name")
    with pytest.raises(InvalidArguments, match=says) as caught:
        binder.bind(args)
    assert str(caught.value).startswith(f"{binder.text}: ")
    assert binder.text.startswith("the.name(")


NAMES = ["a", "b", "c", "d", "args", "kwargs", "from", "from_", "class", "to", "x"]


@given(
    st.sampled_from(FUNCTIONS),
    st.none() | st.lists(st.integers(), max_size=4) | st.dictionaries(st.sampled_from(NAMES), st.integers()),
)
def test_what_is_bound_can_be_called_and_what_is_refused_could_not(function: Callable[..., Any], args: Any) -> None:
    if isinstance(args, dict) and "from_" in args:
        args.pop("from", None)  # these two are refused, though Python could tell them apart
    try:
        positional, named = Binder(function, "f").bind(args)
    except InvalidArguments:
        positional, named = (list(args), {}) if isinstance(args, list) else ([], dict(args or {}))
        with pytest.raises(TypeError):
            function(*positional, **named)
    else:
        function(*positional, **named)


def test_a_builtin_without_a_signature_takes_whatever_comes() -> None:
    binder = Binder(min, "min")
    assert binder.text == "min(…)"
    assert binder.bind([1, 2]) == ([1, 2], {})
    assert binder.bind({"default": 1}) == ([], {"default": 1})
    assert binder.bind(None) == ([], {})
    assert binder.name_positionals((1,)) is None


def test_a_builtin_with_a_signature_is_checked() -> None:
    binder = Binder(zlib.crc32, "crc32")
    assert binder.bind([b"x"]) == ([b"x"], {})
    with pytest.raises(InvalidArguments, match=r"^crc32\(data, value=0, /\): "):
        binder.bind([])


def test_the_callers_arguments_stay_as_they_were() -> None:
    named = {"from": 1}
    assert Binder(mail, "mail").bind(named) == ([], {"from_": 1})
    assert named == {"from": 1}
    listed = [1]
    positional, _ = Binder(plain, "plain").bind(listed)
    assert positional == listed
    assert positional is not listed


def test_the_text_shows_the_signature() -> None:
    def report(year: int, *, full: bool = False) -> str:
        return ""

    assert Binder(report, "yearly").text in (
        "yearly(year: int, *, full: bool = False) -> str",
        "yearly(year: 'int', *, full: 'bool' = False) -> 'str'",
    )


# ---- Positional arguments by name


@pytest.mark.parametrize(
    ("function", "args", "named"),
    [
        (plain, (), {}),
        (plain, (1,), {"a": 1}),
        (plain, (1, 2), {"a": 1, "b": 2}),
        (plain, (1, 2, 3), None),
        (mail, ("me",), {"from_": "me"}),
        (positional_only, (1,), None),
        (keyword_only, (1,), {"a": 1}),
        (keyword_only, (1, 2), None),
        (many, (1,), None),
        (all_kinds, (1, 2), None),
        (nothing, (1,), None),
    ],
)
def test_positional_arguments_get_their_names_where_they_have_one(
    function: Callable[..., Any], args: tuple[Any, ...], named: dict[str, Any] | None
) -> None:
    assert Binder(function, "f").name_positionals(args) == named
