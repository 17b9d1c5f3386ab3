"""Parts of the machine that some tests need: a browser, netcat, PHP, namespaces, another Python."""

import os
import resource
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


def in_ci() -> bool:
    return os.environ.get("CI", "").lower() in ("1", "true")


def require(condition: object, reason: str) -> None:
    """Go on only if the condition holds: else skip here, but fail in CI, where every part has to be there."""
    if condition:
        return
    if in_ci():
        pytest.fail(f"{reason} (CI has to have it)", pytrace=False)
    pytest.skip(reason)


@contextmanager
def descriptors(count: int) -> Iterator[None]:
    """Let this process, and those that it starts, have so many descriptors open; else as `require` does."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    require(hard >= count, f"needs {count} file descriptors, and {hard} are allowed (ulimit -Hn)")
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
