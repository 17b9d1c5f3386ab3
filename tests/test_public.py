"""The public surface: a change of it shows in the diff of public.txt.

`UPDATE_PUBLIC=1 pytest tests/test_public.py` writes it anew.
"""

import inspect
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import greentask
from greentask import testing

SNAPSHOT = Path(__file__).with_name("public.txt")


def test_the_public_names_and_signatures_are_these() -> None:
    names = [(greentask, name) for name in sorted(greentask.__all__)]
    names += [(testing, name) for name in sorted(testing.__all__)]
    lines = "".join(f"{line}\n" for module, name in names for line in describe(module, name))
    if os.environ.get("UPDATE_PUBLIC"):
        SNAPSHOT.write_text(lines, encoding="utf-8")
    assert lines == SNAPSHOT.read_text(encoding="utf-8")


def describe(module: ModuleType, name: str) -> list[str]:
    thing = getattr(module, name)
    name = name if module is greentask else f"testing.{name}"
    if inspect.isclass(thing):
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
        own = [f"  {line}" for key in sorted(vars(thing)) if (line := member(key, vars(thing)[key]))]
        return [f"class {name}({bases})", *own]
    return [f"def {name}{plain(inspect.signature(thing))}" if callable(thing) else f"{name}"]


def member(name: str, value: Any) -> str | None:
    if name.startswith("_") and name not in ("__init__", "__call__"):
        return None
    if isinstance(value, property):
        return f"{name}: property"
    return f"{name}{plain(inspect.signature(value))}" if inspect.isfunction(value) else None


def plain(signature: inspect.Signature) -> str:
    """Without annotations, which Python's versions write differently."""
    bare = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    return str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))


def test_every_public_thing_has_a_docstring() -> None:
    missing = []
    for name, thing in [(name, getattr(greentask, name)) for name in greentask.__all__] + [
        (f"testing.{name}", getattr(testing, name)) for name in testing.__all__
    ]:
        if not (inspect.isclass(thing) or inspect.isfunction(thing)):
            continue
        if not (thing.__doc__ or "").strip():
            missing.append(name)
        for key, value in vars(thing).items() if inspect.isclass(thing) else ():
            if not key.startswith("_") and inspect.isfunction(value) and not inspect.getdoc(getattr(thing, key)):
                missing.append(f"{name}.{key}")
    assert missing == []


def test_dir_lists_what_is_imported_late() -> None:
    assert set(greentask.__all__) <= set(dir(greentask))
