"""What goes over the socket between a pool and one of its processes: length-prefixed frames, without I/O.

Both ends are ours and on one machine, so integers are in little-endian order and nothing is negotiated.
"""

from __future__ import annotations

import enum
import math
import struct
from dataclasses import dataclass

__all__ = [
    "HEADER",
    "MOST_ITEMS",
    "CallFrame",
    "Flag",
    "FrameReader",
    "Kind",
    "decode_call",
    "encode_call",
    "frame_header",
]

#: the call's token, the length of the body that follows, kind.
HEADER = struct.Struct("<QQB7x")

# deadline (monotonic seconds, infinite for none), stream window, flags, length of the name that follows.
_CALL = struct.Struct("<dIBxH")
# Of one frame; nobody has as much memory.
_MOST_BYTES = 2**40

#: The largest window, and the most items that one frame grants.
MOST_ITEMS = 2**32 - 1


class Kind(enum.IntEnum):
    """What a frame means."""

    # to the process
    CALL = 1
    MORE = 2  # body: how many more items of the stream, 4 bytes
    INTERRUPT = 3  # body: why, an Interruption
    # from the process
    READY = 16
    RESULT = 17  # body: the result's JSON
    ERROR = 18  # body: the error object's JSON
    PROGRESS = 19
    ITEM = 20


class Flag(enum.IntFlag):
    """What a call's caller wants besides the result."""

    NONE = 0
    PROGRESS = 1


@dataclass(frozen=True, slots=True)
class CallFrame:
    """A call as a process gets it: the task's name and the caller's bytes, untouched."""

    name: str
    payload: bytes
    deadline: float | None
    window: int
    flags: Flag


def frame_header(kind: Kind, token: int, length: int) -> bytes:
    """The header of a frame with a body of ``length`` bytes."""
    return HEADER.pack(token, length, kind)


def encode_call(token: int, call: CallFrame) -> list[bytes]:
    """A call's frame, as pieces to be written together: the payload isn't copied."""
    name = call.name.encode()
    head = _CALL.pack(math.inf if call.deadline is None else call.deadline, call.window, call.flags, len(name))
    length = len(head) + len(name) + len(call.payload)
    return [HEADER.pack(token, length, Kind.CALL) + head + name, call.payload]


def decode_call(body: bytes) -> CallFrame:
    """The call in a CALL frame's body."""
    deadline, window, flags, length = _CALL.unpack_from(body)
    start = _CALL.size + length
    name = body[_CALL.size : start].decode()
    return CallFrame(name, body[start:], None if deadline == math.inf else deadline, window, Flag(flags))


class FrameReader:
    """Cuts a stream of bytes into frames. Only bytes of one unfinished frame are held."""

    __slots__ = ("_begun", "_held", "_pieces", "_wanted")

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._held = 0
        self._wanted = HEADER.size
        self._begun: tuple[Kind, int] | None = None  # of the frame whose header the pieces begin with

    def feed(self, data: bytes) -> list[tuple[Kind, int, bytes]]:
        """Take what arrived; return the frames that it completes, as kind, token and body.

        Raises ``ValueError`` for what can't be a frame: somebody else wrote, and there is no way back into step.
        """
        pieces = self._pieces
        pieces.append(data)
        self._held += len(data)
        if self._held < self._wanted:
            return []
        frames: list[tuple[Kind, int, bytes]] = []
        if self._begun is not None and self._held == self._wanted:
            # How a large frame ends; its body is copied once, and here, for that takes a while.
            pieces[0] = pieces[0][HEADER.size :]
            frames.append((*self._begun, b"".join(pieces)))
            self._begun, self._wanted = None, HEADER.size
            self._keep(b"")
            return frames
        whole = b"".join(pieces) if len(pieces) > 1 else data
        start = 0
        self._begun = None
        while True:
            self._wanted = HEADER.size
            if len(whole) - start < HEADER.size:
                break
            token, length, number = HEADER.unpack_from(whole, start)
            if length > _MOST_BYTES:
                raise ValueError(f"a frame of {length} bytes")
            kind = Kind(number)
            self._wanted = HEADER.size + length
            if len(whole) - start < self._wanted:
                self._begun = kind, token
                break
            frames.append((kind, token, whole[start + HEADER.size : start + self._wanted]))
            start += self._wanted
        self._keep(whole[start:])
        return frames

    def _keep(self, rest: bytes) -> None:
        self._pieces = [rest] if rest else []
        self._held = len(rest)
