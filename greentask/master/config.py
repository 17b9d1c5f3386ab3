"""What ``greentask serve`` was told: made once by the command line, and sent to each front."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from ..hub.files import TLSFiles
from ..pool.cpus import processors
from ..pool.processes import DEFAULT_GRACE
from ..queue.limits import (
    DEFAULT_DEAD_LIMIT,
    DEFAULT_GREENLETS,
    DEFAULT_KEEP_ATTEMPTS,
    DEFAULT_KEY_TTL,
    DEFAULT_LEASE,
    DEFAULT_MAX_BATCH,
    DEFAULT_MAX_LOST_FRONTS,
    DEFAULT_MAX_LOST_PROCESSES,
    DEFAULT_MAX_MEMBERS,
    DEFAULT_MAX_TAKEN,
    DEFAULT_MEMORY,
    DEFAULT_RESULT_TTL,
)
from ..server.groups import Group
from ..server.limits import DEFAULT_DRAIN, DEFAULT_MAX_HOLD, Limits
from ..tasks.processes import DEFAULT_START, DEFAULT_TEARDOWN

__all__ = ["ServeConfig"]


@dataclass(frozen=True, slots=True)
class ServeConfig:
    """The options of ``greentask serve`` that a front needs. Paths of secrets are in here, secrets are not.

    ``processes`` and the sizes of ``groups`` are those of all fronts together.
    """

    apps: tuple[str, ...]
    listen: tuple[str, ...] = ()
    fronts: int = 1
    processes: int | None = None
    in_processes: tuple[str, ...] = ()
    max_memory: int | None = None
    max_tasks: int | None = None
    groups: Mapping[str, Group] = field(default_factory=dict)
    grace: float = DEFAULT_GRACE
    drain_timeout: float = DEFAULT_DRAIN
    start_timeout: float = DEFAULT_START
    max_running: Mapping[str, int] = field(default_factory=dict)
    middleware: tuple[str, ...] = ()
    metrics: str | None = None
    teardown_timeout: float = DEFAULT_TEARDOWN
    cancel_abandoned: bool = False
    max_hold: float = DEFAULT_MAX_HOLD
    hide_arguments: bool = False
    log_calls: bool = False
    queue: str | None = None
    queue_greenlets: int = DEFAULT_GREENLETS
    queue_lease: float = DEFAULT_LEASE
    queue_memory: int = DEFAULT_MEMORY
    result_ttl: float = DEFAULT_RESULT_TTL
    key_ttl: float = DEFAULT_KEY_TTL
    dead_limit: int = DEFAULT_DEAD_LIMIT
    max_batch: int = DEFAULT_MAX_BATCH
    max_lost_fronts: int = DEFAULT_MAX_LOST_FRONTS
    max_lost_processes: int = DEFAULT_MAX_LOST_PROCESSES
    max_members: int = DEFAULT_MAX_MEMBERS
    max_taken: int = DEFAULT_MAX_TAKEN
    keep_attempts: int = DEFAULT_KEEP_ATTEMPTS
    secret_file: str | None = None
    tls_cert: str | None = None
    tls_key: str | None = None
    tls_client_ca: str | None = None
    allow: tuple[str, ...] = ()
    insecure: bool = False
    debug: bool = False
    log_file: str | None = None
    log_format: str = "text"
    limits: Limits = field(default_factory=Limits)

    @property
    def tls(self) -> TLSFiles | None:
        """The files of ``tls://`` addresses; None where none was named."""
        files = TLSFiles(self.tls_cert, self.tls_key, self.tls_client_ca)
        return files if files.paths else None

    def for_front(self, number: int) -> ServeConfig:
        """As the front of that number (from 0) gets it: with its share of the task processes, at least one."""
        if self.fronts == 1:
            return self
        groups = {
            name: replace(group, processes=self._share(group.processes, number)) for name, group in self.groups.items()
        }
        return replace(self, processes=self._share(self.processes, number), groups=groups)

    def _share(self, processes: int | None, number: int) -> int:
        share, rest = divmod(processors() if processes is None else processes, self.fronts)
        return max(1, share + (number < rest))

    def with_processes(self, processes: int) -> ServeConfig:
        """The same, with so many task processes of the default group in all."""
        return replace(self, processes=processes)

    def on(self, addresses: Iterable[str]) -> ServeConfig:
        """The same, on the addresses that it really has."""
        return replace(self, listen=tuple(addresses))

    def to_json(self) -> dict[str, Any]:
        """As an object that JSON carries."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ServeConfig:
        """What ``to_json`` gave."""
        given: dict[str, Any] = {name: tuple(item) if isinstance(item, list) else item for name, item in value.items()}
        given["limits"] = Limits(**given["limits"])
        given["groups"] = {name: Group(**group) for name, group in given["groups"].items()}
        return cls(**given)
