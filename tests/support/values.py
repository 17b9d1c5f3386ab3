"""What JSON can carry, and how a text of it may be damaged, for Hypothesis."""

from typing import Any

from hypothesis import strategies as st

from greentask.wire.json import dumps

#: Characters that are characters: no lone surrogates.
text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)

finite = st.floats(allow_nan=False, allow_infinity=False)

values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(text, inner, max_size=4),
    max_leaves=12,
)

#: Pieces that matter to a JSON parser, and some that look as if they did.
PIECES = [
    *(bytes([byte]) for byte in b'{}[],:"\\-+.eE019/ \t\n\r\0\x0b\x0c\x1f\x7f'),
    *b"true false null NaN Infinity -Infinity nan inf True None".split(),
    *b"1e5 1E+2 1e400 -1e999 1e-400 2. .5 01 -0 -0.0 0x1 1_0 18446744073709551616".split(),
    *(b"9" * 250, b"9" * 250 + b"e99"),
    *rb"""[[[[ ]]]] ' // /**/ "" "a" \u \u0041 \u00e9 \ud83d \ude00 \uD83D\uDE00 \x \" \\ \/""".split(),
    *(piece.encode() for piece in "\ufeff\xa0\u2028\u0661\uff11\xe9\U0001f600"),
    *b'"id" "function" "args" "result" "error" "index" "more" "stream" "batch"'.split(),
    *(b"\xff", b"\xc0\xaf", b"\xed\xa0\x80"),
]

pieces = st.sampled_from(PIECES)

#: Lines that nobody who knows the protocol has written.
lines = st.lists(pieces, max_size=12).map(b"".join) | st.binary() | values.map(dumps)


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Something whole, a few times cut, doubled, overwritten or added to."""
    data = draw(whole)
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(len(data), start + draw(st.integers(0, 6)))
        put = draw(st.just(b"") | pieces | st.binary(max_size=3) | st.just(data[start:end] * 2))
        data = data[:start] + put + data[end:]
    return data


def alike(one: object, other: object) -> bool:
    """Equal, and of the same types: 1, 1.0 and True are three different values."""
    return repr(one) == repr(other)


def nested(depth: int, inmost: Any = ()) -> Any:
    """A list in a list in a list…"""
    value = list(inmost)
    for _ in range(depth - 1):
        value = [value]
    return value
