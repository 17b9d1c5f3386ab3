"""What is the master's and lives on when a front dies: the listening sockets, and what else fronts have in common."""

from __future__ import annotations

import os
from dataclasses import replace

from gevent.socket import socket as GreenSocket

from ..server.listening import (
    SECRET_REMEDY,
    SocketFile,
    bound_address,
    check_address,
    check_tls_is_spoken,
    listen_for_metrics,
    listen_on,
    socket_files,
)
from ..server.shares import make_shares
from ..wire.address import Address, parse_addresses
from .config import ServeConfig

__all__ = ["Sockets"]


class Sockets:
    """Those that were passed on by systemd, and (after ``listen``) those of a configuration."""

    def __init__(
        self,
        inherited: list[tuple[GreenSocket, Address]],
        fronts: int,
        *,
        mode: int | None = None,
        owner: str | None = None,
    ) -> None:
        self._sockets = [sock for sock, _ in inherited]
        self._inherited = [address for _, address in inherited]
        self.addresses = list(map(str, self._inherited))  # with the ports that the kernel chose
        self._mode = mode
        self._owner = owner
        self._files: list[SocketFile] = []
        self._metrics: GreenSocket | None = None  # where they are read, of all fronts
        #: The descriptor in which fronts tell each other of their connections.
        self.shares = make_shares(fronts) if fronts > 1 else None

    @property
    def fds(self) -> list[int]:
        """The descriptors of those that are listened on for calls."""
        return [sock.fileno() for sock in self._sockets]

    @property
    def metrics_fd(self) -> int | None:
        """That of the one for metrics."""
        return None if self._metrics is None else self._metrics.fileno()

    @property
    def metrics_url(self) -> str | None:
        """Where metrics are read."""
        return (
            None if self._metrics is None else f"http://{str(bound_address(self._metrics)).partition('://')[2]}/metrics"
        )

    def listen(self, config: ServeConfig) -> None:
        """Take its addresses: who connects waits in the kernel's queue. Raises ``ConfigurationError``."""
        insecure = config.insecure or config.secret_file is not None
        for inherited in self._inherited:
            check_address(inherited, config.tls, insecure=insecure, remedy=SECRET_REMEDY)
        addresses = parse_addresses(config.listen) if config.listen else []
        check_tls_is_spoken([*self._inherited, *addresses], config.tls)
        if addresses:
            bound = listen_on(
                addresses,
                tls=config.tls,
                insecure=insecure,
                remedy=SECRET_REMEDY,
                socket_mode=self._mode,
                socket_owner=self._owner,
            )
            self._sockets += bound
            self._files = socket_files(bound)
            self.addresses += [
                str(replace(bound_address(sock), scheme=address.scheme)) for address, sock in zip(addresses, bound)
            ]
        if config.metrics is not None:
            self._metrics = listen_for_metrics(config.metrics, insecure=config.insecure)

    def close(self) -> None:
        """Give them up, with their files."""
        while self._files:
            self._files.pop().remove()
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        if self._metrics is not None:
            self._metrics.close()
            self._metrics = None
        if self.shares is not None:
            os.close(self.shares)
            self.shares = None
