"""Copies of a queue's file, made while servers go on with it.

The copy is of one moment: it is read within one transaction, which in WAL mode holds up nobody. Only the log can't
begin anew meanwhile, and grows by what is written. The copy is looked through for damage, and gets its name when it is
on disk.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ..errors import ConfigurationError
from .schema import be_copy, check_file, open_file

__all__ = ["back_up", "check", "check_target", "room_for", "sync_folder"]

_STEP = 4096  # pages (16 MB) between two reports


def back_up(
    path: str,
    target: str,
    *,
    overwrite: bool = False,
    report: Callable[[int, int], object] = lambda _done, _total: None,
) -> int:
    """Copy the queue ``path`` to the file ``target``, and verify the copy; how many bytes that is.

    ``report`` hears of the pages that are done, and of how many there are. Raises ``ConfigurationError`` where one of
    the two can't be that, or the copy is damaged: then there is none.
    """
    path, target = os.path.abspath(path), os.path.abspath(target)
    if not os.path.exists(path):
        raise ConfigurationError(f"there is no queue {path!r}")
    check_target(path, target, overwrite=overwrite)
    fd, part = tempfile.mkstemp(prefix=f"{os.path.basename(target)}.part-", dir=os.path.dirname(target))
    try:
        os.fchmod(fd, stat.S_IMODE(os.stat(path).st_mode))
        if os.geteuid() == 0:
            os.fchown(fd, os.stat(path).st_uid, os.stat(path).st_gid)
        db = open_file(path, as_it_is=True)
        try:
            with room_for(target):
                _copy(db, part, report)
        finally:
            db.close()
        os.fsync(fd)
        os.rename(part, target)
        sync_folder(os.path.dirname(target))
        return os.stat(target).st_size
    except BaseException:
        for end in ("", "-wal", "-shm", "-journal"):
            if os.path.exists(part + end):
                os.unlink(part + end)
        raise
    finally:
        os.close(fd)


@contextmanager
def room_for(target: str) -> Iterator[None]:
    """While inside, a copy is written: where there is no room for it, that is said of it, and not of the queue."""
    try:
        yield
    except (sqlite3.OperationalError, ConfigurationError) as error:
        if "disk is full" not in str(error):
            raise
        raise ConfigurationError(f"{target!r} can't be written: is its disk full?") from None


def check(path: str) -> None:
    """Look through a queue for damage, all of it, while servers go on with it. Raises ``ConfigurationError``."""
    if not os.path.exists(path):
        raise ConfigurationError(f"there is no queue {path!r}")
    db = open_file(path, as_it_is=True)
    try:
        check_file(db, path, most=None)
    finally:
        db.close()


def check_target(path: str, target: str, *, overwrite: bool | None) -> None:
    """Raises ``ConfigurationError`` where a copy of ``path`` can't have that name; None: that can't be overwritten."""
    folder = os.path.dirname(target)
    if not os.path.isdir(folder):
        raise ConfigurationError(f"{target!r}: there is no folder {folder!r}; make it first")
    if not os.path.lexists(target):
        return
    if os.path.isdir(target):
        raise ConfigurationError(f"{target!r} is a folder: name a file in it")
    if overwrite is None:
        raise ConfigurationError(f"{target!r} is there already: name another file")
    if not overwrite:
        raise ConfigurationError(f"{target!r} is there already: name another file, or say --force")
    if os.path.realpath(target) == os.path.realpath(path):
        raise ConfigurationError(f"{target!r} is the queue itself: name another file")
    if any(os.path.exists(target + end) for end in ("-wal", "-shm")):
        raise ConfigurationError(f"{target!r} is a database that somebody has open: name another file")


def _copy(db: sqlite3.Connection, part: str, report: Callable[[int, int], object]) -> None:
    db.execute("BEGIN")
    try:
        db.execute("SELECT count(*) FROM meta").fetchone()  # from here on it is that moment that is read
        copy = sqlite3.connect(part, isolation_level=None)
        try:
            copy.execute("PRAGMA synchronous = OFF")  # it is synced as a whole
            db.backup(copy, pages=_STEP, progress=lambda _status, left, total: report(total - left, total), sleep=0)
            be_copy(copy)
            check_file(copy, part, most=None)
        finally:
            copy.close()
    finally:
        db.execute("ROLLBACK")


def sync_folder(folder: str) -> None:
    """See to it that a new name in it is on disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
