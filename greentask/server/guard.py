"""``Guard``: nobody calls who does not prove that he knows a secret."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable

import gevent

from ..errors import Unauthenticated
from ..wire.proof import MAX_PROOF_LINE, Secrets, ServerProof
from ..wire.reply import error_member, line
from .attempts import Attempts
from .connection import LineConnection
from .limits import Limits

__all__ = ["Guard"]

logger = logging.getLogger(__name__)


class Guard:
    """Asks each connection for the proof, and sends away who fails; for a while also everybody of that origin.

    ``refused`` counts the connections that were sent away.
    """

    def __init__(self, secrets: Callable[[], Secrets], limits: Limits) -> None:
        self.refused = 0
        self._secrets = secrets
        self._limits = limits
        self._attempts = Attempts(limits.max_failures)
        self._waiting: set[LineConnection] = set()

    def admit(self, connection: LineConnection) -> list[bytes] | None:
        """The lines that came behind the proof; None for a connection that is to be closed, and has been told why."""
        self._waiting.add(connection)
        connection.max_line = MAX_PROOF_LINE
        try:
            lines = self._ask(connection)
        except Unauthenticated as error:
            self.refused += 1
            connection.send(line(None, error_member(error)))
            connection.finish()
            return None
        finally:
            self._waiting.discard(connection)
            connection.max_line = self._limits.max_line
        return lines

    def close(self) -> None:
        """Send away who has not proven himself by now."""
        for connection in list(self._waiting):
            connection.end_reading()

    def _ask(self, connection: LineConnection) -> list[bytes] | None:
        self._check_attempts(connection)
        proof = ServerProof(self._secrets())
        connection.send(proof.greeting)
        within = self._limits.handshake_timeout
        lines = gevent.with_timeout(within, _read_some, connection, timeout_value=[])
        if lines is None and not (connection.pending or connection.fault):
            return None  # it has only looked whether somebody is here
        if lines is not None and not lines:
            raise Unauthenticated(f"no proof came within {within:g} s (handshake_timeout)")
        # Once more: many attempts may have come at once, and have failed while this one was on its way.
        self._check_attempts(connection)
        first, *rest = lines or [b""]
        try:
            connection.send(proof.answer(first))
        except Unauthenticated as error:
            self._failed(connection, error)
            raise
        return rest

    def _check_attempts(self, connection: LineConnection) -> None:
        wait = self._attempts.wait(connection.origin, time.monotonic())
        if wait:
            raise Unauthenticated(f"too many proofs from your address were wrong: try again in {math.ceil(wait)} s")

    def _failed(self, connection: LineConnection, error: Unauthenticated) -> None:
        now = time.monotonic()
        self._attempts.failed(connection.origin, now)
        logger.warning("the connection from %s is refused: %s", connection.peer, error)
        if self._attempts.wait(connection.origin, now):
            logger.warning(
                "further connections from %s are refused unheard until a proof may be tried again", connection.origin
            )


def _read_some(connection: LineConnection) -> list[bytes] | None:
    while (lines := connection.read()) is not None and not lines:
        pass
    return lines
