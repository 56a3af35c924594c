"""Task keys: what a run names its task by.

``module.qualname`` of the function, unless ``key=`` says otherwise. Never the label, source or path: those
change or repeat, and a run whose key nobody serves would wait for ever.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from prefect_lite.exceptions import ConfigurationError, DuplicateTaskKey
from prefect_lite.main_module import import_name_of

if TYPE_CHECKING:
    from prefect_lite.tasks import Task

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


def index_tasks(tasks: Iterable[Task[..., Any]]) -> dict[str, Task[..., Any]]:
    """All keys and aliases that ``tasks`` answer to.

    Raises:
        DuplicateTaskKey: Two different tasks share one.
    """
    index: dict[str, Task[..., Any]] = {}
    for task in tasks:
        for key in (task.key, *task.options.aliases):
            other = index.setdefault(key, task)
            if other is not task and (other.fn is not task.fn or other.options != task.options):
                raise DuplicateTaskKey(
                    f"Two tasks have the key {key!r}: {_place(other)} and {_place(task)}. "
                    f"Give one of them another with @task(key=...)."
                )
    return index


def _place(task: Task[..., Any]) -> str:
    try:
        return f"{inspect.getsourcefile(task.fn)}:{inspect.getsourcelines(task.fn)[1]}"
    except (OSError, TypeError):  # no source: built in, or made at run time
        return repr(task.fn)
