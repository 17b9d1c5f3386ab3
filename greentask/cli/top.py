"""``greentask top``."""

from __future__ import annotations

import sys
import time

import click

from .connection import Where, connected, server_options

__all__ = ["command"]


@click.command("top")
@click.option("--every", type=click.FloatRange(0.1), default=2.0, show_default=True, help="Seconds between two looks.")
@click.option("--times", type=click.IntRange(1), help="Look so often, and end.  [default: until Ctrl-C]")
@server_options
def command(every: float, times: int | None, where: Where) -> None:
    """Show what a server does, live: rates and latencies since the last look, running calls, processes, connections.

    Where the output is no terminal, each look is printed below the one before it. Ctrl-C ends it.
    """
    from rich.console import Console
    from rich.live import Live

    from .showing import show

    console = Console()
    with connected(where) as client:
        before, looked_at = client.call("greentask.status", detail=True), time.monotonic()
        if not sys.stdout.isatty():
            for _ in range(times or 1):
                time.sleep(every)
                status, now = client.call("greentask.status", detail=True), time.monotonic()
                console.print(show(status, before, now - looked_at))
                before, looked_at = status, now
            return
        with Live(show(before), console=console, screen=True, auto_refresh=False) as live:
            while times is None or times > 0:
                live.refresh()
                time.sleep(every)
                status, now = client.call("greentask.status", detail=True), time.monotonic()
                live.update(show(status, before, now - looked_at), refresh=True)
                before, looked_at = status, now
                times = None if times is None else times - 1
