"""``greentask queue``: each of its commands is imported when it is asked for."""

from __future__ import annotations

from ..groups import LazyGroup
from .access import EXIT_CODES

__all__ = ["command"]

command = LazyGroup(
    "queue",
    package=__package__,
    commands={
        "list": ("seeing:list_command", "List tasks: all, or those that fit."),
        "show": ("seeing:show_command", "Show all that is known of a task, with every attempt's error."),
        "stats": ("seeing:stats_command", "Show how many wait, run and have failed, and what is paused."),
        "retry": ("changing:retry_command", "Have dead letters tried again."),
        "purge": ("changing:purge_command", "Forget tasks that have ended."),
        "revoke": ("changing:revoke_command", "Have tasks not begin that have not begun yet."),
        "pause": ("changing:pause_command", "Begin no more tasks, or none of one name."),
        "resume": ("changing:resume_command", "Go on with what was paused."),
        "export": ("moving:export_command", "Write tasks as lines of JSON."),
        "import": ("moving:import_command", "Keep the tasks of such lines."),
        "backup": ("moving:backup_command", "Copy the queue's file while servers go on with it."),
        "check": ("moving:check_command", "Look through the queue's file for damage."),
        "recover": ("moving:recover_command", "Save what can be read of a damaged file."),
    },
    help="""See and change the durable tasks of a server, or of a queue's file.

    Of a server (--server, --pid or --pid-file) on this machine its file is used, beside it, by those who may write it;
    a server elsewhere is asked, and then tasks are changed one by one only. --queue FILE is the file itself, whether
    servers have it or not.""",
    epilog=EXIT_CODES,
)
