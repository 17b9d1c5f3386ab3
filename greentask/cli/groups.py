"""Groups of commands, each imported when it is asked for."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import click

__all__ = ["LazyGroup"]


class LazyGroup(click.Group):
    """A group of ``commands``: their names, each with where it is (``module:object``) and a line about it."""

    def __init__(
        self, name: str | None = None, *, package: str | None, commands: Mapping[str, tuple[str, str]], **options: Any
    ) -> None:
        super().__init__(name, **options)
        self._package = package
        self._lazy = commands

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self._lazy)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in self._lazy:
            return None
        module, _, attribute = self._lazy[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(f".{module}", self._package), attribute)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args[0] not in self._lazy and not args[0].startswith("-"):
            import difflib  # here: it is rarely needed

            close = difflib.get_close_matches(args[0], self._lazy)
            if close:
                ctx.fail(f"No such command {args[0]!r}; did you mean {' or '.join(close)}?")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):  # without importing them
            formatter.write_dl([(name, about) for name, (_, about) in self._lazy.items()])
