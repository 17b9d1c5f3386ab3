"""``greentask queue export`` and ``import``, ``backup`` and ``check``."""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

import click

from ...errors import InvalidArguments
from ...queue.backup import back_up, check
from ...queue.byhand import QueueFile
from ...queue.managing import Filter
from ...queue.transfer import check_head, export_tasks, import_tasks
from .access import EXIT_CODES, Where, accessed, located, queue_options, told_of_files
from .filters import filter_options

__all__ = ["backup_command", "check_command", "export_command", "import_command", "recover_command"]


@click.command("export", epilog=EXIT_CODES)
@click.argument("output", metavar="[OUTPUT]", type=click.Path(), default="-")
@filter_options
@queue_options
def export_command(output: str, wanted: dict[str, Any], queue: Where) -> None:
    """Write all tasks, or those that fit, to OUTPUT (or stdout) as lines of JSON.

    It is the queue of one moment, and the servers go on meanwhile: to move a queue, stop them first, or what they run
    after that moment runs once more elsewhere.
    """
    with accessed(queue, to_read=True) as access:
        try:
            fitting = Filter.decode(wanted)
        except InvalidArguments as error:
            raise click.UsageError(str(error)) from None
        count = -2  # the first and the last line are no tasks
        folder = os.path.dirname(access.file.path)
        with _opened(output) as target, _at_its_own_pace(target, folder) as file, access.file.moment() as store:
            for line in export_tasks(store, fitting):
                file.write(line)
                count += 1
        if count == 0:
            access.mind_name(wanted)
    click.echo(f"{_tasks(count)} written", err=True)


@contextmanager
def _opened(output: str) -> Iterator[BinaryIO]:
    """A file of that name, or stdout; it is on disk at the end. An error has the name."""
    try:
        with open(1, "wb", closefd=False) if output == "-" else open(output, "wb") as file:
            yield file
            file.flush()
            if _is_file(file):
                os.fsync(file.fileno())
    except OSError as error:
        if error.filename is None:
            error.filename = "stdout" if output == "-" else output
        raise


@contextmanager
def _at_its_own_pace(output: BinaryIO, folder: str) -> Iterator[BinaryIO]:
    """A file that takes what is written as quickly as a disk does; it is in ``output`` at the end.

    While somebody reads the queue as of one moment, its log grows by all that its servers write. So who takes the
    output slowly, from a pipe, is not waited for meanwhile.
    """
    if _is_file(output):
        yield output
        return
    with tempfile.TemporaryFile(prefix=".greentask-export-", dir=folder) as file:
        try:
            yield file
            file.flush()
        except OSError as error:  # of this file, which has no name, and not of the output
            error.filename = error.filename or folder
            raise
        file.seek(0)
        shutil.copyfileobj(file, output)


def _is_file(output: BinaryIO) -> bool:
    try:
        return stat.S_ISREG(os.fstat(output.fileno()).st_mode)
    except (OSError, ValueError):
        return False


@click.command("import", epilog=EXIT_CODES)
@click.argument("input", metavar="[INPUT]", type=click.File("rb"), default="-")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@queue_options
def import_command(input: BinaryIO, as_json: bool, queue: Where) -> None:
    """Keep the tasks of INPUT (or stdin), which export has written, under their ids.

    One that is known already is left as it is, so to do it again changes nothing. With --queue the file is made where
    there is none.
    """
    with told_of_files():
        first = next(input, b"")
        check_head(first)  # before a file is made for what is no export
        with _made(queue), accessed(queue) as access:
            done = import_tasks(access.file, chain((first,), input))
    if as_json:
        click.echo(json.dumps(done._asdict()))
    else:
        keys = f", {_tasks(done.keys)} left out, for others have their keys" if done.keys else ""
        click.echo(f"{_tasks(done.new)} imported, {done.known:,} known already{keys}")


@contextmanager
def _made(queue: Where) -> Iterator[None]:
    """While inside, the file that was named is there."""
    if queue.file is not None and not os.path.exists(queue.file):
        QueueFile(queue.file, make=True).close()
    yield


@click.command("backup", epilog=EXIT_CODES)
@click.argument("target", metavar="FILE", type=click.Path())
@click.option("--force", is_flag=True, help="Replace FILE where it is there, once the copy is complete.")
@queue_options
def backup_command(target: str, force: bool, queue: Where) -> None:
    """Copy the queue to FILE, as it is in one moment, while servers go on with it; and verify the copy.

    The copy is a queue: `greentask serve --queue FILE` goes on from there.
    """
    with located(queue) as path, _progress() as report:
        size = back_up(path, target, overwrite=force, report=report)
    click.echo(f"{target}: {size:,} bytes, verified")


@contextmanager
def _progress() -> Iterator[Any]:
    """A bar, for who sits in front of it."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        line = bar.add_task("pages")
        yield lambda done, total: bar.update(line, completed=done, total=total)


@click.command("check", epilog=EXIT_CODES)
@queue_options
def check_command(queue: Where) -> None:
    """Look through the queue's file for damage, all of it, while servers go on with it: a second for a gigabyte."""
    with located(queue) as path:
        check(path)
    click.echo(f"{path} is as it should be")


@click.command("recover", epilog=EXIT_CODES)
@click.argument("file", metavar="FILE", type=click.Path())
@click.argument("target", metavar="NEWFILE", type=click.Path())
@click.option("--no-log", is_flag=True, help="Leave FILE-wal out, which is that of another FILE that was there before.")
def recover_command(file: str, target: str, no_log: bool) -> None:
    """Make the queue NEWFILE of what can be read of FILE, which is damaged, and has no servers.

    FILE is left as it is. A task of which it is not known where it stood waits for its turn: it may run once more, or
    before its time. What has been forgotten stays so.
    """
    from ...queue.recover import recover

    with told_of_files():
        done = recover(file, target, log=not no_log)
    broken = f", {_tasks(done.broken)} broken" if done.broken else ""
    click.echo(
        f"{target}: {_tasks(done.tasks)} saved{broken}; {done.damaged:,} damaged page{'s' * (done.damaged != 1)}"
    )


def _tasks(count: int) -> str:
    return f"{count:,} task{'s' * (count != 1)}"
