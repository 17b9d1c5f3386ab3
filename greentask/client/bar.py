"""``progress=True``: a bar on the terminal, if the program has one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from ..tasks.remote import ProgressCallback

__all__ = ["counted", "showing", "streamed"]

_PAUSE = 0.1  # seconds between two pictures at least


@contextmanager
def showing(what: str, total: float | None = None) -> Iterator[ProgressCallback]:
    """A bar on stderr while inside, which the reports move; nothing where that is no terminal.

    It is drawn by who reports: there is no thread, which a guest in other people's programs should not start.
    """
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _ignore
        return

    from rich.markup import escape
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    bar = Progress(*columns, console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
    drawn_at = 0.0

    def show(report: dict[str, Any]) -> None:
        nonlocal drawn_at
        done, of, note = report.get("done"), report.get("total"), report.get("note")
        bar.update(
            line,
            completed=done if isinstance(done, (int, float)) else None,
            total=of if isinstance(of, (int, float)) else total,
            description=escape(f"{what}: {note:.60}" if isinstance(note, str) and note.isprintable() else what),
        )
        if time.monotonic() - drawn_at >= _PAUSE:
            bar.refresh()
            drawn_at = time.monotonic()

    with bar:
        line = bar.add_task(escape(what), total=total)
        bar.refresh()
        try:
            yield show
        finally:
            bar.refresh()


def counted(results: Iterator[Any], what: str, total: int | None) -> Iterator[Any]:
    """The results, with a bar that moves as they are taken."""
    try:
        with showing(what, total) as show:
            for done, result in enumerate(results, 1):
                show({"done": done})
                yield result
    finally:
        results.close()  # type: ignore[attr-defined]  # a generator: calls in flight are cancelled with it


def streamed(start: Callable[[ProgressCallback], Iterator[Any]], what: str) -> Iterator[Any]:
    """A stream's items, with a bar of what the task reports, or of the items taken where it reports nothing."""
    has_reported = False
    with showing(what) as show:

        def tell(report: dict[str, Any]) -> None:
            nonlocal has_reported
            has_reported = True
            show(report)

        items = start(tell)
        try:
            for done, item in enumerate(items, 1):
                if not has_reported:
                    show({"done": done})
                yield item
        finally:
            items.close()  # type: ignore[attr-defined]  # a generator: leaving it stops the task


def _ignore(report: dict[str, Any]) -> None:
    pass
