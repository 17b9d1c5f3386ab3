"""Imports point down only: what each part of greentask may know, checked in its source and in a process."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

import greentask

# From top to bottom. A module may import from its own part and from the rows below its own.
LAYERS = (
    ("cli", "demo"),
    ("contrib",),
    ("testing",),  # for tests of what is built on the rest, and so above it; contrib's pytest plugin is a layer over it
    ("(root)",),  # greentask itself, which only hands on the names of what is below
    ("gateway", "master"),
    ("queue",),
    ("server", "client"),
    ("runner",),
    ("tasks",),
    ("pool",),
    ("hub",),
    ("wire",),
    ("errors",),
    ("_early", "_version"),
)
# Parts of one row don't know each other, but for these.
NEIGHBOURS = {("cli", "demo"), ("demo", "cli")}

# These may import anything: they are what the layers are put together in.
EXEMPT = {"greentask", "greentask.__main__"}

# These (and what is in them) run in processes of their own or in programs of others, without gevent.
WITHOUT_GEVENT = (
    "greentask.errors",
    "greentask.wire",
    "greentask.tasks",
    "greentask.contrib.celery_style.app",
    "greentask.pool.child",
    "greentask.pool.template",
    "greentask.pool.setup",
    "greentask.pool.frames",
    "greentask.pool.mapping",
    "greentask.pool.pickling",
    "greentask.pool.coroutines",
)
GEVENT = ("gevent", "geventwebsocket", "greenlet")

ROW = {part: row for row, parts in enumerate(LAYERS) for part in parts}
FOLDER = Path(greentask.__file__).parent


class Import(NamedTuple):
    name: str  # in full: greentask.wire.text
    line: int


class Module(NamedTuple):
    name: str
    path: Path
    is_package: bool

    def imports(self) -> list[Import]:
        tree = ast.parse(self.path.read_text(encoding="utf-8"), str(self.path))
        package = self.name if self.is_package else self.name.rpartition(".")[0]
        return list(imports_in(tree, package))


def find_modules(folder: Path = FOLDER, root: str = "greentask") -> list[Module]:
    found = []
    for path in sorted(folder.rglob("*.py")):
        parts = path.relative_to(folder).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        found.append(Module(".".join((root, *parts[: len(parts) - is_package])), path, is_package))
    return found


def imports_in(tree: ast.AST, package: str) -> Iterator[Import]:
    """Every import of the source, wherever it stands, but those for the type checker only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno)
        elif isinstance(node, ast.ImportFrom):
            above = package.split(".")[: len(package.split(".")) - node.level + 1] if node.level else []
            base = ".".join([*above, *([node.module] if node.module else [])])
            for alias in node.names:
                yield Import(f"{base}.{alias.name}", node.lineno)
        elif isinstance(node, ast.If) and is_type_checking(node.test):
            for other in node.orelse:
                yield from imports_in(ast.Module([other], []), package)
        else:
            yield from imports_in(node, package)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def part_of(name: str, known: frozenset[str]) -> str | None:
    """The part that a dotted name belongs to: greentask.wire.text is wire's, greentask.Client the root's."""
    root, _, rest = name.partition(".")
    if root != "greentask":
        return None
    part = rest.split(".")[0]
    return part if part in known or part in ROW else "(root)"


def may_import(importer: str, imported: str) -> bool:
    if importer == imported or (importer, imported) in NEIGHBOURS:
        return True
    return ROW[importer] < ROW[imported]


def breaches(modules: list[Module]) -> list[str]:
    known = frozenset(module.name.split(".")[1] for module in modules if "." in module.name)
    found = []
    for module in modules:
        if module.name in EXEMPT:
            continue
        importer = part_of(module.name, known)
        assert importer in ROW, f"{module.name} has no place in LAYERS"
        for name, line in module.imports():
            imported = part_of(name, known)
            if imported is not None and not may_import(importer, imported):
                found.append(f"{module.path}:{line}: {importer} imports {name}")
    return found


def without_gevent(module: Module) -> bool:
    return any(module.name == name or module.name.startswith(f"{name}.") for name in WITHOUT_GEVENT)


MODULES = find_modules()


def test_every_module_is_looked_at() -> None:
    names = {module.name for module in MODULES}
    assert {"greentask", "greentask._version", "greentask.errors"} <= names


def test_imports_point_down() -> None:
    assert breaches(MODULES) == []


def test_parts_that_run_without_gevent_do_not_import_it() -> None:
    found = [
        f"{module.path}:{line}: imports {name}"
        for module in MODULES
        if without_gevent(module)
        for name, line in module.imports()
        if name.split(".")[0] in GEVENT
    ]
    assert found == []


def test_parts_that_run_without_gevent_load_without_it() -> None:
    """What they import in turn counts too, so this asks a process of its own, after each of them."""
    names = ["greentask", *(module.name for module in MODULES if without_gevent(module))]
    program = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert 'gevent' not in sys.modules, name + ' brings in gevent'\n"
    )
    done = subprocess.run([sys.executable, "-c", program, *names], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# ---- That the check sees what it should


@pytest.mark.parametrize(
    ("path", "source", "seen"),
    [
        ("wire/text.py", "from ..errors import LineTooLong", None),
        ("wire/text.py", "from .json import dumps", None),
        ("wire/text.py", "import os, json", None),
        ("wire/text.py", "from ..tasks.task import Task", "wire imports greentask.tasks.task.Task"),
        ("wire/text.py", "from .. import tasks", "wire imports greentask.tasks"),
        ("wire/text.py", "from greentask import Client", "wire imports greentask.Client"),
        ("wire/__init__.py", "from ..hub import Hub", "wire imports greentask.hub.Hub"),
        ("wire/text.py", "import greentask.server.tcp", "wire imports greentask.server.tcp"),
        ("wire/text.py", "def f():\n    from ..pool import Pool", "wire imports greentask.pool.Pool"),
        (
            "wire/text.py",
            "try:\n    import greentask.pool\nexcept E:\n    pass",
            "wire imports greentask.pool",
        ),
        ("wire/text.py", "if TYPE_CHECKING:\n    from ..pool import Pool", None),
        ("wire/text.py", "if typing.TYPE_CHECKING:\n    from ..pool import Pool", None),
        (
            "wire/text.py",
            "if TYPE_CHECKING:\n    pass\nelse:\n    from ..pool import Pool",
            "wire imports greentask.pool.Pool",
        ),
        ("server/tcp.py", "from ..client import Client", "server imports greentask.client.Client"),
        ("client/tcp.py", "from ..server import Server", "client imports greentask.server.Server"),
        ("server/deep/er.py", "from ...client import Client", "server imports greentask.client.Client"),
        ("cli/main.py", "from ..demo import tour", None),
        ("demo/tour.py", "from ..cli import main", None),
        ("contrib/mail.py", "from .. import Client", None),
        ("contrib/mail.py", "from ..cli import main", "contrib imports greentask.cli.main"),
        ("__init__.py", "from .cli import main", None),
    ],
)
def test_a_breach_is_seen(tmp_path: Path, path: str, source: str, seen: str | None) -> None:
    file = tmp_path / path
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(source)
    found = [breach.split(": ", 1)[1] for breach in breaches(find_modules(tmp_path))]
    assert found == ([seen] if seen else [])


def test_a_module_without_a_place_is_seen(tmp_path: Path) -> None:
    (tmp_path / "odd.py").write_text("")
    with pytest.raises(AssertionError, match=r"greentask\.odd has no place in LAYERS"):
        breaches(find_modules(tmp_path))
