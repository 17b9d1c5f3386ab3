"""Parts of the machine that some tests need: a browser, netcat, PHP, another Python."""

import os

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
