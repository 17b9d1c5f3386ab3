"""CPython's own tests, for a Python that comes without them: those that Debian has for the same version.

Preloaded in task processes as well, where the functions of those tests have to be found.
"""

import importlib
import sys
import unittest
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any

import test

PACKAGE = "test.test_concurrent_futures"

#: Debian's package libpython3.N-testsuite.
DEBIANS = Path(f"/usr/lib/python{sys.version_info[0]}.{sys.version_info[1]}/test")
_OWN = Path(test.__path__[0])

if not any((_OWN / name).exists() for name in ("test_concurrent_futures", "test_concurrent_futures.py")):
    test.__path__.append(str(DEBIANS))


def modules(name: str) -> Iterator[Any]:
    """Where the tests of one kind may be: in Python 3.13 they are a package, before that they were one module."""
    for path in (f"{PACKAGE}.{name}", PACKAGE):
        try:
            yield importlib.import_module(path)
        except ImportError:
            continue


def find(module: str, name: str) -> Any:
    """A class of tests; None where it is not there."""
    return next((found for one in modules(module) if (found := getattr(one, name, None)) is not None), None)


def cases(
    classes: Iterable[tuple[str, str]], mixin: type, not_ours: Collection[str], **attributes: object
) -> Iterator[tuple[Any, str]]:
    """The tests of these classes, each with its class as it is with the mixin; one that several have is there once.

    ``attributes`` are in place of those that the classes have themselves.
    """
    found = set(not_ours)
    for module, name in classes:
        tests = find(module, name)
        if tests is None:
            continue
        case = type(name, (tests, mixin, unittest.TestCase), {"__module__": mixin.__module__, **attributes})
        for method in unittest.defaultTestLoader.getTestCaseNames(case):
            if method not in found:
                found.add(method)
                yield case, method


def run(case: Any, method: str) -> None:
    """Run one of them: it passes."""
    result = unittest.TestResult()
    case(method).run(result)
    assert not result.errors, result.errors[0][1]
    assert not result.failures, result.failures[0][1]
    assert not result.skipped, result.skipped[0][1]
    assert result.testsRun == 1
