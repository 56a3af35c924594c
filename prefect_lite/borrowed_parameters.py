"""Methods and decorators that take the options of a dataclass as keywords, without listing them again.

A type checker sees the dataclass's own parameter list (through a ParamSpec), so that a misspelt or mistyped
option is an error in the editor and completion shows real defaults; the function itself gets a dict.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any, Concatenate, ParamSpec, TypeVar

F = TypeVar("F", bound=Callable[..., Any])
O = ParamSpec("O")  # noqa: E741  # the options' own parameter list
S = TypeVar("S")
T = TypeVar("T")


def with_parameters_of(
    options: Callable[O, Any],
) -> Callable[[Callable[[S, dict[str, Any]], T]], Callable[Concatenate[S, O], T]]:
    """Give a method that takes a dict of options the keyword parameters of the class ``options``."""

    def decorate(method: Callable[[S, dict[str, Any]], T]) -> Callable[Concatenate[S, O], T]:
        @functools.wraps(method)
        def with_keywords(self: S, *args: O.args, **given: O.kwargs) -> T:
            return method(self, dict(given))

        # What is not given stays as it is, so there are no defaults to show.
        return show_parameters(with_keywords, options, default=...)

    return decorate


def show_parameters(function: F, options: Callable[..., Any], **changes: Any) -> F:
    """Have ``help`` and ``inspect.signature`` show the options by name.

    Args:
        function: Its last parameter takes them, as a dict or as ``**options``.
        options: The class that has them.
        **changes: To each of these parameters, as for ``inspect.Parameter.replace``.
    """
    own = inspect.signature(function)
    *kept, _taking_them = own.parameters.values()
    shown = [option.replace(**changes) for option in inspect.signature(options).parameters.values()]
    signature: Any = own.replace(parameters=[*kept, *shown])
    function.__signature__ = signature  # type: ignore[attr-defined]
    return function
