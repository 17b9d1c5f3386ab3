"""Frames between a pool and a process: whatever the cuts between reads, what was put in comes out."""

import math
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from greentask.pool.frames import (
    HEADER,
    MOST_ITEMS,
    CallFrame,
    Flag,
    FrameReader,
    Kind,
    decode_call,
    encode_call,
    frame_header,
)

Frame = tuple[Kind, int, bytes]

tokens = st.integers(0, 2**64 - 1)
frames = st.tuples(st.sampled_from(Kind), tokens, st.binary(max_size=100))
calls = st.builds(
    CallFrame,
    name=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=50),
    payload=st.binary(max_size=200),
    deadline=st.none() | st.floats(0, 1e12),
    window=st.integers(0, MOST_ITEMS),
    flags=st.sampled_from([Flag.NONE, Flag.PROGRESS]),
)


def encode(frame: Frame) -> bytes:
    kind, token, body = frame
    return frame_header(kind, token, len(body)) + body


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
def test_a_call_comes_out_as_it_went_in(token: int, call: CallFrame) -> None:
    [(kind, about, body)] = FrameReader().feed(b"".join(encode_call(token, call)))
    assert (kind, about) == (Kind.CALL, token)
    assert decode_call(body) == call


def test_the_payload_of_a_call_is_not_copied() -> None:
    payload = b"x" * 1000
    pieces = encode_call(1, CallFrame("t", payload, None, 0, Flag.NONE))
    assert pieces[-1] is payload


def test_no_deadline_and_a_far_one_are_told_apart() -> None:
    for deadline in (None, 0.0, 1e300):
        call = CallFrame("t", b"", deadline, 0, Flag.NONE)
        assert decode_call(b"".join(encode_call(1, call))[HEADER.size :]).deadline == deadline
    assert math.isfinite(1e300)


@pytest.mark.parametrize("header", [HEADER.pack(1, 10, 99), HEADER.pack(1, 2**63, Kind.RESULT), b"\xff" * HEADER.size])
def test_what_cannot_be_a_frame_is_refused_before_it_is_whole(header: bytes) -> None:
    with pytest.raises(ValueError):
        FrameReader().feed(header)
