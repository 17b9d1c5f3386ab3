"""Files of secrets, and files that are replaced while a program runs."""

import logging
import os
from pathlib import Path

import pytest

from greentask.errors import ConfigurationError
from greentask.hub.files import Renewed, read_secrets
from greentask.wire.proof import Secrets
from support.proofs import OTHER, SECRET, secret_file


def refusal(path: Path) -> str:
    with pytest.raises(ConfigurationError) as caught:
        read_secrets(str(path))
    told = str(caught.value)
    assert str(path) in told
    assert "\n" not in told
    assert SECRET not in told
    return told


# ---- Secret files


def test_one_secret_a_line_without_blanks_and_comments(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "# since June", "", f"  {SECRET}\t\r", "   ", f"#{OTHER}", OTHER, "a" * 16)
    assert read_secrets(str(path)) == Secrets([SECRET, OTHER, "a" * 16])


def test_the_last_line_needs_no_newline(tmp_path: Path) -> None:
    path = secret_file(tmp_path)
    path.write_bytes(SECRET.encode())
    assert read_secrets(str(path)) == Secrets([SECRET])


@pytest.mark.parametrize("mode", [0o600, 0o400, 0o640, 0o440])
def test_the_owner_s_and_perhaps_the_group_s(tmp_path: Path, mode: int) -> None:
    read_secrets(str(secret_file(tmp_path, mode=mode)))


@pytest.mark.parametrize("mode", [0o644, 0o604, 0o602, 0o660, 0o620, 0o601])
def test_everybody_s_file_has_no_secrets(tmp_path: Path, mode: int) -> None:
    told = refusal(secret_file(tmp_path, mode=mode))
    assert f"mode {mode:04o}" in told
    assert "chmod 600" in told


def test_a_file_that_is_not_there_says_how_to_make_one(tmp_path: Path) -> None:
    assert "openssl rand -hex 32 > " in refusal(tmp_path / "none")
    assert "Is a directory" in refusal(tmp_path)


def test_an_empty_file_and_one_of_comments(tmp_path: Path) -> None:
    path = secret_file(tmp_path, "# " + SECRET, "")
    assert "has no secret in it" in refusal(path)
    path.write_bytes(b"")
    assert "has no secret in it" in refusal(path)


def test_a_short_secret_is_named_by_its_line(tmp_path: Path) -> None:
    told = refusal(secret_file(tmp_path, "# x", SECRET, "hunter2hunter2x"))
    assert "line 3" in told
    assert "15 bytes" in told
    assert "hunter" not in told


def test_a_large_file_is_another_one(tmp_path: Path) -> None:
    assert "another file" in refusal(secret_file(tmp_path, "x" * 65_536))


# ---- Renewal


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def number_in(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"no number: {error}") from None


def replace(path: Path, text: str) -> None:
    new = path.with_suffix(".new")
    new.write_text(text)
    os.replace(new, path)


def test_a_file_that_changed_is_loaded_anew_at_most_once_a_second(tmp_path: Path) -> None:
    path, clock = tmp_path / "number", Clock()
    path.write_text("1")
    loads: list[int] = []

    def load() -> int:
        loads.append(number_in(path))
        return loads[-1]

    renewed = Renewed([str(path)], load, clock)
    replace(path, "2")
    clock.now = 0.9
    assert renewed.get() == 1
    clock.now = 1.0
    assert renewed.get() == 2
    for clock.now in (2.0, 3.0, 4.0):
        assert renewed.get() == 2
    assert loads == [1, 2], "it was loaded only when it had changed"
    path.write_text("30")
    clock.now = 5.0
    assert renewed.get() == 30, "and written in place"


def test_a_file_that_can_not_be_used_leaves_the_old_and_is_logged_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path, clock = tmp_path / "number", Clock()
    path.write_text("1")
    renewed = Renewed([str(path)], lambda: number_in(path), clock)
    replace(path, "x")
    with caplog.at_level(logging.WARNING):
        for clock.now in (1.0, 2.0, 3.0):
            assert renewed.get() == 1
        assert len(caplog.records) == 1
        assert "what was loaded before stays in use: no number" in caplog.text
        path.unlink()
        for clock.now in (4.0, 5.0, 6.0):
            assert renewed.get() == 1
        assert len(caplog.records) == 2
    path.write_text("4")
    clock.now = 7.0
    assert renewed.get() == 4


def test_at_first_it_has_to_be_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError):
        Renewed([str(tmp_path / "none")], lambda: number_in(tmp_path / "none"))
