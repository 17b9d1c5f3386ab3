"""Namespaces of processes and mounts, as containers have them: made by unshare(1), where that is allowed."""

import shutil
import subprocess

__all__ = ["ALONE", "can_unshare"]

ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def can_unshare() -> bool:
    """Whether it is (to root, on a machine of its own, and not inside of most containers)."""
    return shutil.which("unshare") is not None and subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0
