"""The client that a decorated function's ``.call`` uses unless it is told another."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from ..hub.home import allocate_rlock
from ..tasks.remote import provide_default_caller
from .client import Client

__all__ = ["configure", "default_client", "replaced_default"]

_lock = allocate_rlock()  # guards _client: two threads must not make it at once
_client: Client | None = None


def configure(address: str | Iterable[str] | Client, **options: Any) -> Client:
    """Say which server tasks are called on: an address with ``Client``'s options, or a client. Returns the client.

    Without it, it is the environment's ``GREENTASK_URL`` (with the secret in the file that ``GREENTASK_SECRET_FILE``
    names, if it does), or else 127.0.0.1:12345.
    """
    global _client
    if isinstance(address, Client) and options:
        raise TypeError(f"a client has its options already: {', '.join(options)}")
    client = address if isinstance(address, Client) else Client(address, **options)
    with _lock:
        _client = client
    return client


def default_client() -> Client:
    """The client that was configured, or one for ``GREENTASK_URL``, or for 127.0.0.1:12345."""
    global _client
    if (client := _client) is not None:
        return client
    with _lock:
        if _client is None:
            _client = Client()
        return _client


provide_default_caller(default_client)  # itself, in place of somebody who has to import it for each call


@contextmanager
def replaced_default(client: Client) -> Iterator[None]:
    """While inside, this is the default client; then it is what it was before, even if that was nothing yet."""
    global _client
    with _lock:
        before, _client = _client, client
    try:
        yield
    finally:
        with _lock:
            _client = before


def _after_fork() -> None:
    global _lock
    _lock = allocate_rlock()  # it may have been held by a thread that isn't there


os.register_at_fork(after_in_child=_after_fork)
