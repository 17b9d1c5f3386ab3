"""A server's disk that takes its time, so that it is seen what leaves before a sync is over.

A small library, which is loaded before libc, tells when each sync of a queue's log began and ended, and holds it for a
while, or for as long as it is told to.
"""

import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from support.parts import require

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static void tell(const char *folder, const char *what) {
    char path[4096], line[100];
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    snprintf(path, sizeof path, "%s/syncs", folder);
    int size = snprintf(line, sizeof line, "%s %ld %lld.%09ld\n", what, (long)syscall(SYS_gettid),
                        (long long)now.tv_sec, now.tv_nsec);
    int fd = open(path, O_WRONLY | O_APPEND | O_CREAT, 0666);
    if (write(fd, line, size) != size) abort();
    close(fd);
}

static int held(const char *name, int fd) {
    int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, name);
    const char *folder = getenv("HELD_SYNC");
    char link[64], path[4096];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, sizeof path - 1);
    path[size < 0 ? 0 : size] = 0;
    if (folder == NULL || size < 4 || strcmp(path + size - 4, "-wal") != 0) return real(fd);
    tell(folder, "began");
    snprintf(path, sizeof path, "%s/closed", folder);
    while (access(path, F_OK) == 0) usleep(1000);
    usleep(20000);
    int result = real(fd);
    tell(folder, "ended");
    return result;
}

int fdatasync(int fd) { return held("fdatasync", fd); }
int fsync(int fd) { return held("fsync", fd); }
"""


class Sync(NamedTuple):
    """When it began and ended, by the monotonic clock; infinity: not yet."""

    began: float
    ended: float


class HeldSync:
    """The syncs of the logs of the queues of all servers that are started with this environment."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        library, source = folder / "held.so", folder / "held.c"
        source.write_text(_SOURCE)
        try:
            subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
        except FileNotFoundError:
            require(False, "there is no C compiler")
        self.environment = {"LD_PRELOAD": str(library), "HELD_SYNC": str(folder)}

    def syncs(self) -> list[Sync]:
        """Those so far, in the order in which they began."""
        path = self.folder / "syncs"
        syncs: list[Sync] = []
        last: dict[str, int] = {}  # of each thread
        for line in path.read_text().splitlines() if path.exists() else ():
            what, thread, at = line.split()
            if what == "began":
                last[thread] = len(syncs)
                syncs.append(Sync(float(at), float("inf")))
            else:
                syncs[last[thread]] = syncs[last[thread]]._replace(ended=float(at))
        return syncs

    @contextmanager
    def closed(self) -> Iterator[None]:
        """While inside, no sync ends."""
        gate = self.folder / "closed"
        gate.touch()
        try:
            yield
        finally:
            os.unlink(gate)
