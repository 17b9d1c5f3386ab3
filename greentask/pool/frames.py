"""What goes over the socket between a pool and one of its processes: length-prefixed frames, without I/O.

Both ends are ours and on one machine, so integers are in little-endian order and nothing is negotiated.
"""

from __future__ import annotations

import enum
import math
import struct
from collections.abc import Iterable

__all__ = [
    "CHUNK",
    "HEADER",
    "LARGE",
    "MOST_HEAD",
    "MOST_ITEMS",
    "MOST_MICROSECONDS",
    "PROGRESS",
    "Body",
    "CallFrame",
    "FrameReader",
    "Kind",
    "call_head",
    "chunk_for",
    "decode_call",
    "frame_header",
    "pack_tokens",
    "size_of",
    "unpack_tokens",
    "whole",
]

#: A frame's body. A large one is in pieces, as it arrived: to join it would copy it, and hold up whoever does.
Body = bytes | list[bytes]
#: Bytes from which a body is large.
LARGE = 512 * 1024
# Bytes to read at once: into memory that malloc has at hand; of a frame of megabytes into memory that is
# mapped for it, which is slower, but is given back to the system piece by piece (mallopt(3), M_MMAP_THRESHOLD).
CHUNK, _MAPPED, _MAPPED_CHUNK = 64 * 1024, 16 * 1024 * 1024, 1024 * 1024
#: Bytes that a CALL frame's body has before its payload, at most.
MOST_HEAD = 128 * 1024

#: the call's token, the length of the body that follows, kind, how long the call ran (microseconds, of an answer).
HEADER = struct.Struct("<QQBxxxI")
_unpack = HEADER.unpack_from

# deadline (monotonic seconds) and limit (seconds), infinite for none; stream window, flags, length of the name that
# follows.
_CALL = struct.Struct("<ddIBxH")
_CALL_SIZE = _CALL.size
_pack_call = struct.Struct("<QQBxxxIddIBxH").pack
_NEVER = math.inf
# Of one frame; nobody has as much memory.
_MOST_BYTES = 2**40

#: The largest window, and the most items that one frame grants.
MOST_ITEMS = 2**32 - 1
#: The longest time that an answer tells, in microseconds: over an hour is "long".
MOST_MICROSECONDS = 2**32 - 1

_TOKEN = struct.Struct("<Q")


class Kind(enum.IntEnum):
    """What a frame means."""

    # to the process
    CALL = 1
    MORE = 2  # body: how many more items of the stream, 4 bytes
    INTERRUPT = 3  # body: why, OUT_OF_TIME or CANCELLED of `child`
    HAND_BACK = 4  # the calls that it has not started
    LOOK = 5  # say what you are doing
    # from the process
    READY = 16
    RESULT = 17  # body: the result, as the handler encoded it
    ERROR = 18  # body: the error, likewise
    PROGRESS = 19
    ITEM = 20
    HANDED_BACK = 21  # body: the tokens of calls that it has not started, and now never will
    UNFIT = 22  # body: a traceback's text: it can't be made ready
    NOT_STARTED = 23  # body: why the call was ended before it began, likewise
    LOOKED = 24  # body: the stacks of its threads, as text


_KINDS = {kind.value: kind for kind in Kind}
_A_CALL = Kind.CALL

#: Flags of a call: what its caller wants besides the result.
PROGRESS = 1


class CallFrame:
    """A call as a process gets it: the task's name and the caller's bytes, untouched."""

    __slots__ = ("deadline", "flags", "limit", "name", "payload", "window")

    def __init__(
        self,
        name: str,
        payload: Body,
        deadline: float | None,
        limit: float | None,
        window: int,
        flags: int,
    ) -> None:
        self.name = name
        self.payload = payload
        self.deadline = deadline
        self.limit = limit
        self.window = window
        self.flags = flags


def chunk_for(length: int) -> int:
    """How many bytes of a frame of that length should be read at once, at most."""
    return CHUNK if length < _MAPPED else _MAPPED_CHUNK


def whole(body: Body) -> bytes:
    """A body in one piece."""
    return body if isinstance(body, bytes) else b"".join(body)


