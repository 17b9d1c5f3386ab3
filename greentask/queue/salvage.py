"""Reads the rows of a damaged SQLite file from its pages, as far as they are whole.

SQLite itself gives up at the first page that isn't; here it is left out. The format is that of
https://www.sqlite.org/fileformat2.html: each table is a tree of pages, whose leaves have the rows. What a tree reaches
is read first. Where a page was lost that leads to others, those that nothing leads to any more are read as well.

What has been deleted is not read: free pages are known, and a page says where its rows are.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Any, NamedTuple

from ..errors import ConfigurationError
from .schema import is_copy
from .walfile import newest_pages

__all__ = ["Row", "Salvage"]

_HEADER = b"SQLite format 3\x00"
_INDEX_INNER, _TABLE_INNER, _INDEX_LEAF, _TABLE_LEAF = 2, 5, 10, 13
_INTEGERS = {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 8}  # serial type -> bytes


class Row(NamedTuple):
    """``table``: its name, or None where nothing led to it; ``rowid``: None in a table without them."""

    table: str | None
    rowid: int | None
    values: tuple[Any, ...]


class _Bad(Exception):
    """A page, or a part of it, that can't be."""


class Salvage:
    """The rows of the file at ``path``, and of the ``log`` beside it.

    ``lost``: how often it was not known where a page led to, or whether it did. Where which pages are free is not
    certain either, only then pages are read to which nothing led.
    """

    def __init__(self, path: str, *, log: bool = True) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        head = os.pread(self._fd, 100, 0)
        size = int.from_bytes(head[16:18], "big") if head.startswith(_HEADER) else 0
        size = 65536 if size == 1 else size
        if size < 512 or size & (size - 1):
            size = 4096  # it was ours, and so it is that
        self._page_size = size
        self._log, self._log_pages = (None, {}) if is_copy(head) or not log else newest_pages(path + "-wal", size)
        self._usable = size - (head[20] if len(head) > 20 and head[20] <= size - 480 else 0)
        self._pages = max([os.fstat(self._fd).st_size // size, *self._log_pages])
        self._seen = bytearray(self._pages + 1)
        self._damaged: set[int] = set()
        self.lost = 0
        first = self._page(1) if self._pages else b""
        self.version = int.from_bytes(first[60:64], "big")
        self.owner = int.from_bytes(first[68:72], "big")
        self.is_whole_head = first.startswith(_HEADER)

    @property
    def damaged(self) -> int:
        """How many pages could not be read, or not all of them."""
        return len(self._damaged)

    def close(self) -> None:
        """Close the file."""
        os.close(self._fd)
        if self._log is not None:
            os.close(self._log)

    def rows(self) -> Iterator[Row]:
        """All of them; what a table's tree leads to comes first."""
        roots: dict[str, int] = {}
        for row in self._tree(None, 1):
            if len(row.values) >= 4 and row.values[0] == "table" and isinstance(row.values[3], int):
                roots[str(row.values[1])] = row.values[3]
        if not roots or self._damaged:  # then there are tables whose trees are not known
            self.lost += 1
        for table, root in roots.items():
            yield from self._tree(table, root)
        # In a whole file there is nothing left but what is free.
        if self._mark_free() or self.lost:
            for number in range(2, self._pages + 1):
                if not self._seen[number]:
                    yield from self._orphan(number)

    # ---- Trees

    def _tree(self, table: str | None, root: int) -> Iterator[Row]:
        waiting = [(root, 1)]
        while waiting:
            number, leader = waiting.pop()
            if not 0 < number <= self._pages or self._seen[number]:
                self._damaged.add(leader)
                self.lost += 1
                continue
            self._seen[number] = 1
            page = self._page(number)
            kind = page[100 if number == 1 else 0]
            if kind not in (_INDEX_INNER, _TABLE_INNER, _INDEX_LEAF, _TABLE_LEAF):
                self._damaged.add(number)
                self.lost += 1
                continue
            if kind in (_INDEX_INNER, _TABLE_INNER):
                start = 100 if number == 1 else 0
                waiting.append((int.from_bytes(page[start + 8 : start + 12], "big"), number))
            for row, child in self._cells(table, number, page, kind):
                if child is not None:
                    waiting.append((child, number))
                if row is not None:
                    yield row

    def _orphan(self, number: int) -> Iterator[Row]:
        page = self._page(number)
        if page[0] in (_TABLE_LEAF, _INDEX_LEAF):
            for row, _ in self._cells(None, number, page, page[0]):
                if row is not None:
                    yield row
            self._damaged.discard(number)  # it may be no such page at all

    def _cells(self, table: str | None, number: int, page: bytes, kind: int) -> Iterator[tuple[Row | None, int | None]]:
        """The row, and the page that is led to, of each cell of a page that can be."""
        start = 100 if number == 1 else 0
        count = int.from_bytes(page[start + 3 : start + 5], "big")
        pointers = start + (12 if kind in (_INDEX_INNER, _TABLE_INNER) else 8)
        is_damaged = pointers + 2 * count > self._usable
        for offset in range(pointers, min(pointers + 2 * count, self._usable - 1), 2):
            try:
                yield self._cell(table, number, page, int.from_bytes(page[offset : offset + 2], "big"), kind)
            except (_Bad, IndexError, struct.error, UnicodeDecodeError):
                is_damaged = True
        if is_damaged:
            self._damaged.add(number)
            self.lost += kind in (_INDEX_INNER, _TABLE_INNER)

    def _cell(self, table: str | None, number: int, page: bytes, at: int, kind: int) -> tuple[Row | None, int | None]:
        if not 8 <= at < self._usable:
            raise _Bad
        child = None
        if kind in (_INDEX_INNER, _TABLE_INNER):
            child, at = int.from_bytes(page[at : at + 4], "big"), at + 4
            if kind == _TABLE_INNER:
                return None, child
        size, at = _varint(page, at)
        rowid = None
        if kind == _TABLE_LEAF:
            rowid, at = _varint(page, at)
        try:
            values = _record(self._payload(page, at, size, kind))
        except (_Bad, IndexError, struct.error, UnicodeDecodeError):
            if child is None:
                raise
            self._damaged.add(number)
            return None, child
        return Row(table, rowid, values), child

    def _payload(self, page: bytes, at: int, size: int, kind: int) -> bytes:
        usable = self._usable
        if not 0 < size <= self._pages * self._page_size:
            raise _Bad
        most = usable - 35 if kind == _TABLE_LEAF else (usable - 12) * 64 // 255 - 23
        if size <= most:
            if at + size > usable:
                raise _Bad
            return page[at : at + size]
        least = (usable - 12) * 32 // 255 - 23
        local = least + (size - least) % (usable - 4)
        local = local if local <= most else least
        if at + local + 4 > usable:
            raise _Bad
        parts, left = [page[at : at + local]], size - local
        following = int.from_bytes(page[at + local : at + local + 4], "big")
        chain = []
        while left > 0:
            if not 1 < following <= self._pages or self._seen[following]:
                raise _Bad
            chain.append(following)
            more = self._page(following)
            parts.append(more[4 : 4 + min(left, usable - 4)])
            left -= len(parts[-1])
            following = int.from_bytes(more[:4], "big")
            if len(chain) > size // (usable - 4) + 1:
                raise _Bad
        for number in chain:
            self._seen[number] = 1
        return b"".join(parts)

    # ---- Pages

    def _page(self, number: int) -> bytes:
        """A page, as the log has it or else the file; with zeros where there is too little."""
        if number in self._log_pages and self._log is not None:
            page = os.pread(self._log, self._page_size, self._log_pages[number])
        else:
            page = os.pread(self._fd, self._page_size, (number - 1) * self._page_size)
        return page.ljust(self._page_size, b"\0")

    def _mark_free(self) -> bool:
        """What is on free pages has been deleted. Whether all of these are known."""
        trunk = int.from_bytes(self._page(1)[32:36], "big") if self.is_whole_head else 0
        left = int.from_bytes(self._page(1)[36:40], "big")
        while 1 < trunk <= self._pages and not self._seen[trunk]:
            self._seen[trunk] = 1
            left -= 1
            page = self._page(trunk)
            count = min(int.from_bytes(page[4:8], "big"), self._usable // 4 - 2)
            for leaf in struct.unpack(f">{count}I", page[8 : 8 + 4 * count]):
                if 1 < leaf <= self._pages and not self._seen[leaf]:
                    self._seen[leaf] = 1
                    left -= 1
            trunk = int.from_bytes(page[:4], "big")
        return self.is_whole_head and trunk == left == 0


def check_is_queue(salvage: Salvage, path: str, owner: int, version: int) -> None:
    """Raises ``ConfigurationError`` where it is certain that it is none of ours, or too new."""
    if salvage.is_whole_head and salvage.owner != owner:
        raise ConfigurationError(f"{path!r} is another program's database, and no queue")
    if salvage.is_whole_head and salvage.version > version:
        raise ConfigurationError(f"{path!r} was written by a newer greentask: update this one")


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for number in range(9):
        byte = data[at + number]
        if number == 8:
            value = value << 8 | byte
            break
        value = value << 7 | byte & 0x7F
        if byte < 0x80:
            break
    return value - (1 << 64) if value >= 1 << 63 else value, at + number + 1


def _record(data: bytes) -> tuple[Any, ...]:
    size, at = _varint(data, 0)
    if not 0 < size <= len(data):
        raise _Bad
    kinds = []
    while at < size:
        kind, at = _varint(data, at)
        kinds.append(kind)
    values: list[Any] = []
    for kind in kinds:
        if kind == 0:
            values.append(None)
        elif kind in (8, 9):
            values.append(kind - 8)
        elif kind in _INTEGERS:
            values.append(int.from_bytes(_take(data, at, _INTEGERS[kind]), "big", signed=True))
            at += _INTEGERS[kind]
        elif kind == 7:
            values.append(struct.unpack(">d", _take(data, at, 8))[0])
            at += 8
        elif kind >= 12:
            length = (kind - 12) // 2
            part = _take(data, at, length)
            values.append(part.decode() if kind % 2 else part)
            at += length
        else:
            raise _Bad
    if at != len(data):
        raise _Bad
    return tuple(values)


def _take(data: bytes, at: int, length: int) -> bytes:
    part = data[at : at + length]
    if len(part) != length:
        raise _Bad
    return part
