"""A server of a module that a test may write anew, and have it reload."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.reloaded import write_module
from support.servers import RunningServer, serving


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RunningServer]:
    write_module(tmp_path, 1)
    with serving(apps=["mine"], cwd=tmp_path) as server:
        yield server
        assert "Traceback" not in server.output()