def size_of(body: Body) -> int:
    """Bytes of a body."""
    return len(body) if isinstance(body, bytes) else sum(map(len, body))


def frame_header(kind: Kind, token: int, length: int, microseconds: int = 0) -> bytes:
    """The header of a frame with a body of ``length`` bytes."""
    return HEADER.pack(token, length, kind, microseconds)


def call_head(
    token: int, name: bytes, size: int, deadline: float | None, limit: float | None, window: int, flags: int
) -> bytes:
    """A call's frame up to its payload of ``size`` bytes, which is written behind it as it is."""
    until, longest = _NEVER if deadline is None else deadline, _NEVER if limit is None else limit
    length = len(name)
    return _pack_call(token, _CALL_SIZE + length + size, _A_CALL, 0, until, longest, window, flags, length) + name


def decode_call(body: Body) -> CallFrame:
    """The call in a CALL frame's body. Of one in pieces, the first has all but the payload."""
    first = body if isinstance(body, bytes) else body[0]
    deadline, limit, window, flags, length = _CALL.unpack_from(first)
    start = _CALL_SIZE + length
    rest = first[start:]
    return CallFrame(
        str(first[_CALL_SIZE:start], "utf-8"),
        rest if isinstance(body, bytes) else [rest, *body[1:]],
        None if deadline == _NEVER else deadline,
        None if limit == _NEVER else limit,
        window,
        flags,
    )


def pack_tokens(tokens: Iterable[int]) -> bytes:
    """The body of a HANDED_BACK frame."""
    return b"".join(map(_TOKEN.pack, tokens))


def unpack_tokens(body: bytes) -> list[int]:
    """The tokens in a HANDED_BACK frame."""
    return [token for (token,) in _TOKEN.iter_unpack(body)]


class FrameReader:
    """Cuts a stream of bytes into frames. Only bytes of one unfinished frame are held.

    The body of one that arrives by and by is in pieces if it is large.
    """

    __slots__ = ("_begun", "_held", "_pieces", "_wanted")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = HEADER.size
        self._begun: tuple[Kind, int, int] | None = None  # of the frame whose header the pieces begin with

    @property
    def chunk(self) -> int:
        """How many bytes should be read next, at most."""
        return chunk_for(self._wanted)

    def feed(self, data: bytes) -> list[tuple[Kind, int, Body, int]]:
        """Take what arrived; return the frames that it completes, as kind, token, body and microseconds.

        Raises ``ValueError`` for what can't be a frame: somebody else wrote, and there is no way back into step.
        """
        pieces = self._pieces
        pieces.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return []
        frames: list[tuple[Kind, int, Body, int]] = []
        if self._begun is not None and self._wanted > LARGE:
            data = self._end_large(self._begun, frames)
        elif len(pieces) > 1:
            data = b"".join(pieces)
        start, size, available = 0, HEADER.size, len(data)
        self._begun = None
        while True:
            self._wanted = size
            body = start + size
            if available < body:
                break
            token, length, number, microseconds = _unpack(data, start)
            if length > _MOST_BYTES or number not in _KINDS:
                raise ValueError(f"a frame of kind {number} with {length} bytes")
            kind = _KINDS[number]
            end = body + length
            if available < end:
                self._wanted = size + length
                self._begun = kind, token, microseconds
                break
            frames.append((kind, token, data[body:end], microseconds))
            start = end
        self._keep(data[start:])
        return frames

    def _end_large(self, begun: tuple[Kind, int, int], frames: list[tuple[Kind, int, Body, int]]) -> bytes:
        """Take the large frame that has arrived whole; what came behind it."""
        pieces, self._pieces = self._pieces, []
        last, missing = pieces[-1], self._wanted - (self._held - len(pieces[-1]))
        pieces[-1], rest = last[:missing], last[missing:]
        pieces[0] = pieces[0][HEADER.size :]
        kind, token, microseconds = begun
        frames.append((kind, token, pieces, microseconds))
        return rest

    def _keep(self, rest: bytes) -> None:
        self._pieces = [rest] if rest else []
        self._held = len(rest)
