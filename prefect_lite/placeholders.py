"""Placeholders in a call for other runs' results: put there by its caller, filled in by the worker."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prefect_lite.nesting import Replacement


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
        TypeError: A value that can't be in a set, or a key of a dict, is to be.
        ParameterTypeError: Nobody knows how to make another collection of a kind.
        Exception: What ``value_of`` raises.
    """
    return Replacement((Upstream,), value_of).in_call(args, kwargs)
