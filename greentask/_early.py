"""The signals of ``greentask serve`` before its master takes them, from the first line that is ours on: at its import.

All that it imports takes a tenth of a second and more. A SIGTERM in that time is as good as one a moment later, and
Python would leave it to the kernel, which ends the program with no exit code at all.
"""

import os
import signal
import sys

__all__ = ["take_signals"]


def take_signals() -> None:
    """Until the master does: SIGTERM and Ctrl-C end the program, and nothing is there for the others to change."""
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(number, lambda *_: None)


def _is_serve() -> bool:
    """Whether this program is ``greentask serve``, or ``python -m greentask serve``."""
    argv: list[str] = getattr(sys, "argv", [])
    if argv[1:2] != ["serve"]:
        return False
    if argv[0] != "-m":  # as it is while a module's package is imported
        return os.path.basename(argv[0]) == "greentask"
    before = sys.orig_argv[: 1 - len(argv)]
    return before[-2:] == ["-m", "greentask"] or before[-1:] == ["-mgreentask"]


if _is_serve():
    take_signals()
