"""``greentask demo``."""

from __future__ import annotations

import sys

import click

__all__ = ["command"]


@click.command("demo")
@click.option("--mails", type=click.IntRange(1, 100_000), default=1000, show_default=True, help="How many to send.")
@click.option("--listen", default="127.0.0.1:12345", show_default=True, help="The task server's address.")
@click.option("--web", default="127.0.0.1:8080", show_default=True, help="The WebSocket service's address.")
@click.option("--smtp", default="127.0.0.1:0", help="The SMTP server's address.  [default: a free port]")
@click.option("--keep", is_flag=True, help="Leave it up for a browser, until Ctrl-C.")
def command(mails: int, listen: str, web: str, smtp: str, keep: bool) -> None:
    """Send a thousand mails through a WebSocket service, compute two reports, and see that it stays quick.

    It starts a real SMTP server (50 ms a mail, as a slow relay takes), the task server and the WebSocket service, and
    is their client. Exit codes: 0 all mails arrived, 1 they did not, 2 wrong usage, 3 an address is taken, 130 Ctrl-C.
    """
    try:
        from ..demo.story import Addresses, run
    except ModuleNotFoundError as error:
        click.echo(f"greentask demo: {error.name} is missing; install it with: pip install 'greentask[demo]'", err=True)
        sys.exit(1)
    sys.exit(run(mails, Addresses(tasks=listen, web=web, smtp=smtp), keep=keep))
