"""Frames between a pool and a process: whatever the cuts between reads, what was put in comes out."""

import os
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.pool.frames import (
    HEADER,
    LARGE,
    MOST_ITEMS,
    MOST_MICROSECONDS,
    PROGRESS,
    FrameReader,
    Kind,
    call_head,
    decode_call,
    frame_header,
    pack_tokens,
    unpack_tokens,
    whole,
)

Frame = tuple[Kind, int, bytes, int]

tokens = st.integers(0, 2**64 - 1)
frames = st.tuples(st.sampled_from(Kind), tokens, st.binary(max_size=100), st.integers(0, MOST_MICROSECONDS))
calls = st.tuples(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=50),  # name
    st.binary(max_size=200),  # payload
    st.none() | st.floats(0, 1e12),  # deadline
    st.none() | st.floats(0, 1e12),  # limit
    st.integers(0, MOST_ITEMS),  # window
    st.sampled_from([0, PROGRESS]),
)


def encode(frame: Frame) -> bytes:
    kind, token, body, microseconds = frame
    return frame_header(kind, token, len(body), microseconds) + body


@given(st.lists(frames, max_size=10), st.lists(st.integers(0, 1000), max_size=20))
def test_frames_survive_any_cuts(frames: list[Frame], cuts: list[int]) -> None:
    stream = b"".join(map(encode, frames))
    edges = [0, *sorted(cut for cut in cuts if cut < len(stream)), len(stream)]
    reader = FrameReader()
    read = [frame for start, end in pairwise(edges) for frame in reader.feed(stream[start:end])]
    assert read == frames


@given(st.lists(frames, min_size=1, max_size=5))
def test_frames_survive_bytes_that_come_one_by_one(frames: list[Frame]) -> None:
    reader = FrameReader()
    read = []
    for frame in frames:
        *most, last = encode(frame)
        for byte in most:
            assert reader.feed(bytes([byte])) == []  # not before it is whole
        read += reader.feed(bytes([last]))
    assert read == frames


@given(tokens, calls)
def test_a_call_comes_out_as_it_went_in(
    token: int, call: tuple[str, bytes, float | None, float | None, int, int]
) -> None:
    name, payload, *rest = call
    [(kind, about, body, _)] = FrameReader().feed(call_head(token, name.encode(), len(payload), *rest) + payload)
    assert (kind, about) == (Kind.CALL, token)
    assert isinstance(body, bytes)
    decoded = decode_call(body)
    assert (decoded.name, decoded.payload) == (name, payload)
    assert [decoded.deadline, decoded.limit, decoded.window, decoded.flags] == rest


def test_the_payload_of_a_call_in_pieces_stays_in_them() -> None:
    head, pieces = call_head(1, b"t", 3000, None, None, 0, 0)[HEADER.size :], [b"a" * 1000, b"b" * 1000]
    payload = decode_call([head + b"x" * 1000, *pieces]).payload
    assert whole(payload) == b"x" * 1000 + b"a" * 1000 + b"b" * 1000
    assert payload[1] is pieces[0]


@pytest.mark.parametrize("size", [LARGE, LARGE + 1, 3 * LARGE])
@pytest.mark.parametrize("chunk", [1000, 4096, 200_000, LARGE])
def test_a_large_body_stays_in_pieces_and_what_comes_behind_it_is_found(size: int, chunk: int) -> None:
    frames = [(Kind.ITEM, 1, b"a", 0), (Kind.RESULT, 2, os.urandom(size), 7), (Kind.READY, 3, b"", 0)]
    stream, reader, read = b"".join(map(encode, frames)), FrameReader(), []
    for start in range(0, len(stream), chunk):
        read += reader.feed(stream[start : start + chunk])
    assert [(kind, token, whole(body), microseconds) for kind, token, body, microseconds in read] == frames
    assert isinstance(read[1][2], list) or size + HEADER.size <= LARGE or chunk > size


@given(st.lists(tokens, max_size=50))
def test_tokens_come_out_as_they_went_in(tokens: list[int]) -> None:
    assert unpack_tokens(pack_tokens(tokens)) == tokens


@pytest.mark.parametrize(
    "header", [HEADER.pack(1, 10, 99, 0), HEADER.pack(1, 2**63, Kind.RESULT, 0), b"\xff" * HEADER.size]
)
def test_what_cannot_be_a_frame_is_refused_before_it_is_whole(header: bytes) -> None:
    with pytest.raises(ValueError):
        FrameReader().feed(header)
