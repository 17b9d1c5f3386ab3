"""The documents, and the code in them."""

import re

from support.programs import ROOT

__all__ = ["blocks"]

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(name: str, language: str) -> list[str]:
    """A document's blocks of code in this language."""
    text = (ROOT / name).read_text(encoding="utf-8")
    return [body for kind, body in _BLOCK.findall(text) if kind == language]
