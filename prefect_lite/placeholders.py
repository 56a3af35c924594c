"""Placeholders in a call for other runs' results: put there by its caller, filled in by the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, cast

MAX_DEPTH: Final = 32
"""Collections in collections that are looked into, at both ends."""


class Upstream:
    """Stands for what another run gives.

    Attributes:
        run_id: The run, 32 hex digits.
        tolerant: The task takes the run's exception if it failed; else it does not run then.
    """

    __slots__ = ("run_id", "tolerant")

    def __init__(self, run_id: str, tolerant: bool) -> None:
        self.run_id = run_id
        self.tolerant = tolerant

    def pack(self) -> bytes:
        """As bytes; the inverse is ``unpack``."""
        return bytes((self.tolerant,)) + bytes.fromhex(self.run_id)

    @classmethod
    def unpack(cls, data: bytes) -> Upstream:
        """Raises: ValueError: These are no bytes of ``pack``."""
        if len(data) != 17 or data[0] > 1:
            raise ValueError("a placeholder is damaged")
        return cls(data[1:].hex(), data[0] == 1)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Upstream) and self.pack() == other.pack()

    def __hash__(self) -> int:
        return hash(self.run_id)

    def __reduce__(self) -> Any:
        return Upstream, (self.run_id, self.tolerant)

    def __repr__(self) -> str:
        return f"Upstream({self.run_id!r}, tolerant={self.tolerant})"


def ids_in(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, None]:
    """The runs that a call holds placeholders for, in order, each once."""
    found: dict[str, None] = {}

    def note(upstream: Upstream) -> Upstream:
        found[upstream.run_id] = None
        return upstream

    filled(args, kwargs, note)
    return found


def filled(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], value_of: Callable[[Upstream], Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call with ``value_of`` each placeholder in its place; what holds none stays the same object.

    Raises:
        TypeError: A value that can't be in a set is to be.
        Exception: What ``value_of`` raises.
    """
    return (
        tuple(_filled(value, value_of, MAX_DEPTH) for value in args),
        {name: _filled(value, value_of, MAX_DEPTH) for name, value in kwargs.items()},
    )


def _filled(value: Any, value_of: Callable[[Upstream], Any], depth: int) -> Any:
    if type(value) is Upstream:
        return value_of(value)
    if depth == 0:
        return value
    if type(value) is dict:
        mapping = cast("dict[Any, Any]", value)
        items = [_filled(item, value_of, depth - 1) for item in mapping.values()]
        if all(new is old for new, old in zip(items, mapping.values(), strict=True)):
            return mapping
        return dict(zip(mapping, items, strict=True))
    make = maker(value)
    if make is None:
        return value
    old_items = list(value)
    items = [_filled(item, value_of, depth - 1) for item in old_items]
    if all(new is old for new, old in zip(items, old_items, strict=True)):
        return value
    return make(items)


def maker(value: Any) -> Callable[[Any], Any] | None:
    """What makes another collection of the same kind from items; None when we don't know."""
    kind = cast("Any", type(value))
    if kind in (list, tuple, set, frozenset):
        return kind
    if isinstance(value, tuple) and hasattr(kind, "_make"):
        return kind._make
    return None
