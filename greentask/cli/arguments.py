"""The arguments of a task, as they are given on a command line."""

from __future__ import annotations

import functools
import json
import sys
from collections.abc import Callable
from typing import Any

import click

__all__ = ["argument_options"]


def argument_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``KEY=VALUE…``, ``--json`` and ``--stdin``, which the command gets as ``args``."""

    @click.argument("arguments", metavar="[KEY=VALUE]...", nargs=-1)
    @click.option(
        "--json", "as_json", metavar="JSON", help="All arguments: an object, or an array for positional ones."
    )
    @click.option("--stdin", is_flag=True, help="Read such JSON from standard input.")
    @functools.wraps(command)
    def collected(*args: Any, arguments: tuple[str, ...], as_json: str | None, stdin: bool, **options: Any) -> Any:
        return command(*args, args=_read(arguments, as_json, stdin), **options)

    return collected


def _read(arguments: tuple[str, ...], as_json: str | None, stdin: bool) -> dict[str, Any] | list[Any]:
    if (as_json is not None) + stdin + bool(arguments) > 1:
        raise click.UsageError("give the arguments in one way: KEY=VALUE, --json or --stdin")
    if stdin:
        as_json = sys.stdin.read()
    if as_json is not None:
        try:
            args = json.loads(as_json)
        except ValueError as error:
            raise click.UsageError(f"the arguments are not JSON: {error}") from None
        if not isinstance(args, (dict, list)):
            raise click.UsageError("the arguments must be a JSON object (by name) or array (by position)")
        return args
    named: dict[str, Any] = {}
    for argument in arguments:
        key, equals, value = argument.partition("=")
        if not equals or not key:
            raise click.UsageError(f"{argument!r} is no KEY=VALUE; for positional arguments use --json '[…]'")
        if key in named:
            raise click.UsageError(f"{key!r} is given twice")
        named[key] = _value(value)
    return named


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text
