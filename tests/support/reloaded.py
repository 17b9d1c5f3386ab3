"""Programs for a server that is told to load its code anew, and the file that they are in."""

import textwrap
from pathlib import Path

__all__ = ["write_module"]


def write_module(folder: Path, version: int) -> Path:
    """A module `mine` whose task `version` says which one it is, and `version_at_last` when a file is there."""
    path = folder / "mine.py"
    path.write_text(
        textwrap.dedent(
            f"""
            import os, time
            from greentask import task

            @task
            def version(seconds=0):
                time.sleep(seconds)
                return {version}

            @task
            def version_at_last(gate):
                while not os.path.exists(gate):
                    time.sleep(0.005)
                return {version}

            @task
            def front():
                return os.getpid()

            @task
            def mark(path):
                fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
                os.write(fd, b"x")
                os.close(fd)
                return {version}

            @task(process=True)
            def mark_in_process(path):
                return mark(path)

            @task(process=True)
            def process():
                return os.getpid()
            """
        )
        + "#" * version  # of another length: within one second, that is how Python tells its bytecode is outdated
    )
    return path
