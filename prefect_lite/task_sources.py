"""What a task's code is, as a hash: another one as soon as the function has been changed."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from types import CodeType
from typing import Any, cast
from weakref import WeakKeyDictionary

from prefect_lite.hashing import hash_code, hash_objects
from prefect_lite.task_functions import innermost

_hashes: WeakKeyDictionary[Callable[..., Any], str] = WeakKeyDictionary()


def source_hash(fn: Callable[..., Any]) -> str:
    """A hash of a function's source text and of what it was compiled to.

    The text alone could be that of a file which was changed after the function was loaded, and two functions
    may stand on one line. Where there is no text (``exec``), the compiled code says it all.

    Args:
        fn: A function, or another callable.

    Raises:
        HashError: It is a ``functools.partial`` with arguments that can't be hashed.
    """
    try:
        known = _hashes.get(fn)
    except TypeError:  # some callable objects can't be keys
        return _source_hash(fn)
    if known is None:
        known = _source_hash(fn)
        with suppress(TypeError):  # some have no weak references
            _hashes[fn] = known
    return known


def _source_hash(fn: Callable[..., Any]) -> str:
    filled: list[Any] = []
    completed: Any = fn
    while isinstance(completed, partial):
        part = cast("partial[Any]", completed)
        filled.append((part.args, part.keywords))
        completed = part.func
    function = inspect.unwrap(innermost(fn))
    if not inspect.isroutine(function):  # an object that can be called
        function = getattr(cast("Any", type(function)), "__call__", function)  # noqa: B004
    code: Any = getattr(function, "__code__", None)
    parts = (
        _text_of(function),
        hash_code(code) if isinstance(code, CodeType) else None,
        getattr(function, "__module__", None) if code is None else None,
        getattr(function, "__qualname__", None) if code is None else None,
        filled,
    )
    return cast("str", hash_objects(*parts, raise_on_failure=True))


def _text_of(function: Any) -> str | None:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError, IndexError, SyntaxError):  # no file, none any more, or a builtin
        return None
