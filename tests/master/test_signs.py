"""What others are told of how the master is."""

import resource
import socket
from pathlib import Path

import pytest

from greentask.master.signs import Notifier


def test_a_want_of_descriptors_keeps_nobody_from_stopping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.setblocking(False)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        notifier = Notifier()
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))  # what is open stays open, and nothing is opened
        try:
            notifier.stopping()
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        notifier.ready("serves")
        assert systemd.recv(1000).startswith(b"READY=1")
