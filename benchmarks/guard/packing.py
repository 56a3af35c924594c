"""Counts the calls of msgpack, which is compiled so that no profiler sees them.

Imported before the product, whose modules then find these in the place of the library's own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

_Packer, _packb, _unpackb = msgpack.Packer, msgpack.packb, msgpack.unpackb
_note: Callable[[], object] = bool


class Packer(_Packer):
    """msgpack's, counted."""

    def pack(self, obj: Any) -> bytes:
        _note()
        return super().pack(obj)


def packb(*args: Any, **options: Any) -> Any:
    """msgpack's, counted."""
    _note()
    return _packb(*args, **options)


def unpackb(*args: Any, **options: Any) -> Any:
    """msgpack's, counted."""
    _note()
    return _unpackb(*args, **options)


def tell(note: Callable[[], object]) -> None:
    """Have ``note`` called for each call of msgpack."""
    global _note
    _note = note


msgpack.Packer, msgpack.packb, msgpack.unpackb = Packer, packb, unpackb
