"""``greentask queue retry``, ``purge`` and ``revoke``, ``pause`` and ``resume``."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import click

from ...errors import InvalidArguments
from ...queue.managing import CHANGES, Filter
from .access import EXIT_CODES, NOTHING_DONE, Access, Where, accessed, close_names, fail, queue_options
from .filters import filter_options

__all__ = ["pause_command", "purge_command", "resume_command", "retry_command", "revoke_command"]

#: What becomes of one task, and of several.
_DONE = {
    "retry": ("waits again", "wait again"),
    "purge": ("is forgotten", "are forgotten"),
    "revoke": ("will not run", "will not run"),
    "revoke_running": ("will not run, or is being ended", "will not run, and those that do are being ended"),
}


def _changing(action: str, help: str, *more: Callable[..., Any]) -> click.Command:
    """A command that does it to tasks that are named, or to all that fit; ``more`` are options of its own."""

    @click.command(action, help=help, epilog=EXIT_CODES)
    @click.argument("tasks", metavar="[TASK]...", nargs=-1)
    @click.option("--all", "everything", is_flag=True, help="All of them.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON.")
    @filter_options
    @queue_options
    def command(
        tasks: tuple[str, ...],
        everything: bool,
        as_json: bool,
        wanted: dict[str, Any],
        queue: Where,
        running: bool = False,
    ) -> None:
        what = f"{action}_running" if running else action
        if bool(tasks) + everything + bool(wanted) != 1 and not (everything and wanted and not tasks):
            raise click.UsageError("say which tasks: by their ids, or by a filter (--task NAME, say), or --all")
        with accessed(queue) as access:
            if tasks:
                done = access.change(what, list(dict.fromkeys(tasks)))
                for task in dict.fromkeys(tasks):
                    if task not in done:
                        click.echo(f"greentask: {_why_not(access, what, task)}", err=True)
                changed = len(done)
            else:
                try:
                    changed = access.file.change_all(what, Filter.decode(wanted))
                except InvalidArguments as error:
                    raise click.UsageError(str(error)) from None
                if changed == 0:
                    access.mind_name(wanted)
        if as_json:
            click.echo(json.dumps({"changed": changed}))
        else:
            one, several = _DONE[what]
            click.echo(
                f"{changed:,} tasks {several}" if changed > 1 else f"1 task {one}" if changed else "no task is changed"
            )
        if changed == 0 or changed < len(set(tasks)):
            raise SystemExit(NOTHING_DONE)

    for option in more:
        command = option(command)
    return command


def _why_not(access: Access, action: str, task: str) -> str:
    """Why it can't be done to this task."""
    found = access.look("show", task=task)
    if found is None:
        return f"the queue knows no task {task!r}, or not any more"
    fitting = CHANGES[action][1]
    if found["state"] not in fitting:
        name = action.partition("_")[0]
        hint = "; --running ends it" if (action, found["state"]) == ("revoke", "running") else ""
        return (
            f"{task} ({found['name']}) is {found['state']}: {name} is for tasks that are {', '.join(sorted(fitting))}"
            f"{hint}"
        )
    why = "its state has changed meanwhile: try again"
    if action == "retry":
        why = "another one waits or runs in its place"
        if (cause := found.get("failed_with")) is not None:
            before = access.look("show", task=cause)
            why = f"it failed with {cause}, which is {'not known any more' if before is None else before['state']}"
            why += ": retry that one" if before is not None and before["state"] == "failed" else ""
        elif not found["attempts"]:
            error = found["errors"][-1]
            why = f"it has not run: {error['type']}: {error['message']}"
    elif action == "purge":
        why = "what follows it is going to take its result"
    return f"{task} ({found['name']}) is left as it is: {why}"


retry_command = _changing(
    "retry",
    "Have dead letters wait for their turn again, as if they had never been tried: each TASK, or all that fit.",
)
purge_command = _changing(
    "purge",
    """Forget tasks that have ended, with their results and errors: each TASK, or all that fit.

    Their keys are free then, or at the end of their key_ttl, if they have one.
    By a filter: --state failed is for dead letters only; without --state it means done, revoked and expired ones, too.
    """,
)
revoke_command = _changing(
    "revoke",
    "Have tasks that wait, or are scheduled, not begin: each TASK, or all that fit. What runs goes on, but for "
    "--running.",
    click.option("--running", is_flag=True, help="End those that run as well, on whichever server."),
)


def _not_empty(_: click.Context, __: click.Parameter, name: str | None) -> str | None:
    if name == "":  # of a script whose variable is not set
        raise click.BadParameter("a task's name is not ''; without a NAME it is the whole queue")
    return name


@click.command("pause", epilog=EXIT_CODES)
@click.argument("name", metavar="[NAME]", required=False, callback=_not_empty)
@queue_options
def pause_command(name: str | None, queue: Where) -> None:
    """Begin no more tasks of that NAME, or none at all, on any server of this queue, until it is resumed.

    What runs goes on, and tasks are enqueued as ever.
    """
    with accessed(queue) as access:
        if name is not None and (close := close_names(access.file, name)) is not None:
            click.echo(f"greentask: mind that no task {name!r} has been enqueued here yet{close}", err=True)
        if not access.file.pause(name):
            fail(NOTHING_DONE, f"{name or 'the queue'} is paused already")
    click.echo(f"{name or 'the queue'} is paused")


@click.command("resume", epilog=EXIT_CODES)
@click.argument("name", metavar="[NAME]", required=False, callback=_not_empty)
@queue_options
def resume_command(name: str | None, queue: Where) -> None:
    """Go on with the tasks of that NAME, or with the queue (tasks that were paused by name stay so)."""
    with accessed(queue) as access:
        if not access.file.resume(name):
            fail(NOTHING_DONE, f"{name or 'the queue'} is not paused")
    click.echo(f"{name or 'the queue'} goes on")
