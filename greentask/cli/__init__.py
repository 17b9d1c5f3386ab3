"""The ``greentask`` command. Each subcommand is a module, imported when it is asked for.

That keeps ``greentask call`` quick, and lets ``serve`` patch the standard library before anything else is imported.
"""

from __future__ import annotations

import sys

import click

from .._version import __version__
from .groups import LazyGroup

__all__ = ["main"]

_COMMANDS = {
    "serve": "Offer tasks to the network.",
    "status": "Show what a server does.",
    "top": "Show it live.",
    "dump": "Show the stacks of a server's greenlets and task processes.",
    "restart": "Replace the task processes of a group.",
    "reload": "Let a server load its code anew.",
    "stop": "Let a server end when its calls are answered.",
    "call": "Run a task on a server and print its result.",
    "enqueue": "Have a server keep a task, and run it later.",
    "queue": "See and change durable tasks.",
    "outbox": "Enqueue what was committed in a database of one's own.",
    "tasks": "List what a server offers.",
    "demo": "Send a thousand mails, and see that the service stays quick.",
}

_group = LazyGroup(
    package=__package__,
    commands={name: (f"{name}:command", about) for name, about in _COMMANDS.items()},
    help="A task server for synchronous Python: hand heavy work over, and stay quick.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
click.version_option(__version__, prog_name="greentask")(_group)


def main() -> None:
    """Run the command line."""
    try:
        sys.exit(_group.main(prog_name="greentask", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        sys.exit(130)  # as shells count it: 128 and the signal's number
