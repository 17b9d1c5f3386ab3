"""Namespaces of processes, mounts and networks, as containers have them: made by unshare(1), where that is allowed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from support.conditions import wait_until

__all__ = ["ALONE", "Cable", "cable", "can_have_a_cable", "can_unshare"]

ALONE = ("unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def can_unshare() -> bool:
    """Whether it is (to root, on a machine of its own, and not inside of most containers)."""
    return shutil.which("unshare") is not None and subprocess.run([*ALONE, "true"], capture_output=True).returncode == 0


# ---- A network of its own, behind a cable


class Cable:
    """Between this network and one of a holder's own. It can be pulled: then packets vanish, both ways and in silence.

    What is in `inside` runs a command behind it, where its address is `there`.
    """

    def __init__(self, holder: int) -> None:
        number = os.getpid() % 2**14 * 4  # this process has four addresses, of those that are for tests (RFC 2544)
        self.here, self.there = (f"198.18.{number // 256}.{number % 256 + host}" for host in (1, 2))
        self.inside = ("nsenter", f"--net=/proc/{holder}/ns/net")
        self._near, self._far = f"gt{holder}a", f"gt{holder}b"
        _ip("link", "add", self._near, "type", "veth", "peer", "name", self._far)
        _ip("link", "set", self._far, "netns", str(holder))
        for inside, own, end in ((), self.here, self._near), (self.inside, self.there, self._far):
            _ip("addr", "add", f"{own}/30", "dev", end, inside=inside)
            _ip("link", "set", end, "up", inside=inside)
        self._hardware = (_hardware(self._near), _hardware(self._far, self.inside))
        self.plug_in()

    def pull(self) -> None:
        """From now on each side sends to a card that nobody has."""
        self._send_to("02:00:00:00:00:99", "02:00:00:00:00:99")

    def plug_in(self) -> None:
        self._send_to(*self._hardware)

    def _send_to(self, near: str, far: str) -> None:
        for inside, other, card, end in (
            ((), self.there, far, self._near),
            (self.inside, self.here, near, self._far),
        ):
            _ip("neigh", "replace", other, "lladdr", card, "dev", end, "nud", "permanent", inside=inside)


def can_have_a_cable() -> bool:
    """Whether one can be made here: to root, with unshare(1), nsenter(1) and ip(8), where there is a kind for it."""
    try:
        with cable():
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


@contextmanager
def cable() -> Iterator[Cable]:
    """A network that is there while inside; what runs in it then is its user's to end, and takes the rest along."""
    holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"], stderr=subprocess.DEVNULL)
    try:
        own = os.stat("/proc/self/ns/net").st_ino

        def has_network() -> bool:
            with suppress(FileNotFoundError):
                if os.stat(f"/proc/{holder.pid}/ns/net").st_ino != own:
                    return True
            return holder.poll() is not None

        wait_until(has_network, "there is a network")
        yield Cable(holder.pid)
    finally:
        holder.kill()
        holder.wait()


def _ip(*arguments: str, inside: tuple[str, ...] = ()) -> str:
    done = subprocess.run([*inside, "ip", *arguments], capture_output=True, text=True, check=True)
    return done.stdout


def _hardware(end: str, inside: tuple[str, ...] = ()) -> str:
    words = _ip("-o", "link", "show", end, inside=inside).split()
    return words[words.index("link/ether") + 1]
