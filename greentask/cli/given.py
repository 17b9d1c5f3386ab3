"""What was given on the command line, and not by the environment; and what would do nothing there, which is refused."""

from __future__ import annotations

from collections.abc import Iterable

import click

__all__ = ["is_given", "refuse_idle"]


def is_given(context: click.Context, name: str) -> bool:
    """Whether that option is on the command line, and not from the environment."""
    return context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE


def refuse_idle(names: Iterable[str], why: str) -> None:
    """End with a usage error where one of these options is on the command line; ``why`` it does nothing there.

    Whoever gives one means something by it, and would never notice that it is not so.
    """
    context = click.get_current_context()
    for name in names:
        if is_given(context, name):
            flags = (option.opts[0] for option in context.command.params if option.name == name)
            raise click.UsageError(f"{next(flags, name)} does nothing {why}")
