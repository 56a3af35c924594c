"""Digests of values: what they are is walked through and hashed on the way.

The order of sets and dicts does not count, nor does what else happens to be in a process. What has no rule of
its own here is taken apart as for a pickle, without making one.
"""

from __future__ import annotations

import copyreg
import hashlib
import math
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from functools import cached_property
from types import CellType, CodeType, FunctionType, MappingProxyType, ModuleType
from typing import Any, TypeAlias, cast

from prefect_lite.exceptions import HashError
from prefect_lite.main_module import import_name_of, main_reference

_SCALARS = frozenset({type(None), bool, int, float, complex, str})
_SHORT = 64
"""Bytes."""


class Walk:
    """One way through values. Digests of containers are kept meanwhile: a part may be in many places."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[bytes, Any]] = {}  # with the value, whose id is no other's meanwhile
        self._open: dict[int, int] = {}  # depth by id, of what is being walked through
        self._reached: float = math.inf  # the least depth that a part has referred back to

    def digest(self, value: Any) -> bytes:
        """Up to some 80 bytes that stand for ``value``.

        Raises:
            HashError: A part of it is tied to this process, such as a lock.
            RecursionError: It is nested too deeply.
        """
        kind = cast("type[Any]", type(value))
        if kind in _SCALARS:
            return _scalar(kind, value)
        if kind is bytes:
            return _framed("bytes", value)
        if kind is list and value and _SCALARS.issuperset(map(type, value)):
            try:
                return _framed("scalars", ascii(value).encode())
            except ValueError:  # an integer with more digits than Python writes; one by one they can be
                pass
        return self._container(kind, value)

    def _container(self, kind: type[Any], value: Any) -> bytes:
        identity = id(value)
        known = self._known.get(identity)
        if known is not None:
            return known[0]
        depth = self._open.get(identity)
        if depth is not None:  # a cycle
            self._reached = min(self._reached, depth)
            return _framed("above", str(len(self._open) - depth).encode())
        depth = self._open[identity] = len(self._open)
        before, self._reached = self._reached, math.inf
        try:
            digest = self._parts(kind, value)
        finally:
            del self._open[identity]
        if self._reached >= depth:  # what it is does not depend on where it is
            self._known[identity] = digest, value
            self._reached = before
        else:
            self._reached = min(before, self._reached)
        return digest

    def _parts(self, kind: type[Any], value: Any) -> bytes:
        rule = _RULES.get(kind)
        if rule is not None:
            return rule(self, value)
        if isinstance(value, type):
            return _framed("class", _name_of(value).encode())
        if isinstance(value, Enum):
            return self.joined("enum", (kind, value.value))
        if kind.__name__ == "ndarray" and kind.__module__ == "numpy" and not value.dtype.hasobject:
            return self.joined("array", (value.dtype.descr, value.shape, value.tobytes()))
        if kind.__module__.partition(".")[0] == "pandas" and hasattr(value, "dtypes"):
            return self._pandas(kind, value)
        if hasattr(kind, "__pydantic_fields_set__") and hasattr(kind, "__pydantic_core_schema__"):
            fields = _without_cached(kind, value.__dict__)
            return self.joined("model", (kind, fields, value.__pydantic_extra__))
        return self._taken_apart(kind, value)

    def _pandas(self, kind: type[Any], value: Any) -> bytes:
        """A frame, series or index: how pandas lays out its memory is none of the value's affair."""
        if hasattr(value, "columns"):
            columns = [value.iloc[:, number] for number in range(len(value.columns))]
            return self.joined("frame", (kind, value.columns, value.index, *columns))
        if hasattr(value, "iloc"):
            parts = (kind, value.name, repr(value.dtype), value.index, value.to_numpy())
            return self.joined("series", parts)
        return self.joined("index", (kind, list(value.names), repr(value.dtype), value.to_numpy()))

    def _taken_apart(self, kind: type[Any], value: Any) -> bytes:
        try:
            reducer = copyreg.dispatch_table.get(kind)
            reduced = reducer(value) if reducer is not None else value.__reduce_ex__(4)
        except RecursionError:
            raise
        except Exception as exc:
            raise HashError(
                f"Unable to create a hash of a value of type {kind.__module__}.{kind.__qualname__}: {exc}."
            ) from exc
        if isinstance(reduced, str):
            return _framed("global", f"{import_name_of(value)}.{reduced}".encode())
        make, arguments, state, items, pairs = (*cast("tuple[Any, ...]", reduced), None, None, None)[:5]
        if type(state) is dict:
            state = _without_cached(kind, cast("dict[Any, Any]", state))
        listed = list(items) if items is not None else None
        paired: Any = None
        if pairs is not None:
            paired = list(pairs) if isinstance(value, OrderedDict) else dict(pairs)
        return self.joined("object", (make, arguments, state, listed, paired))

    def joined(self, tag: str, parts: Iterable[Any]) -> bytes:
        """Of parts in their order."""
        return _framed(tag, b"".join(map(self.digest, parts)))

    def unordered(self, tag: str, digests: Iterable[bytes]) -> bytes:
        """Of parts in any order."""
        return _framed(tag, b"".join(sorted(digests)))

    def mapping(self, value: Mapping[Any, Any]) -> bytes:
        """Of keys and values."""
        return self.unordered("dict", (self.joined("", item) for item in value.items()))

    def elements(self, tag: str, value: Iterable[Any]) -> bytes:
        """Of a set."""
        return self.unordered(tag, map(self.digest, value))

    def function(self, value: FunctionType) -> bytes:
        """By its name where that leads to it, else by all that it does."""
        if main_reference(value) is not None or _found(value.__module__, value.__qualname__) is value:
            return _framed("function", _name_of(value).encode())
        code, space = value.__code__, value.__globals__
        used = {name: space[name] for name in _names_in(code) if name in space}
        cells = [_content(cell) for cell in value.__closure__ or ()]
        return self.joined("code", (code, value.__defaults__, value.__kwdefaults__, cells, used))

    def code(self, value: CodeType) -> bytes:
        """Of what it does, wherever it stands; another one in each Python version."""
        shape = value.co_argcount, value.co_posonlyargcount, value.co_kwonlyargcount, value.co_flags
        names = value.co_names, value.co_varnames, value.co_freevars, value.co_cellvars
        return self.joined("bytecode", (value.co_code, value.co_consts, shape, names))


