"""Lines out of bytes, whatever pieces they arrive in."""

import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.errors import LineTooLong
from greentask.wire.text import DEFAULT_MAX_LINE, LineSplitter

MAX = 6

streams = st.lists(
    st.sampled_from([b"\n", b"\r", b"\r\n", b"a", b"bcd", b"efghij"]) | st.binary(max_size=9), max_size=12
).map(b"".join)


@st.composite
def streams_in_pieces(draw: st.DrawFn) -> list[bytes]:
    data = draw(streams)
    cuts = sorted(draw(st.sets(st.integers(0, len(data)))))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)])]


def feed(splitter: LineSplitter, pieces: list[bytes]) -> tuple[list[bytes], str | None]:
    """All the lines that come out, and what the error says that ends them."""
    lines: list[bytes] = []
    for piece in pieces:
        try:
            lines += splitter.feed(piece)
        except LineTooLong as error:
            return [*lines, *error.lines], str(error)
        finally:
            assert splitter.pending <= splitter.max_line + 1
    return lines, None


def lines_of(data: bytes, max_line: int) -> tuple[list[bytes], bool]:
    """What the protocol says: the lines up to the first that is too long, and whether there is one."""
    *whole, rest = data.split(b"\n")
    lines = []
    for line in whole:
        line = line.removesuffix(b"\r")
        if len(line) > max_line:
            return lines, True
        if line:
            lines.append(line)
    return lines, len(rest) > max_line + 1


# ---- However the bytes are split


@given(streams_in_pieces())
def test_any_split_gives_the_same_lines_and_the_same_error(pieces: list[bytes]) -> None:
    at_once = feed(LineSplitter(MAX), [b"".join(pieces)])
    assert feed(LineSplitter(MAX), pieces) == at_once


@given(streams_in_pieces())
def test_byte_by_byte_gives_the_same(pieces: list[bytes]) -> None:
    data = b"".join(pieces)
    single = [data[i : i + 1] for i in range(len(data))]
    assert feed(LineSplitter(MAX), single) == feed(LineSplitter(MAX), [data])


@given(streams_in_pieces(), st.integers(1, 12))
def test_the_lines_are_what_the_protocol_says(pieces: list[bytes], max_line: int) -> None:
    lines, error = feed(LineSplitter(max_line), pieces)
    assert (lines, error is not None) == lines_of(b"".join(pieces), max_line)


@given(st.lists(st.binary(min_size=1).filter(lambda line: b"\n" not in line and not line.endswith(b"\r"))))
def test_lines_come_back_as_they_were(lines: list[bytes]) -> None:
    splitter = LineSplitter()
    assert splitter.feed(b"".join(line + b"\n" for line in lines)) == lines
    assert splitter.pending == 0


# ---- What a line is


@pytest.mark.parametrize(
    ("data", "lines"),
    [
        (b"", []),
        (b"\n\r\n\n", []),
        (b"a\nb\r\n", [b"a", b"b"]),
        (b"a\r\r\n", [b"a\r"]),
        (b"a\rb\n", [b"a\rb"]),
        (b" \n", [b" "]),
        (b"\0\xff\n", [b"\0\xff"]),
        (b"unfinished", []),
    ],
)
def test_a_line_ends_with_a_newline_and_perhaps_a_return_before_it(data: bytes, lines: list[bytes]) -> None:
    assert LineSplitter().feed(data) == lines


def test_a_return_may_come_apart_from_its_newline() -> None:
    splitter = LineSplitter(4)
    assert splitter.feed(b"abcd\r") == []
    assert splitter.pending == 5
    assert splitter.feed(b"\n") == [b"abcd"]


def test_sixteen_mebibytes_fit_unless_told_otherwise() -> None:
    splitter = LineSplitter()
    assert splitter.max_line == DEFAULT_MAX_LINE == 16 * 1024 * 1024
    line = b"x" * DEFAULT_MAX_LINE
    for start in range(0, len(line), 1 << 16):
        assert splitter.feed(line[start : start + (1 << 16)]) == []
    assert splitter.feed(b"\r\n") == [line]


# ---- What is too long


@pytest.mark.parametrize("data", [b"abcde\n", b"abcde\r\n", b"abcdef", b"abcd\r\r", b"abcd\r\r\n"])
def test_a_longer_line_is_refused_with_the_lines_before_it(data: bytes) -> None:
    splitter = LineSplitter(4)
    with pytest.raises(LineTooLong, match=r"longer than max_line \(4 bytes\)") as caught:
        splitter.feed(b"one\r\n\ntwo\n" + data)
    assert caught.value.lines == (b"one", b"two")
    assert splitter.pending == 0


@pytest.mark.parametrize("data", [b"abcd\n", b"abcd\r\n", b"abcd", b"abcd\r"])
def test_a_line_of_just_that_length_is_not(data: bytes) -> None:
    assert LineSplitter(4).feed(data) == ([b"abcd"] if data.endswith(b"\n") else [])


def test_lines_that_were_given_already_are_not_given_again() -> None:
    splitter = LineSplitter(4)
    assert splitter.feed(b"one\ntw") == [b"one"]
    with pytest.raises(LineTooLong) as caught:
        splitter.feed(b"o\nabcdefgh")
    assert caught.value.lines == (b"two",)


@pytest.mark.parametrize(
    ("data", "begin", "rest"),
    [
        (b"one\nabcde\nlast\nand", b"abcde", b"last\nand"),
        (b"abcde\n", b"abcde", b""),
        (b"abcd\r\r\nabcdef\n", b"abcd\r", b"abcdef\n"),
        (b"one\nabcdef", b"abcdef", None),
        (b"x" * 1000, b"x" * 100, None),
    ],
)
@pytest.mark.parametrize("early", [0, 2])
def test_what_is_around_one_that_is_too_long_is_told(data: bytes, begin: bytes, rest: bytes | None, early: int) -> None:
    splitter = LineSplitter(4)
    cut = early and data.find(begin) + early
    splitter.feed(data[:cut])
    with pytest.raises(LineTooLong) as caught:
        splitter.feed(data[cut:])
    assert (caught.value.begin, caught.value.rest) == (begin, rest)
    assert splitter.feed(b"on\n") == [b"on"]


def test_an_endless_line_is_refused_before_it_is_held() -> None:
    splitter = LineSplitter(100)
    assert splitter.feed(b"x" * 101) == []
    with pytest.raises(LineTooLong) as caught:
        splitter.feed(b"x")
    assert caught.value.lines == ()
    assert splitter.pending == 0


def test_a_line_in_tiny_pieces_takes_no_more_memory_than_its_length() -> None:
    splitter = LineSplitter()
    pieces = [b"%02d" % (number % 100) for number in range(50_000)]
    tracemalloc.start()
    try:
        while pieces:
            splitter.feed(pieces.pop())
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert splitter.pending == 100_000
    assert held < 150_000


@given(streams_in_pieces())
def test_empty_lines_are_kept_where_that_is_asked_for(pieces: list[bytes]) -> None:
    splitter = LineSplitter()
    splitter.keeps_empty = True
    lines, _ = feed(splitter, pieces)
    assert lines == [line.removesuffix(b"\r") for line in b"".join(pieces).split(b"\n")[:-1]]
