"""Task keys: what a run names its task by.

``module.qualname`` of the function, unless ``key=`` says otherwise. Never the label, source or path: those
change or repeat, and a run whose key nobody serves would wait for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.main_module import import_name_of

MAX_KEY_CHARS = 512


def task_key_of(fn: Callable[..., Any]) -> str:
    """The default key of a function, or of an object that is callable."""
    named: Any = fn if hasattr(fn, "__qualname__") else type(fn)
    return f"{import_name_of(named)}.{named.__qualname__}"


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
