"""Values of options: one function for each kind of value, which refuses what can't be meant.

A value of a wrong type is an ``OptionTypeError`` (a ``TypeError`` and a ``ValueError``), an impossible one a
``ConfigurationError``. The sentences keep the words that tests of programs for Prefect look for.
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import timedelta
from typing import Any, cast

from prefect_lite.exceptions import ConfigurationError, OptionTypeError

MAX_RETRY_DELAYS = 50


def check_names(options: Mapping[str, Any], known: Collection[str], of_what: str = "task") -> None:
    """Refuse options that don't exist, naming the nearest one that does."""
    for name in options:
        if name not in known:
            import difflib  # rarely needed, and not light

            near = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean {near[0]!r}?" if near else ""
            raise OptionTypeError(
                f"There is no {of_what} option {name!r} (an unexpected keyword argument).{hint}"
            )


def check_number(name: str, value: Any, *, above: bool = False, whole: bool = False) -> None:
    """Refuse what is no finite number of at least (or ``above``) 0; a ``whole`` one if so asked."""
    kind: Any = numbers.Integral if whole else numbers.Real
    if not isinstance(value, kind) or isinstance(value, bool):
        what = "a whole number" if whole else "a number"
        raise OptionTypeError(f"`{name}` must be {what}, got {_shown(value)}.")
    if not math.isfinite(value):
        raise ConfigurationError(f"`{name}` must be a finite number, got {value!r}.")
    number: float = value
    if number < 0 or (above and number == 0):
        raise ConfigurationError(f"`{name}` must be {'>' if above else '>='} 0, got {value!r}.")


def check_text(name: str, value: Any) -> None:
    """Refuse what is no string."""
    if not isinstance(value, str):
        raise OptionTypeError(f"`{name}` must be a string, got {_shown(value)}.")


def check_switch(name: str, value: Any) -> None:
    """Refuse what is neither True nor False; "false" would count as true."""
    if not isinstance(value, bool):
        raise OptionTypeError(f"`{name}` must be True or False, got {_shown(value)}.")


def texts(name: str, value: Any) -> tuple[str, ...]:
    """The strings of a collection.

    Raises:
        OptionTypeError: It is one string, no collection, or has something else in it.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise OptionTypeError(f"`{name}` must be a collection of strings, got {_shown(value)}.")
    items = tuple(cast("Iterable[Any]", value))
    for item in items:
        if not isinstance(item, str):
            raise OptionTypeError(f"`{name}` must be a collection of strings, got {_shown(item)} in it.")
    return items


def check_callable(name: str, value: Any) -> None:
    """Refuse what can't be called."""
    if not callable(value):
        raise OptionTypeError(
            f"Expected `{name}` to be callable, got {type(value).__name__} instead: {value!r}."
        )


def check_run_name(name: str, value: Any) -> None:
    """Refuse what is neither a template nor a callable."""
    if not isinstance(value, str) and not callable(value):
        raise OptionTypeError(f"Expected string or callable for {name!r}; got {_shown(value)}.")


def hooks(name: str, value: Any) -> tuple[Callable[..., Any], ...]:
    """The callables of a list.

    Raises:
        OptionTypeError: It is no list, or has something in it that can't be called.
    """
    remedy = f"Give a list of functions: {name}=[hook]."
    if isinstance(value, (str, bytes)):
        raise OptionTypeError(f"Expected callables in {name!r}; got {_shown(value)}. {remedy}")
    if not isinstance(value, Iterable):
        raise OptionTypeError(f"Expected iterable for {name!r}; got {_shown(value)}. {remedy}")
    listed = tuple(cast("Iterable[Any]", value))
    for hook in listed:
        if not callable(hook):
            raise OptionTypeError(f"Expected callables in {name!r}; got {_shown(hook)}. {remedy}")
    return listed


def assets(name: str, value: Any) -> list[Any]:
    """The assets of a list that has assets or their keys."""
    from prefect_lite.assets.core import listed  # few tasks have any

    return listed(name, value)


def check_duration(name: str, value: Any) -> None:
    """Refuse what is no timedelta. One that is not positive is over at once, as in Prefect."""
    if not isinstance(value, timedelta):
        raise OptionTypeError(f"`{name}` must be a timedelta, got {_shown(value)}.")


def check_object(name: str, value: Any, *, or_text: bool = False) -> None:
    """Refuse plain numbers and the like where an object has work to do; strings too unless ``or_text``."""
    plain = (bool, int, float, bytes) if or_text else (bool, int, float, bytes, str)
    if isinstance(value, plain):
        what = "an object or its name" if or_text else "an object"
        raise OptionTypeError(f"`{name}` must be {what}, got {_shown(value)}.")


def check_policy(name: str, value: Any) -> None:
    """Refuse what can't compute keys."""
    if not callable(getattr(value, "compute_key", None)):
        raise OptionTypeError(
            f"`{name}` must be a cache policy such as INPUTS, got {_shown(value)}. Your own is a class that "
            f"inherits from prefect_lite.cache_policies.CachePolicy."
        )


def retry_delays(value: Any, retries: int) -> tuple[float, ...]:
    """The delays in seconds that ``retry_delay_seconds`` stands for, one or more; the last one repeats.

    Args:
        value: A number, a list, a callable that makes either from ``retries``, or None for no delay.
        retries: For the callable.

    Raises:
        OptionTypeError: Something else.
        ConfigurationError: There are too many, or a negative one.
        Exception: What the callable raises.
    """
    if value is None:
        return (0.0,)
    if callable(value):
        try:
            value = value(retries)
        except Exception as exc:
            exc.add_note(f"It was raised by the callable in retry_delay_seconds, asked for {retries} delays.")
            raise
    if value is None:
        return (0.0,)
    if isinstance(value, numbers.Real):
        value = (value,)
    if isinstance(value, (str, bytes)) or not isinstance(value, Sequence):
        raise OptionTypeError(
            f"`retry_delay_seconds` must be an int, float, list or callable, got {_shown(value)}."
        )
    listed = cast("Sequence[Any]", value)
    if len(listed) > MAX_RETRY_DELAYS:
        raise ConfigurationError(
            f"Can not configure more than {MAX_RETRY_DELAYS} retry delays per task, got {len(listed)}."
        )
    for delay in listed:
        check_number("retry_delay_seconds", delay)
    return tuple(float(delay) for delay in listed) or (0.0,)


def _shown(value: Any) -> str:
    return f"{type(value).__name__} instead: {value!r}"
