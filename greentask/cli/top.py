"""``greentask top``."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from ..client import Client
from ..errors import ConnectionLost, DeadlineExceeded
from .connection import Where, connected, server_options
from .times import Duration

__all__ = ["command"]

_LEAST_PATIENCE = 2.0  # seconds


@click.command("top")
@click.option("--every", type=Duration(0.1), default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--times", type=click.IntRange(1), help="Look so often, and end.  [default: until Ctrl-C]")
@server_options
def command(every: float, times: int | None, where: Where) -> None:
    """Show what a server does, live: rates and latencies since the last look, running calls, processes, connections.

    Where a server doesn't answer any more, the last look stays, and says for how long; it goes on when the server does.
    Where the output is no terminal, each look is printed below the one before it. Ctrl-C ends it.
    """
    with connected(where) as client:
        if sys.stdout.isatty():
            _live(client, every, times)
        else:
            _printed(client, every, times or 1)


def _printed(client: Client, every: float, times: int) -> None:
    from rich.console import Console

    from .showing import show

    before, looked_at = client.call("greentask.status", detail=True), time.monotonic()
    for _ in range(times):
        time.sleep(every)
        status, now = client.call("greentask.status", detail=True), time.monotonic()
        Console().print(show(status, before, now - looked_at))
        before, looked_at = status, now


def _live(client: Client, every: float, times: int | None) -> None:
    from rich import get_console
    from rich.live import Live

    from .showing import show, show_unanswered

    ask: Any = client.using(timeout=max(every, _LEAST_PATIENCE)).call
    before, looked_at = ask("greentask.status", detail=True), time.monotonic()
    shown = show(before, height=get_console().height)
    with Live(shown, screen=True, auto_refresh=False) as live:
        while times is None or times > 0:
            live.refresh()
            time.sleep(every)
            try:
                status = ask("greentask.status", detail=True)
            except (ConnectionLost, DeadlineExceeded) as error:
                live.update(show_unanswered(shown, time.monotonic() - looked_at, error), refresh=True)
            else:
                now = time.monotonic()
                shown = show(status, before, now - looked_at, height=live.console.height)
                live.update(shown, refresh=True)
                before, looked_at = status, now
            times = None if times is None else times - 1
