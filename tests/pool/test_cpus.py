"""How many processors are taken into account: those that we may use, and no more than a container's quota."""

import contextlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from greentask.pool.cpus import processors
from support.parts import require
from support.programs import environment

HERE = len(os.sched_getaffinity(0))
_V1 = Path("/sys/fs/cgroup/cpu")
_V2 = Path("/sys/fs/cgroup")


@pytest.fixture
def many(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with 16 processors."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(16)))


def proc(folder: Path, cgroup: str, *mounts: str) -> str:
    """As the kernel tells of a process in `/proc/self`."""
    (folder / "cgroup").write_text(cgroup)
    other = "22 1 0:20 / /proc rw,nosuid - proc proc rw\n23 1 8:1 / / rw shared:1 master:2 - ext4 /dev/sda1 rw\n"
    (folder / "mountinfo").write_text(other + "".join(f"31 23 0:28 {mount}\n" for mount in mounts))
    return str(folder)


def put(folder: Path, **files: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / f"cpu.{name}").write_text(f"{text}\n")
    return folder


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),  # rounded up
        ("10000 100000", 1),
        ("50000 25000", 2),
        ("6400000 100000", 16),
        ("max 100000", 16),
        ("", 16),
        ("0 0", 16),
    ],
)
def test_the_quota_of_a_container_counts(tmp_path: Path, many: None, text: str, count: int) -> None:
    top = put(tmp_path / "mounted", max=text)
    assert processors(proc(tmp_path, "0::/\n", f"/ {top} rw - cgroup2 cgroup2 rw,nsdelegate")) == count


@pytest.mark.parametrize(("quota", "count"), [("-1", 16), ("250000", 3), ("100", 1)])
def test_so_does_that_of_the_first_version(tmp_path: Path, many: None, quota: str, count: int) -> None:
    top = put(tmp_path / "cpu,cpuacct", cfs_quota_us=quota, cfs_period_us="100000")
    memory = put(tmp_path / "memory", cfs_quota_us="1", cfs_period_us="1")  # another controller's
    told = proc(
        tmp_path,
        "5:memory:/docker/5\n4:cpu,cpuacct:/docker/5\n1:name=systemd:/docker/5\n0::/\n",
        f"/docker/5 {memory} ro master:9 - cgroup cgroup rw,memory",
        f"/docker/5 {top} ro master:11 - cgroup cgroup rw,cpu,cpuacct",
    )
    assert processors(told) == count


def test_the_smallest_quota_of_those_above_it_counts(tmp_path: Path, many: None) -> None:
    top = put(tmp_path / "a group", max="400000 100000")
    put(put(top / "pod", max="300000 100000") / "container", max="max 100000")
    mount = f"/ {str(top).replace(' ', chr(92) + '040')} rw - cgroup2 none rw"
    assert processors(proc(tmp_path, "0::/pod/container\n", mount)) == 3
    assert processors(proc(tmp_path, "0::/elsewhere\n", mount)) == 4
    assert processors(proc(tmp_path, "0::/\n", mount.replace("/ ", "/other ", 1))) == 16, "it is not to be seen"


def test_without_cgroups_the_affinity_counts(tmp_path: Path, many: None) -> None:
    assert processors(str(tmp_path / "nothing")) == 16
    assert processors(proc(tmp_path, "")) == 16
    assert processors(proc(tmp_path, "none\n", "none")) == 16


def test_a_real_quota_counts_for_a_real_process() -> None:
    is_first = (_V1 / "cpu.cfs_quota_us").exists()
    has_second = (_V2 / "cgroup.controllers").exists() and "cpu" in (_V2 / "cgroup.subtree_control").read_text()
    require(os.geteuid() == 0 and (is_first or has_second) and HERE > 1, "needs to make cgroups, and two processors")
    folder = (_V1 if is_first else _V2) / f"greentask-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        require(False, f"no cgroup can be made here ({error.strerror})")
    try:
        if is_first:
            (folder / "cpu.cfs_quota_us").write_text("60000")
        else:
            (folder / "cpu.max").write_text("60000 100000")
        program = (
            "import os, sys; open(sys.argv[1], 'w').write(str(os.getpid())); "
            "from greentask.pool.cpus import processors; print(processors())"
        )
        done = subprocess.run(
            [sys.executable, "-c", program, str(folder / "cgroup.procs")],
            capture_output=True,
            text=True,
            env=environment(),
            timeout=60,
        )
        assert (done.stdout, done.stderr) == ("1\n", "")
    finally:
        with contextlib.suppress(OSError):
            folder.rmdir()
    assert 1 <= processors() <= HERE
