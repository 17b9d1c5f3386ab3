"""A PostgreSQL of our own, in a temporary folder, which ends with the tests that use it."""

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support.parts import require


def _folder_of_programs() -> Path | None:
    """Where initdb and pg_ctl are; Debian has them outside PATH, in a folder for each version."""
    found = shutil.which("pg_ctl")
    folders = [Path(found).parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom it runs as, since it refuses to run as root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    return None


class Postgres:
    """A server that listens at a Unix socket only. Databases have no password."""

    def __init__(self, programs: Path, folder: Path) -> None:
        self.folder = folder
        self._programs = programs
        self._owner = _unprivileged()
        if self._owner is not None:
            os.chown(folder, self._owner.pw_uid, self._owner.pw_gid)
        self._run(
            "initdb", "--pgdata", f"{folder}/data", "--username=tester", "--auth=trust", "--no-sync", "-E", "UTF8"
        )

    def dsn(self, database: str = "postgres") -> str:
        return f"postgresql://tester@/{database}?host={self.folder}"

    def start(self) -> None:
        options = f"-c listen_addresses= -k {self.folder} -c fsync=off -c max_connections=50"
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-o", options, "-l", f"{self.folder}/log", "-w", "start")

    def stop(self) -> None:
        """End it at once, as where its machine goes down: connections break."""
        self._run("pg_ctl", "-D", f"{self.folder}/data", "-m", "immediate", "-w", "stop")

    def _run(self, program: str, *arguments: str) -> None:
        who = {} if self._owner is None else {"user": self._owner.pw_uid, "group": self._owner.pw_gid}
        subprocess.run(
            [str(self._programs / program), *arguments],
            check=True,
            cwd=self.folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=None,
            timeout=60,
            **who,  # type: ignore[arg-type]
        )


@contextmanager
def running_postgres() -> Iterator[Postgres]:
    """A server, which is started; it has one database, postgres."""
    programs = _folder_of_programs()
    require(programs is not None, "no PostgreSQL here (on Debian: apt-get install postgresql)")
    assert programs is not None
    with tempfile.TemporaryDirectory(prefix="greentask-pg-") as folder:
        postgres = Postgres(programs, Path(folder))
        postgres.start()
        try:
            yield postgres
        finally:
            postgres.stop()
