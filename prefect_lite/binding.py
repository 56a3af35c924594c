"""Arguments against signatures: checked in the caller, before anything is sent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from prefect_lite.exceptions import ParameterBindError, ReservedArgumentError

RESERVED = ("deferred", "return_state", "wait_for")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


class Binder:
    """Tells whether calls bind, without the 5 us of ``Signature.bind`` for ordinary ones.

    Attributes:
        signature: Of the function.
        names: Of its parameters, in order.
    """

    __slots__ = ("_keyword_only", "_name", "_positions", "_required", "_simple", "names", "signature")

    def __init__(self, fn: Callable[..., Any], name: str) -> None:
        """Raises: ReservedArgumentError: A parameter has a name that ``submit`` and ``map`` need."""
        try:
            self.signature = inspect.signature(fn)
        except ValueError:  # some builtins have none: anything may bind
            self.signature = inspect.Signature(
                [
                    inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                    inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
                ]
            )
        self._name = name
        parameters = list(self.signature.parameters.values())
        self.names = tuple(self.signature.parameters)
        for parameter in parameters:
            if parameter.name in RESERVED:
                raise ReservedArgumentError(
                    f"{parameter.name!r} is a reserved argument name and cannot be used: "
                    f"{name}() needs another."
                )
        positional = [parameter for parameter in parameters if parameter.kind in _POSITIONAL]
        self._positions = {parameter.name: index for index, parameter in enumerate(positional)}
        self._required = sum(parameter.default is parameter.empty for parameter in positional)
        keyword_only = [parameter for parameter in parameters if parameter.kind is parameter.KEYWORD_ONLY]
        self._keyword_only = {parameter.name for parameter in keyword_only}
        # The quick paths below are right only for functions like this.
        self._simple = all(
            parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            for parameter in parameters
        ) and all(parameter.default is not parameter.empty for parameter in keyword_only)

    def check(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
        """Raise ParameterBindError unless ``fn(*args, **kwargs)`` binds."""
        if self._simple:
            given = len(args)
            positions = self._positions
            if not kwargs:
                if self._required <= given <= len(positions):
                    return
            elif given <= len(positions) and self._keywords_bind(given, kwargs):
                return
        try:
            self.signature.bind(*args, **kwargs)
        except TypeError as exc:
            raise self._refusal(exc) from None

    def _keywords_bind(self, given: int, kwargs: Mapping[str, Any]) -> bool:
        required = self._required
        covered = given if given < required else required
        for name in kwargs:
            position = self._positions.get(name)
            if position is None:
                if name not in self._keyword_only:
                    return False
            elif position < given:
                return False
            elif position < required:
                covered += 1
        return covered == required

    def parameters(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Values by parameter name, without defaults; ``*args`` and ``**kwargs`` under their own names.

        Raises:
            ParameterBindError: They don't bind.
        """
        try:
            return dict(self.signature.bind(*args, **kwargs).arguments)
        except TypeError as exc:
            raise self._refusal(exc) from None

    def _refusal(self, exc: TypeError) -> ParameterBindError:
        return ParameterBindError(
            f"Error binding parameters for function {self._name!r}: {exc}. "
            f"It can't be called like this, it is {self._name}{self.signature}."
        )
