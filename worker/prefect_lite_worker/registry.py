"""Which tasks this worker executes, by key and by older keys; and finding them from ``MODULE[:task,...]``."""

from __future__ import annotations

import importlib
import importlib.util
import os
import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from prefect_lite.exceptions import ConfigurationError, DuplicateTaskKey
from prefect_lite.tasks import Task

AnyTask = Task[Any, Any]


class Registry:
    """The served tasks.

    Args:
        tasks: What to serve.
        may_be_empty: They will come later, by ``replace``.

    Raises:
        ConfigurationError: There is none, or one is no task.
        DuplicateTaskKey: Two different tasks have one key or alias.
    """

    def __init__(self, tasks: Iterable[AnyTask], *, may_be_empty: bool = False) -> None:
        self.tasks: list[AnyTask] = []
        self._by_key: dict[str, AnyTask] = {}
        for task in tasks:
            self._add(task)
        if not self.tasks and not may_be_empty:
            raise ConfigurationError("serve() needs at least one task.")

    def _add(self, task: AnyTask) -> None:
        if not isinstance(task, Task):
            hint = " Decorate it with @task." if callable(task) else ""
            raise ConfigurationError(f"serve() takes tasks, got {task!r}.{hint}")
        if any(known is task for known in self.tasks):
            return
        for key in (task.key, *task.aliases):
            other = self._by_key.setdefault(key, task)
            if other is not task:
                raise DuplicateTaskKey(
                    f"{task.name!r} and {other.name!r} both have the key {key!r}. "
                    "Give one of them its own: @task(key=...)."
                )
        self.tasks.append(task)

    def replace(self, task: AnyTask) -> None:
        """Serve another task from now on, in place of any with the same keys: it was defined anew."""
        self.tasks = [known for known in self.tasks if known.key != task.key]
        self.tasks.append(task)
        self._by_key.update(dict.fromkeys((task.key, *task.aliases), task))

    @property
    def keys(self) -> list[str]:
        """All served keys, aliases too, sorted."""
        return sorted(self._by_key)

    def get(self, key: str) -> AnyTask | None:
        """The task with this key or alias."""
        return self._by_key.get(key)


def load_tasks(targets: Sequence[str]) -> list[AnyTask]:
    """Find tasks from ``MODULE``, ``MODULE:task,...`` or ``path/to/file.py[:task,...]``.

    Args:
        targets: What people write after ``prefect-lite worker``. Without names, all tasks of the module.

    Raises:
        ConfigurationError: A module can't be imported, or has no such task.
    """
    found: list[AnyTask] = []
    for target in targets:
        module_name, _, names = target.partition(":")
        module = _import(module_name)
        if names:
            found += [_named(module, name.strip()) for name in names.split(",") if name.strip()]
            continue
        here = [value for value in vars(module).values() if isinstance(value, Task)]
        if not here:
            raise ConfigurationError(f"{module_name!r} has no tasks.")
        found += here
    return found


def _named(module: ModuleType, name: str) -> AnyTask:
    value = getattr(module, name, None)
    if isinstance(value, Task):
        return value
    known = ", ".join(key for key, task in vars(module).items() if isinstance(task, Task)) or "none"
    problem = "is no task" if value is not None else "does not exist"
    raise ConfigurationError(f"{module.__name__}:{name} {problem}; tasks there: {known}.")


def _import(name: str) -> ModuleType:
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # as `python -m` does; console scripts don't
    if name.endswith(".py"):
        name = _module_of(Path(name))
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as exc:
        if exc.name is not None and (name == exc.name or name.startswith(f"{exc.name}.")):
            raise ConfigurationError(f"There is no module {name!r} here ({os.getcwd()}).") from None
        raise _not_importable(name, exc) from None
    except Exception as exc:
        raise _not_importable(name, exc) from None


def _not_importable(name: str, exc: Exception) -> ConfigurationError:
    """The user's mistake with the user's lines; ours and the import machinery's tell them nothing."""
    trace = exc.__traceback__
    while trace is not None and (
        trace.tb_frame.f_code.co_filename.startswith("<frozen importlib")
        or trace.tb_frame.f_code.co_filename in (__file__, importlib.__file__)
    ):
        trace = trace.tb_next
    lines = "".join(traceback.format_exception(type(exc), exc, trace)).rstrip()
    return ConfigurationError(f"The module {name!r} can't be imported:\n{lines}")


def _module_of(path: Path) -> str:
    """The import name of a file, so that its task keys are the same as for those who import it."""
    path = path.resolve()
    if not path.is_file():
        raise ConfigurationError(f"There is no file {path}.")
    parts, folder = [path.stem], path.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    return ".".join(parts)
