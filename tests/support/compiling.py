"""Compile everything once, where nothing of it is compiled: in a fresh clone, and for each new Python.

The processes of pytest-xdist import all the same modules in the same order, so that each would compile all of them,
and pytest rewrites the assertions of the tests, which takes longer still: ten seconds, as many times as there are
processes. So each begins with a part of its own.
"""

import sys
from importlib.machinery import SourceFileLoader
from importlib.util import spec_from_file_location
from pathlib import Path
from typing import Any

from support.programs import ROOT, TESTS

__all__ = ["compile_part"]


class _Enough(Exception):
    pass


class _NotRun:
    """A module that is loaded as far as to its code, which is kept in a file by then."""

    def __init__(self, path: Path) -> None:
        self.__name__ = f"_compiled.{path.stem}"
        self.__spec__ = spec_from_file_location(self.__name__, path)

    @property
    def __dict__(self) -> Any:  # type: ignore[override]
        raise _Enough


def compile_part(number: int, parts: int) -> None:
    """Compile what is part ``number`` (from 0) of ``parts``, and is not compiled yet."""
    rewriter: Any = next((one for one in sys.meta_path if type(one).__name__ == "AssertionRewritingHook"), None)
    if rewriter is not None:
        for path in _part(TESTS, number, parts):
            try:
                rewriter.exec_module(_NotRun(path))
            except _Enough:
                pass
    for path in _part(ROOT / "greentask", number, parts):
        SourceFileLoader(path.stem, str(path)).get_code(path.stem)


def _part(folder: Path, number: int, parts: int) -> list[Path]:
    return sorted(folder.rglob("*.py"), key=lambda path: (path.stat().st_size, path))[number::parts]