_Rule: TypeAlias = Callable[[Walk, Any], bytes]

_RULES: dict[type[Any], _Rule] = {
    list: lambda walk, value: walk.joined("list", value),
    tuple: lambda walk, value: walk.joined("tuple", value),
    dict: Walk.mapping,
    MappingProxyType: Walk.mapping,
    set: lambda walk, value: walk.elements("set", value),
    frozenset: lambda walk, value: walk.elements("frozenset", value),
    bytearray: lambda walk, value: _framed("bytearray", bytes(value)),
    FunctionType: Walk.function,
    CodeType: Walk.code,
    ModuleType: lambda walk, value: _framed("module", value.__name__.encode()),
}


def _scalar(kind: type[Any], value: Any) -> bytes:
    if kind is str:
        return _framed("str", value.encode(errors="surrogatepass"))
    if kind is int:
        return _framed("int", b"%x" % value)
    return _framed(kind.__name__, repr(value).encode())


def _framed(tag: str, content: bytes) -> bytes:
    """Long contents are hashed, so that a digest's length never has to do with the value's size."""
    if len(content) > _SHORT:
        return b"%s*%s" % (tag.encode(), hashlib.blake2b(content, digest_size=16).digest())
    return b"%s %d %s" % (tag.encode(), len(content), content)


def _name_of(named: Any) -> str:
    return f"{import_name_of(named)}.{named.__qualname__}"


def _found(module: str | None, qualname: str) -> Any:
    found: Any = sys.modules.get(module or "")
    for part in qualname.split("."):
        found = getattr(found, part, None)
    return found


def _names_in(code: CodeType) -> set[str]:
    names = set(code.co_names)
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            names |= _names_in(constant)
    return names


def _content(cell: CellType) -> tuple[Any, ...]:
    try:
        return (cell.cell_contents,)
    except ValueError:  # the name that it is for has no value yet
        return ()


def _without_cached(kind: type[Any], state: Mapping[Any, Any]) -> dict[Any, Any]:
    """Attributes without those that a ``cached_property`` has left there."""
    return {
        name: value
        for name, value in state.items()
        if not (isinstance(name, str) and isinstance(getattr(kind, name, None), cached_property))
    }
