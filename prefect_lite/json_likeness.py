"""Whether a value came back from JSON as what it was, but for what JSON always does.

Tuples may have become lists, keys of dicts text, and values of subclasses of plain types plain.
"""

from __future__ import annotations

import dataclasses
import math
from collections import deque
from typing import Any, cast

import pydantic

_PLAIN = (str, int, float)
_ORDERED = (list, tuple)


def alike(value: Any, back: Any) -> bool:
    """Whether ``back``, made from the JSON form of ``value``, stands for the same."""
    if isinstance(value, (float, list, tuple, dict)):
        return _plain_alike(cast(Any, value), back)
    kind = cast("type[Any]", type(value))
    if type(back) is not kind:
        return isinstance(value, _PLAIN) and type(back) in kind.__mro__ and bool(value == back)
    if isinstance(value, pydantic.BaseModel):
        parts = {name: getattr(value, name) for name in kind.model_fields}
        return alike(parts, {name: getattr(back, name) for name in parts}) and alike(
            value.model_extra or {}, back.model_extra or {}
        )
    if dataclasses.is_dataclass(kind):
        names = [field.name for field in dataclasses.fields(kind)]
        return all(alike(getattr(value, name, None), getattr(back, name, None)) for name in names)
    if isinstance(value, (set, frozenset)):
        one, other = cast("set[Any]", value), cast("set[Any]", back)
        return {(type(part), part) for part in one} == {(type(part), part) for part in other}
    if isinstance(value, deque):
        one, other = cast("deque[Any]", value), cast("deque[Any]", back)
        return one.maxlen == other.maxlen and alike(list(one), list(other))
    if kind.__eq__ is object.__eq__ and hasattr(value, "__dict__"):
        return alike(vars(value), vars(back))
    return bool(value == back)


def unlike_keys(value: Any) -> bool:
    """Whether a dict in plain values has two keys that are one in JSON, such as 1 and "1"."""
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        names = items.keys() if all(type(key) is str for key in items) else set(map(_as_name, items))
        return len(names) < len(items) or any(map(unlike_keys, items.values()))
    return isinstance(value, _ORDERED) and any(map(unlike_keys, cast("list[Any]", value)))


def _plain_alike(value: Any, back: Any) -> bool:
    kind = cast("type[Any]", type(value))
    if kind is float and math.isnan(value):
        return isinstance(back, float) and math.isnan(back)
    if isinstance(value, _ORDERED) and isinstance(back, _ORDERED):
        parts, others = cast("list[Any]", value), cast("list[Any]", back)
        return len(parts) == len(others) and all(map(alike, parts, others))
    if isinstance(value, dict) and isinstance(back, dict):
        return _dicts_alike(cast("dict[Any, Any]", value), cast("dict[Any, Any]", back))
    return type(back) in kind.__mro__ and bool(value == back)


def _dicts_alike(value: dict[Any, Any], back: dict[Any, Any]) -> bool:
    if len(value) != len(back):
        return False
    for key, item in value.items():
        name = key if key in back else _as_name(key)
        if name not in back or not alike(item, back[name]):
            return False
    return True


def _as_name(key: Any) -> Any:
    """What JSON makes of a key that is no text."""
    if key is None or isinstance(key, bool):
        return {None: "null", True: "true", False: "false"}[key]
    return str(key) if isinstance(key, (int, float)) else key
