"""Reads an SQLite log (``-wal``): which pages it has that are newer than the file's, of transactions that are whole."""

from __future__ import annotations

import os
import struct

__all__ = ["FRAME_HEADER", "HEADER", "newest_pages"]

#: Bytes of the log's header, and of that of each page in it.
HEADER, FRAME_HEADER = 32, 24
_LITTLE, _BIG = 0x377F0682, 0x377F0683


def newest_pages(path: str, page_size: int) -> tuple[int | None, dict[int, int]]:
    """The open log, and of each page in it where its newest version is; None and nothing where there is no good one."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None, {}
    pages: dict[int, int] = {}
    head = os.pread(fd, HEADER, 0)
    if len(head) == HEADER:
        magic, _, size, _ = struct.unpack(">4I", head[:16])
        order = {_LITTLE: "<", _BIG: ">"}.get(magic)
        if order is not None and size == page_size and _sum(head[:24], order, 0, 0) == struct.unpack(">2I", head[24:]):
            pages = _scan(fd, page_size, order, head)
    return fd, pages


def _scan(fd: int, page_size: int, order: str, head: bytes) -> dict[int, int]:
    pages: dict[int, int] = {}
    open_pages: dict[int, int] = {}  # of a transaction whose end has not been seen
    sums = struct.unpack(">2I", head[24:])
    at = HEADER
    while True:
        frame = os.pread(fd, FRAME_HEADER + page_size, at)
        if len(frame) < FRAME_HEADER + page_size or frame[8:16] != head[16:24]:  # the salts, which each new log changes
            return pages
        sums = _sum(frame[:8], order, *sums)
        sums = _sum(frame[FRAME_HEADER:], order, *sums)
        if sums != struct.unpack(">2I", frame[16:24]):
            return pages
        number, ends = struct.unpack(">2I", frame[:8])
        open_pages[number] = at + FRAME_HEADER
        if ends:
            pages |= open_pages
            open_pages = {}
        at += FRAME_HEADER + page_size


def _sum(data: bytes, order: str, first: int, second: int) -> tuple[int, int]:
    words = iter(struct.unpack(f"{order}{len(data) // 4}I", data))
    for even, odd in zip(words, words):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
