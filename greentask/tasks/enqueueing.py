"""How what is enqueued is to run, as Python says it: made into what the wire carries, with a word on what is wrong."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from datetime import datetime
from typing import Any

from ..wire.enqueue import Enqueue, EnqueueOptions
from .checks import in_seconds
from .options import refuse_unknown
from .steps import wire_chain

__all__ = ["with_options"]

_SECONDS = ("delay", "ttl", "key_ttl")


def with_options(before: Enqueue | None, options: EnqueueOptions, also: Iterable[str] = ()) -> Enqueue:
    """These options, over those from before. ``also`` are other options of whoever was given these.

    Raises ``TypeError`` naming one that there isn't, ``ValueError`` for what one can't be.
    """
    given: dict[str, Any] = dict(options)
    refuse_unknown("using()", given, EnqueueOptions.__annotations__, also)
    for name in _SECONDS:
        if name in given:
            given[name] = in_seconds(given[name])
    at = given.get("at")
    if isinstance(at, datetime):
        if at.tzinfo is None:
            raise ValueError(f"at={at} has no timezone: give datetime.now(timezone.utc) + …")
        given["at"] = at.timestamp()
    if given.get("then") is not None:
        given["then"] = wire_chain(given["then"])
    made = replace(before or Enqueue(), **given)
    if made.key_ttl is not None and made.key is None:
        raise ValueError(f"key_ttl={made.key_ttl:g} is for how long a key holds: it goes with key=")
    return made
