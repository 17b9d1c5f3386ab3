"""``app.conf``: the settings that a Celery application may have here."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from .missing import refuse_setting

__all__ = ["Conf"]

_JSON = frozenset({"json", "application/json"})


def _is_json(value: Any) -> bool:
    return value in _JSON if isinstance(value, str) else bool(_JSON.intersection(value))


#: Settings that do something here, with what they are unless told otherwise.
_KEPT: dict[str, Any] = {
    "broker_url": None,
    "task_always_eager": False,
    "task_eager_propagates": False,
    "task_track_started": False,
    "include": (),
    "imports": (),
}
#: Settings that ask for what is so in any case, or for what is about a broker, which there isn't.
_HARMLESS = frozenset(
    {
        "accept_content",
        "broker_connection_retry_on_startup",
        "enable_utc",
        "result_accept_content",
        "result_backend",
        "result_expires",
        "result_serializer",
        "task_ignore_result",
        "task_send_sent_event",
        "task_serializer",
        "task_store_eager_result",
        "timezone",
        "worker_send_task_events",
    }
)
_SERIALIZERS = frozenset({"accept_content", "result_accept_content", "result_serializer", "task_serializer"})


class Conf:
    """Settings, by attribute or key. One that greentask has not raises ``NotCarriedOver``, with the remedy.

    >>> conf = Conf()
    >>> conf.update(task_serializer="json", task_always_eager=True)
    >>> conf.task_always_eager
    True
    """

    def __init__(self) -> None:
        object.__setattr__(self, "_set", {})

    def update(self, settings: Mapping[str, Any] | None = None, **more: Any) -> None:
        """Set several."""
        for name, value in {**(settings or {}), **more}.items():
            self[name] = value

    def load(self, source: Any, namespace: str | None = None) -> None:
        """Take them from a module or object, or its name; with ``namespace`` those that begin with ``NAMESPACE_``."""
        if isinstance(source, str):
            module, _, attribute = source.partition(":")
            source = importlib.import_module(module)
            source = getattr(source, attribute) if attribute else source
        beginning = "" if namespace is None else f"{namespace.upper()}_"
        names = [
            name for name in (source if isinstance(source, Mapping) else dir(source)) if name.startswith(beginning)
        ]
        for name in names:  # and no others are looked at: Django's settings may complain of that
            value = source[name] if isinstance(source, Mapping) else getattr(source, name)
            if namespace is not None:
                self[name.removeprefix(beginning).lower()] = value
            elif not (name.startswith("_") or inspect.ismodule(value) or callable(value)):
                self[name] = value

    def __contains__(self, name: object) -> bool:
        """Whether it is a setting that one may have here."""
        return name in _KEPT or name in _HARMLESS

    def __setitem__(self, name: str, value: Any) -> None:
        if name not in self:
            raise refuse_setting(name)
        if name in _SERIALIZERS and not _is_json(value):
            raise refuse_setting(f"{name} = {value!r}")
        self._set[name] = value

    def __getitem__(self, name: str) -> Any:
        if name in self._set:
            return self._set[name]
        if name in _KEPT:
            return _KEPT[name]
        raise refuse_setting(name)

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self[name]
