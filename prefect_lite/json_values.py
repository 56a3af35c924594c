"""JSON for values that JSON has no form for: ``{"__class__": "datetime.date", "data": "2020-01-01"}``.

What pydantic can validate goes by pydantic: its models, dataclasses, sets, dates, UUIDs, paths, enums...
Nothing is written that would come back as something else without a word: a class that can't be found by its
name, a secret that pydantic would mask, a dict that looks like one of ours, a date in a field of type Any.
"""

from __future__ import annotations

import base64
import importlib
import json
from collections import deque
from functools import lru_cache
from typing import Any, cast

import pydantic
import pydantic_core

from prefect_lite.exceptions import SerializationError
from prefect_lite.json_likeness import alike
from prefect_lite.main_module import main_reference

CLASS = "__class__"
EXCEPTION = "__exc_type__"
DATA = "data"
_MARKS = (CLASS, EXCEPTION)
_MASK = "**********"
_SECRETS = (pydantic.SecretStr, pydantic.SecretBytes, cast("type[Any]", pydantic.Secret))
_SEQUENCES = (list, tuple, set, frozenset, deque)
_INSTEAD = "Use the serializer 'pickle', or return something else."


def encode_object(value: Any) -> dict[str, Any]:
    """The JSON form of a value that ``json.dumps`` has none for; its argument ``default``.

    Raises:
        SerializationError: There is none from which the same value could be made again.
    """
    if isinstance(value, BaseException):
        return {EXCEPTION: _name_of(type(value)), "message": str(value), "args": list(value.args)}
    kind = cast("type[Any]", type(value))
    if kind is bytes:
        return {CLASS: "builtins.bytes", **_bytes_form(cast(bytes, value))}
    try:
        data = pydantic_core.to_jsonable_python(value)
    except (ValueError, TypeError, RecursionError) as exc:
        raise SerializationError(
            f"A value of type {kind.__qualname__} has no JSON form: {exc}. {_INSTEAD}"
        ) from exc
    if _holds(data, _MASK) and _holds_secret(value):
        raise SerializationError(
            f"A value of type {kind.__qualname__} holds a secret, which JSON would replace by asterisks. "
            f"{_INSTEAD}"
        )
    name = _name_of(kind)
    _check_that_it_comes_back(name, value, data)
    return {CLASS: name, DATA: escaped(data)}


def decode_object(value: dict[str, Any]) -> Any:
    """The inverse, for dicts that are such a form; others stay. The ``object_hook`` of ``json.loads``.

    It imports the modules of the classes that are named, so it is for data that can be trusted.

    Raises:
        SerializationError: The class is not there, or does not take the data.
    """
    if EXCEPTION in value and "message" in value:
        return _exception(value)
    if CLASS not in value or DATA not in value:
        return value
    name, data = value[CLASS], value[DATA]
    if name == "builtins.dict":
        return dict(cast("list[tuple[Any, Any]]", data))
    if name == "builtins.bytes" and value.get("encoding") == "base64":
        return base64.b64decode(cast(str, data), validate=True)
    return _made(cast(str, name), data)


def _made(name: str, data: Any) -> Any:
    kind = _found(name)
    try:
        return _adapter(kind).validate_json(pydantic_core.to_json(data))
    except (ValueError, TypeError, pydantic.errors.PydanticUserError) as exc:
        raise SerializationError(f"A value of type {name} can't be made from its JSON: {exc}") from exc


def _check_that_it_comes_back(name: str, value: Any, data: Any) -> None:
    """Refuse a set of dates, which would be one of texts, a field of type Any with a tuple of sets..."""
    try:
        same = alike(value, _made(name, data))
    except SerializationError as exc:
        raise SerializationError(f"{exc}. {_INSTEAD}") from exc
    if not same:
        raise SerializationError(
            f"A value of type {name} holds something that JSON would bring back as something else: a field "
            f"whose type annotation is not that of its value, or objects in a set. {_INSTEAD}"
        )


def escaped(value: Any) -> Any:
    """``value`` with dicts that look like one of our forms written so that they come back as they are."""
    if isinstance(value, dict):
        items = cast("dict[Any, Any]", value)
        if any(mark in items for mark in _MARKS):
            return {CLASS: "builtins.dict", DATA: [[key, escaped(item)] for key, item in items.items()]}
        return {key: escaped(item) for key, item in items.items()}
    if isinstance(value, (list, tuple)):
        return [escaped(item) for item in cast("list[Any]", value)]
    return value


def needs_escape(text: str | bytes) -> bool:
    """Whether there may be such a dict in what was encoded."""
    data = text.encode("utf-8", "surrogatepass") if isinstance(text, str) else text
    return any(json.dumps(mark).encode() in data for mark in _MARKS)


def _bytes_form(value: bytes) -> dict[str, str]:
    try:
        return {DATA: value.decode()}
    except UnicodeDecodeError:
        return {"encoding": "base64", DATA: base64.b64encode(value).decode()}


def _exception(value: dict[str, Any]) -> BaseException:
    kind = _found(cast(str, value[EXCEPTION]))
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        raise SerializationError(f"{value[EXCEPTION]} is stored as an exception, and is none.")
    args: list[Any] = value.get("args", [value["message"]])
    try:
        return kind(*args)
    except Exception:  # its __init__ takes something else than `args`, or checks it
        return kind.__new__(kind, *args)


def _name_of(kind: type[Any]) -> str:
    reference = main_reference(kind)
    name = ".".join(reference) if reference is not None else f"{kind.__module__}.{kind.__qualname__}"
    try:
        found = _found(name)
    except SerializationError:
        found = None
    if found is not kind:
        raise SerializationError(
            f"JSON can only refer to a class by its name, and {name} does not lead to it. "
            f"Define the class at the top of a module, or use the serializer 'pickle'."
        )
    return name


def _found(name: str) -> Any:
    """The class with a dotted name. Nested classes have more than one dot after the module."""
    parts = name.split(".")
    for length in range(len(parts) - 1, 0, -1):
        module = ".".join(parts[:length])
        try:
            found: Any = importlib.import_module(module)
        except ModuleNotFoundError as exc:
            if exc.name is not None and not f"{module}.".startswith(f"{exc.name}."):
                raise SerializationError(f"The module of {name} can't be imported here: {exc}.") from exc
            continue
        try:
            for part in parts[length:]:
                found = getattr(found, part)
        except AttributeError:
            break
        return found
    raise SerializationError(
        f"A stored value is of the class {name}, which can't be found here. "
        f"The module that defines it must be importable in this process."
    )


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> pydantic.TypeAdapter[Any]:
    return pydantic.TypeAdapter(kind)


def _holds(data: Any, text: str) -> bool:
    if isinstance(data, str):
        return data == text
    if isinstance(data, dict):
        return any(_holds(item, text) for pair in cast("dict[Any, Any]", data).items() for item in pair)
    return isinstance(data, list) and any(_holds(item, text) for item in cast("list[Any]", data))


def _holds_secret(value: Any) -> bool:
    """Whether there is one of pydantic's secrets in a value, at any depth."""
    if isinstance(value, _SECRETS):
        return True
    if isinstance(value, dict):
        return any(_holds_secret(item) for item in cast("dict[Any, Any]", value).values())
    if isinstance(value, _SEQUENCES):
        return any(_holds_secret(item) for item in cast("list[Any]", value))
    fields: dict[str, Any] = getattr(value, "__dict__", {})
    return any(_holds_secret(item) for item in fields.values())
