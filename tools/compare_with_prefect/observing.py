"""What a program saw, as plain data that can be compared: ids, times and addresses become placeholders."""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

IDS = re.compile(r"\b[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}\b")
SUFFIXES = re.compile(r"(?<=[a-z]-)[0-9a-f]{3}\b")
ADDRESSES = re.compile(r"0x[0-9a-f]+")


def told(call: Callable[[], Any]) -> Any:
    """What ``call`` gives, or what it raises: an exit or an interrupt is an outcome like others."""
    try:
        return seen(call())
    except BaseException as error:
        return {"raises": _kinds(error), "text": words(str(error))}


def words(text: str) -> str:
    """A text without what differs from run to run, and without the name of the package."""
    text = ADDRESSES.sub("<address>", IDS.sub("<id>", text.replace("prefect_lite", "prefect")))
    return SUFFIXES.sub("<id>", text)


def seen(value: Any) -> Any:
    """``value`` as plain data."""
    if isinstance(value, enum.Enum):
        return value.value
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, str):
        return words(value)
    for kinds, show in _SHOWN:
        if isinstance(value, kinds):
            return show(value)
    return _other(value)


def _other(value: Any) -> Any:
    """States and futures are told by their names: they are other classes in each of the packages."""
    kind = type(value).__name__
    if kind == "State":
        return {"state": f"{value.type.value} {value.name}", "message": words(value.message or "")}
    if kind.endswith("FutureList"):
        return [seen(item) for item in value]
    return "a future" if kind.endswith("Future") else f"a {kind}"


def _mapping(value: Mapping[Any, Any]) -> Any:
    return {str(seen(key)): seen(item) for key, item in value.items()}


def _error(error: BaseException) -> Any:
    return {"error": _kinds(error), "text": words(str(error))}


def _kinds(error: BaseException) -> list[str]:
    return [kind.__name__ for kind in type(error).__mro__]


_SHOWN: list[tuple[Any, Callable[[Any], Any]]] = [
    (UUID, lambda value: "<id>"),
    (datetime, lambda value: "<time>"),
    (timedelta, lambda value: "<duration>"),
    (BaseException, _error),
    (Mapping, _mapping),
    ((set, frozenset), lambda value: sorted((seen(item) for item in value), key=repr)),
    ((list, tuple), lambda value: [seen(item) for item in value]),
    (type, lambda value: f"class {value.__name__}"),
]
