#!/usr/bin/env python3
"""Set up what greentask needs in .venv beside this file, then run it.

    python3 run.py demo [options]    a tour of greentask (greentask demo [options])
    python3 run.py test [options]    its tests (pytest [options])

Needs Python 3.10 or newer and pip, and nothing else. The first run installs, later ones start at once.
"""

import sys

if sys.version_info < (3, 10):
    sys.exit("run.py: greentask needs Python 3.10 or newer, and this is %d.%d" % sys.version_info[:2])

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / "bin" / "python"
STAMP = VENV / "run.json"
BASE_PYTHON = getattr(sys, "_base_executable", None) or sys.executable  # not .venv's own


class Failure(Exception):
    """Setting up went wrong: what was being done, what the tools said, and what may help."""

    def __init__(self, what: str, output: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.output = output
        self.remedy = remedy


def main() -> None:
    command, args = parse(sys.argv[1:])
    try:
        with set_up_alone():
            set_up(command)
    except Failure as failure:
        say(failure.output.rstrip())
        sys.exit("run.py: %s. %s" % (failure.what, failure.remedy))
    except KeyboardInterrupt:
        sys.exit(130)
    start(command, args)


def parse(argv: "list[str]") -> "tuple[str, list[str]]":
    if argv and argv[0] in ("-h", "--help"):
        print((__doc__ or "").strip())
        sys.exit()
    if not argv or argv[0] not in ("demo", "test"):
        sys.exit((__doc__ or "").strip())
    return argv[0], argv[1:]


def start(command: str, args: "list[str]") -> None:
    """Become the program, so that signals go to it and its exit code is ours."""
    if command == "demo":
        line = [str(VENV / "bin" / "greentask"), "demo", *args]
    else:
        os.chdir(str(ROOT))
        line = [str(PYTHON), "-m", "pytest", *whole_suite_in_ci(args), *args]
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(line[0], line)


def whole_suite_in_ci(args: "list[str]") -> "list[str]":
    """In CI the tests that take longer or need more are run too, unless the command line chooses with -m."""
    chooses = any(arg.startswith("-m") for arg in args)
    if os.environ.get("CI", "").lower() not in ("1", "true") or chooses:
        return []
    say('run.py: CI is set, so every test is run, whatever its markers (pytest -m "")')
    return ["-m", ""]


# ---- Setting up


def set_up(extra: str) -> None:
    """Leave a .venv in which greentask is installed with this extra, and with those asked for earlier."""
    stamp = read_stamp()
    wanted = fingerprint()
    extras = sorted({extra, *stamp.get("extras", ())})
    if stamp == dict(wanted, extras=extras) and runs(PYTHON):
        return
    say("run.py: setting up .venv for `%s`, which takes up to a minute ..." % extra)
    if not usable(stamp, wanted):
        make_venv()
    write_stamp({"unfinished": True, "extras": extras})
    install("-e", ".[%s]" % ",".join(extras))
    write_stamp(dict(wanted, extras=extras))


def usable(stamp: "dict", wanted: "dict[str, str]") -> bool:
    """Whether the .venv that is there can be brought up to date; one without a stamp is somebody's own."""
    if stamp and any(stamp.get(key) != wanted[key] for key in ("python", "root")):
        return False  # made by another Python, or moved, or never finished
    same_version = "import sys; sys.exit(sys.version_info[:2] != (%d, %d))" % sys.version_info[:2]
    return runs(PYTHON, "-c", same_version) and runs(PYTHON, "-m", "pip", "--version")


def fingerprint() -> "dict[str, str]":
    """What .venv depends on: another value of any of these makes it out of date."""
    digest = hashlib.sha256()
    for name in ("setup.cfg", "pyproject.toml"):
        digest.update((ROOT / name).read_bytes() + b"\0")
    return {
        "files": digest.hexdigest(),
        "python": "%s in %s" % (sys.version.split("\n")[0], sys.base_prefix),
        "root": str(ROOT),
    }


def read_stamp() -> "dict":
    try:
        stamp = json.loads(STAMP.read_text())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(stamp: "dict") -> None:
    temporary = STAMP.with_suffix(".new")
    temporary.write_text(json.dumps(stamp, indent=2) + "\n")
    os.replace(str(temporary), str(STAMP))


@contextlib.contextmanager
def set_up_alone() -> "Iterator[None]":
    """Hold a lock on this file, so that two run.py at once don't build the same .venv."""
    with open(__file__, "rb") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("run.py: waiting for another run.py that is setting up .venv ...")
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError:
            pass  # a file system without locks
        yield


# ---- The virtual environment


def make_venv() -> None:
    """Make .venv anew with a pip in it, in whichever way this Python's installation allows."""
    said = []
    for way in (with_ensurepip, with_pip_from_outside, with_virtualenv):
        remove(VENV)
        VENV.mkdir()
        write_stamp({"unfinished": True})
        done = way()
        if done.returncode == 0 and runs(PYTHON, "-m", "pip", "--version"):
            return
        said.append(done.stdout)
    remove(VENV)
    raise Failure(
        "could not make a virtual environment",
        "\n".join(said),
        "Install pip or venv for this Python (on Debian: apt-get install python3-venv), then run this again.",
    )


def with_ensurepip() -> "subprocess.CompletedProcess[str]":
    return run(BASE_PYTHON, "-m", "venv", str(VENV))


def with_pip_from_outside() -> "subprocess.CompletedProcess[str]":
    """Debian without python3-venv: this Python's own pip (22.3 or newer) puts a pip into an empty venv."""
    bare = run(BASE_PYTHON, "-m", "venv", "--without-pip", str(VENV))
    if bare.returncode != 0:
        return bare
    return run(BASE_PYTHON, "-m", "pip", "--python", str(PYTHON), "install", "pip")


def with_virtualenv() -> "subprocess.CompletedProcess[str]":
    """An older pip: virtualenv, which brings a pip along, from a folder that's thrown away afterwards."""
    with tempfile.TemporaryDirectory(prefix="greentask-") as folder:
        got = run(BASE_PYTHON, "-m", "pip", "install", "--target", folder, "virtualenv")
        if got.returncode != 0:
            return got
        return run(BASE_PYTHON, "-m", "virtualenv", str(VENV), PYTHONPATH=folder)


def install(*what: str) -> None:
    done = run(str(PYTHON), "-m", "pip", "install", *what)
    if done.returncode != 0:
        raise Failure(
            "pip could not install greentask",
            done.stdout,
            "See what pip says above (the network? its index? the disk?), then run this again.",
        )


def runs(python: Path, *args: str) -> bool:
    try:
        return run(str(python), *(args or ("-c", "pass"))).returncode == 0
    except OSError:
        return False


def run(*line: str, **variables: str) -> "subprocess.CompletedProcess[str]":
    """Run a tool with its output kept, and without the settings of pip that don't fit a venv."""
    env = dict(os.environ, PIP_DISABLE_PIP_VERSION_CHECK="1", **variables)
    for name in ("PIP_USER", "PIP_TARGET", "PIP_PREFIX", "PIP_REQUIRE_VIRTUALENV", "PYTHONHOME"):
        env.pop(name, None)
    return subprocess.run(
        list(line),
        cwd=str(ROOT),
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        universal_newlines=True,
        errors="replace",
    )


def remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    elif path.exists():
        shutil.rmtree(str(path))


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
