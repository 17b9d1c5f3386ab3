"""Text framing: lines of bytes ended by a newline, whatever pieces they arrive in.

A ``\\r`` before the newline is dropped. An empty line is ignored, unless it is asked for.
"""

from __future__ import annotations

import re

from ..errors import LineTooLong

__all__ = ["DEFAULT_MAX_LINE", "LineSplitter", "is_http"]

_RETURN = ord(b"\r")
DEFAULT_MAX_LINE = 16 * 1024 * 1024
_BEGIN = 100  # bytes of a line that is too long, by which it is known


_METHOD = re.compile(rb"[A-Z]{1,20} ")
_VERSION = re.compile(rb" HTTP/[0-9.]{1,5}$")


def is_http(line: bytes) -> bool:
    """Whether it is the first line of an HTTP request, however long.

    >>> is_http(b"POST /tasks HTTP/1.1"), is_http(b'{"function": "f"}')
    (True, False)
    """
    return _METHOD.match(line[:24]) is not None and _VERSION.search(line[-12:]) is not None


class LineSplitter:
    """Cuts a stream of bytes into lines; holds at most ``max_line`` bytes of an unfinished one.

    With ``keeps_empty`` set, empty lines are lines as well.

    >>> splitter = LineSplitter()
    >>> splitter.feed(b'{"a":1}\\r\\n{"b"'), splitter.feed(b":2}\\n")
    ([b'{"a":1}'], [b'{"b":2}'])
    """

    __slots__ = ("_held", "keeps_empty", "max_line")

    def __init__(self, max_line: int = DEFAULT_MAX_LINE) -> None:
        self.max_line = max_line
        self.keeps_empty = False
        self._held = bytearray()  # one, for a list of pieces would cost many times their size when they are small

    @property
    def pending(self) -> int:
        """How many bytes of an unfinished line are held."""
        return len(self._held)

    def feed(self, data: bytes) -> list[bytes]:
        """Take what arrived; return the lines that it completes.

        Raises ``LineTooLong`` when a line exceeds ``max_line``, which holds what came before and behind it. Who goes on
        has to leave out the rest of it.
        """
        if 1 < data.find(b"\n") + 1 == len(data) <= self.max_line and not self._held and data[-2] != _RETURN:
            return [data[:-1]]  # as where one is waited for at a time
        end = data.rfind(b"\n")
        if end < 0:
            self._hold(data, [])
            return []
        held = bool(self._held)
        if held:
            first = data.index(b"\n")
            self._held += data[:first]
            whole = [bytes(self._held)]  # copied once, for it may be large
            self._held = bytearray()
            if first < end:
                whole += data[first + 1 : end].split(b"\n")
        else:
            whole = data[:end].split(b"\n")
        if not (held or self.keeps_empty) and len(data) <= self.max_line and b"\r" not in data and b"" not in whole:
            if end + 1 < len(data):
                self._held += data[end + 1 :]
            return whole  # as they mostly are
        lines: list[bytes] = []
        for line in whole:
            if line.endswith(b"\r"):
                line = line[:-1]
            if len(line) > self.max_line:
                raise self._too_long(lines, line, self._behind_too_long([*whole, data[end + 1 :]]))
            if line or self.keeps_empty:
                lines.append(line)
        self._hold(data[end + 1 :], lines)
        return lines

    def _hold(self, rest: bytes, lines: list[bytes]) -> None:
        # One more byte than max_line may be a "\r" whose newline hasn't arrived.
        if len(self._held) + len(rest) > self.max_line + 1:
            held, self._held = self._held, bytearray()
            raise self._too_long(lines, bytes(held[:_BEGIN]) + rest[:_BEGIN], None)
        self._held += rest

    def _behind_too_long(self, lines: list[bytes]) -> bytes:
        too_long = next(number for number, line in enumerate(lines) if len(line.removesuffix(b"\r")) > self.max_line)
        return b"\n".join(lines[too_long + 1 :])

    def _too_long(self, lines: list[bytes], line: bytes, rest: bytes | None) -> LineTooLong:
        error = LineTooLong(
            f"a line is longer than max_line ({self.max_line} bytes): send less at once, or raise max_line"
        )
        error.lines, error.begin, error.rest = tuple(lines), line[:_BEGIN], rest
        return error
