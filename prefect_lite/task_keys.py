"""Task keys: what a run names its task by.

``module.qualname`` of the function, unless ``key=`` says otherwise. Never the label, source or path: those
change or repeat, and a run whose key nobody serves would wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.main_module import import_name_of
from prefect_lite.task_functions import innermost

MAX_KEY_CHARS = 512


def task_key_of(fn: Callable[..., Any]) -> str:
    """The default key of a function, or of an object that is callable."""
    named: Any = innermost(fn)
    if not hasattr(named, "__qualname__"):
        named = cast("Any", type(named))
    # A partial must not take the key of its function: a worker would run the one for the other.
    suffix = "" if innermost(fn) is fn else ".<partial>"
    return f"{import_name_of(named)}.{named.__qualname__}{suffix}"


def check_key(key: str) -> str:
    """``key`` itself.

    Raises:
        ConfigurationError: It is empty, too long, or has spaces or control characters.
    """
    if not key or len(key) > MAX_KEY_CHARS or not key.isprintable() or any(char.isspace() for char in key):
        raise ConfigurationError(
            f"A task key has 1 to {MAX_KEY_CHARS} printable characters without spaces, got {key!r}."
        )
    return key
