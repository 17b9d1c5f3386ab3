"""Arguments as they come from the wire, bound to a function's parameters and checked before it runs."""

from __future__ import annotations

import inspect
import keyword
import math
from collections.abc import Callable
from typing import Any

from ..errors import InvalidArguments

__all__ = ["Binder"]

_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
_NAMED = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


class Binder:
    """Binds arguments to one function's signature.

    A key that is a Python keyword (``from``) binds to the parameter of that name with an underscore behind it
    (``from_``), or goes into ``**kwargs`` unchanged.
    """

    __slots__ = ("_fewest", "_most", "_named", "_nameless", "_renamed", "_required", "_signature", "_variadic", "text")

    def __init__(self, function: Callable[..., Any], name: str) -> None:
        try:
            self._signature: inspect.Signature | None = inspect.signature(function)
        except (ValueError, TypeError):  # a builtin that doesn't tell
            self._signature = None
        self.text = f"{name}{self._signature or '(…)'}"
        parameters = self._signature.parameters.values() if self._signature else ()
        self._named = {p.name for p in parameters if p.kind in _NAMED}
        self._nameless = [p.name for p in parameters if p.kind is p.POSITIONAL_ONLY and p.default is p.empty]
        self._variadic = any(p.kind is p.VAR_KEYWORD for p in parameters)
        self._renamed = frozenset(key for key in keyword.kwlist if key + "_" in self._named or not self._variadic)
        self._required = {
            p.name for p in parameters if p.kind in (*_POSITIONAL, p.KEYWORD_ONLY) and p.default is p.empty
        }
        # How many arguments may be passed by position, where that is all there is to know.
        places = [p for p in parameters if p.kind in _POSITIONAL]
        by_name_only = any(p.kind is p.KEYWORD_ONLY and p.default is p.empty for p in parameters)
        self._fewest: int | None = None
        if self._signature and not by_name_only:
            self._fewest = sum(p.default is p.empty for p in places)
        self._most = math.inf if any(p.kind is p.VAR_POSITIONAL for p in parameters) else len(places)

    def bind(self, args: dict[str, Any] | list[Any] | None) -> tuple[list[Any], dict[str, Any]]:
        """Positional and keyword arguments to call the function with.

        Raises ``InvalidArguments`` naming the signature and what doesn't fit.
        """
        if isinstance(args, dict):
            positional: list[Any] = []
            named = args if self._renamed.isdisjoint(args) else self._rename(args)
            # Whether it surely fits; if not, Signature.bind looks closer, and slower.
            if self._nameless:
                pass
            elif self._variadic:
                if self._required.issubset(named):
                    return positional, named
            elif self._named.issuperset(named) and (len(named) == len(self._named) or self._required.issubset(named)):
                return positional, named
            if self._nameless:  # which Python 3.13.0's Signature.bind lets pass where there is a **kwargs
                raise InvalidArguments(
                    f"{self.text}: {self._nameless[0]!r} is passed by position only: pass the arguments as an array"
                )
        else:
            positional, named = list(args or ()), {}
            if self._fewest is not None and self._fewest <= len(positional) <= self._most:
                return positional, named
        if self._signature is not None:
            try:
                self._signature.bind(*positional, **named)
            except TypeError as error:
                raise InvalidArguments(f"{self.text}: {error}") from None
        return positional, named

    def fits_none(self) -> bool:
        """Whether it can be called with no arguments."""
        return not self._required

    def has(self, parameter: str) -> bool:
        """Whether there is a parameter of that name."""
        return self._signature is not None and parameter in self._signature.parameters

    def values(self, args: dict[str, Any] | list[Any] | None) -> dict[str, Any]:
        """What each parameter is, its default included. Raises ``InvalidArguments``."""
        positional, named = self.bind(args)
        if self._signature is None:
            return named
        bound = self._signature.bind(*positional, **named)
        bound.apply_defaults()
        return bound.arguments

    def name_positionals(self, args: tuple[Any, ...]) -> dict[str, Any] | None:
        """Positional arguments by their parameters' names; None where one has no name."""
        if self._signature is None:
            return None
        parameters = list(self._signature.parameters.values())[: len(args)]
        if len(parameters) < len(args) or any(p.kind is not p.POSITIONAL_OR_KEYWORD for p in parameters):
            return None
        return {p.name: value for p, value in zip(parameters, args)}

    def _rename(self, args: dict[str, Any]) -> dict[str, Any]:
        named: dict[str, Any] = {}
        for key, value in args.items():
            if key in self._renamed:
                if key + "_" in args:
                    raise InvalidArguments(f"{self.text}: {key!r} and {key + '_'!r} are the same parameter")
                key += "_"
            named[key] = value
        return named
