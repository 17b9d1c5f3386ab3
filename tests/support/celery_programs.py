"""Programs that are written for Celery, run as they are, or with their imports changed."""

import re
import shutil
from pathlib import Path

from support.programs import TESTS

__all__ = ["PROGRAMS", "change_imports", "copy_programs"]

PROGRAMS = TESTS / "contrib" / "celery_style" / "programs"


def copy_programs(folder: Path, *, changed: bool) -> Path:
    """Copy the programs and what they import. With their imports of celery changed to ours, and nothing else."""
    copied = shutil.copytree(PROGRAMS, folder / "programs", ignore=shutil.ignore_patterns("__pycache__"))
    if changed:
        for file in copied.rglob("*.py"):
            file.write_text(change_imports(file.read_text()))
    return copied


def change_imports(source: str) -> str:
    """The one change that a program needs."""
    return re.sub(r"^from celery\b", "from greentask.contrib.celery_style", source, flags=re.MULTILINE)
