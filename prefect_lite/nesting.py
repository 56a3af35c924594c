"""Looking into collections and objects, and making others with something else in its place.

Lists, tuples, sets and dicts (keys too) are looked into, and what is derived from them; of objects
dataclasses and pydantic models. Iterators are not, as looking would use them up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from copy import copy
from operator import is_
from typing import Any, Final, cast

from prefect_lite.exceptions import ParameterTypeError

MAX_DEPTH: Final = 32
"""So many levels are looked into, at both ends of the wire."""

SCALARS: Final = frozenset({type(None), bool, int, float, str, bytes})
"""Exactly these types hold nothing; most values are of one of them."""

_COLLECTIONS: Final = (list, tuple, set, frozenset)


def fields_of(value: Any) -> Iterable[str]:
    """Names of the fields of a dataclass or pydantic model; none of anything else."""
    kind = cast("Any", type(value))
    fields: Any = getattr(kind, "__dataclass_fields__", None)
    if fields is None:
        fields = getattr(kind, "__pydantic_fields__", None)
    return fields if isinstance(fields, dict) and not isinstance(value, type) else ()  # pyright: ignore[reportUnknownVariableType]


def items_of(value: Any) -> Iterable[Any] | None:
    """What a collection or object holds; None of anything else."""
    if isinstance(value, _COLLECTIONS):
        return cast("Iterable[Any]", value)
    if isinstance(value, dict):
        mapping = cast("dict[Any, Any]", value)
        keys = [key for key in mapping if type(key) not in SCALARS]
        return [*keys, *mapping.values()] if keys else mapping.values()
    names = fields_of(value)
    return [getattr(value, name, None) for name in names] if names else None


def find(values: Iterable[Any], kinds: tuple[type, ...], into: tuple[type, ...] = ()) -> Iterator[Any]:
    """The objects of ``kinds`` in ``values``, nested ones too; what they hold is not looked into.

    Args:
        values: Where to look.
        kinds: What to find.
        into: Kinds of marks; their ``unwrap()`` is looked into.
    """
    return _find(values, kinds, into, MAX_DEPTH, {}, set(SCALARS))


def _find(
    values: Iterable[Any],
    kinds: tuple[type, ...],
    into: tuple[type, ...],
    depth: int,
    seen: dict[int, Any],
    leaves: set[type],
) -> Iterator[Any]:
    for value in values:
        if type(value) in leaves:
            continue
        if isinstance(value, kinds):
            yield value
            continue
        items = (value.unwrap(),) if isinstance(value, into) else items_of(value)
        if items is None:
            _note_leaf(value, leaves)
        elif depth and id(value) not in seen:
            # Objects may lead back to themselves. Kept, so that no other one gets its id meanwhile.
            seen[id(value)] = value
            yield from _find(items, kinds, into, depth - 1, seen, leaves)


def _note_leaf(value: Any, leaves: set[type]) -> None:
    """Others of its type are not looked at again: a list may have a million of them."""
    kind = cast("type[Any]", type(value))
    if value.__class__ is kind:  # else it stands for something else, and another one may not
        leaves.add(kind)


class Replacement:
    """Gives values with ``put(one)`` in the place of each object of ``kinds``, nested ones too.

    What holds none stays the same object, and what is reached by several ways is replaced once.

    Raises:
        ParameterTypeError: Nobody knows how to make another collection of a kind.
        TypeError: What can't be in a set, or a key of a dict, is to be.
        Exception: What ``put`` raises.
    """

    def __init__(self, kinds: tuple[type, ...], put: Callable[[Any], Any]) -> None:
        self._kinds = kinds
        self._put = put
        # By id, with the old one, which keeps its id meanwhile. Objects may lead back to themselves.
        self._done: dict[int, tuple[Any, Any]] = {}
        self._leaves: set[type] = set(SCALARS)

    def __call__(self, value: Any, depth: int = MAX_DEPTH) -> Any:
        if type(value) in self._leaves:
            return value
        if isinstance(value, self._kinds):
            return self._put(value)
        if depth == 0:
            return value
        key = id(value)
        if key in self._done:
            return self._done[key][1]
        if items_of(value) is None:
            _note_leaf(value, self._leaves)
            return value
        self._done[key] = value, value
        new = _rebuilt(value, lambda item: self(item, depth - 1), self._leaves)
        self._done[key] = value, new
        return new

    def in_call(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The same for the arguments of a call."""
        try:
            return tuple(map(self, args)), {name: self(value) for name, value in kwargs.items()}
        finally:
            self._done.clear()  # ``put`` often leads back here, which would keep the arguments for a while


def _rebuilt(value: Any, change: Callable[[Any], Any], leaves: Set[type]) -> Any:
    """Another like ``value``, with ``change`` made to each thing it holds; itself if that changes nothing.

    Args:
        value: A collection or object.
        change: Gives what is to be in the place of a thing.
        leaves: Types of things that stay.

    Raises:
        ParameterTypeError: Nobody knows how to make another one of its kind.
    """
    if isinstance(value, dict):
        return _rebuilt_dict(cast("dict[Any, Any]", value), change, leaves)
    if isinstance(value, _COLLECTIONS):
        old = list(cast("Iterable[Any]", value))
        items = [item if type(item) in leaves else change(item) for item in old]
        return cast("Any", value) if _same(items, old) else _like(value, items)
    changes: dict[str, Any] = {}
    for name in fields_of(value):
        held = getattr(value, name, None)
        new = change(held)
        if new is not held:
            changes[name] = new
    if not changes:
        return value
    if hasattr(value, "model_copy"):
        return value.model_copy(update=changes)
    another = copy(value)
    for name, new in changes.items():
        object.__setattr__(another, name, new)  # it may be frozen
    return another


def _rebuilt_dict(mapping: dict[Any, Any], change: Callable[[Any], Any], leaves: Set[type]) -> dict[Any, Any]:
    values = [item if type(item) in leaves else change(item) for item in mapping.values()]
    keys = [key if type(key) in leaves else change(key) for key in mapping]
    if _same(values, mapping.values()) and _same(keys, mapping):
        return mapping
    pairs = zip(keys, values, strict=True)
    if type(mapping) is dict:
        return dict(pairs)
    another = copy(mapping)
    another.clear()
    another.update(pairs)
    return another


def _same(items: Iterable[Any], others: Iterable[Any]) -> bool:
    return all(map(is_, items, others))


def _like(value: Any, items: list[Any]) -> Any:
    """A collection of the same kind with other items."""
    kind = cast("Any", type(value))
    kind = getattr(kind, "resolved_kind", kind)
    if any(kind is plain for plain in _COLLECTIONS):
        return kind(items)
    if isinstance(value, (list, set)):
        another: Any = copy(cast("Any", value))
        another.clear()
        (another.extend if isinstance(value, list) else another.update)(items)
        return another
    if hasattr(kind, "_make"):
        return kind._make(items)
    raise ParameterTypeError(
        f"Failed to resolve inputs: a {kind.__name__} holds something to be replaced by its result, and "
        f"nobody knows how to make another one. Pass a list, tuple, set, dict, dataclass or model "
        f"instead, or use the `quote` annotation to pass it as it is."
    )
