"""CPython's own tests, for a Python that comes without them: those that Debian has for the same version.

Preloaded in task processes as well, where the functions of those tests have to be found.
"""

import importlib
import sys
from collections.abc import Iterator
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
