"""The current task run.

Attributes:
    id: Its id as text; None outside of task runs, as for all that follow unless they say otherwise.
    name: What ``task_run_name`` calls it.
    task_name: Name of the task.
    tags: A sorted list; empty outside.
    parameters: Arguments by name, defaults included; an empty dict outside.
    run_count: Number of the attempt, from 1; 0 outside.
    api_url, ui_url: None: there is no server with pages for runs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect_lite.context import TaskRunContext
from prefect_lite.runtime.overrides import overridden


def _of_run(read: Callable[[TaskRunContext], Any], outside: Callable[[], Any]) -> Callable[[], Any]:
    def value() -> Any:
        context = TaskRunContext.get()
        return read(context) if context is not None else outside()

    return value


def _none() -> None:
    return None


_ATTRIBUTES: dict[str, Callable[[], Any]] = {
    "api_url": _none,
    "id": _of_run(lambda context: str(context.task_run.id), _none),
    "name": _of_run(lambda context: context.task_run.name, _none),
    "parameters": _of_run(lambda context: context.parameters, dict),
    "run_count": _of_run(lambda context: context.task_run.run_count, int),
    "tags": _of_run(lambda context: sorted(context.task_run.tags), list),
    "task_name": _of_run(lambda context: context.task_run.task_name, _none),
    "ui_url": _none,
}


def __getattr__(name: str) -> Any:
    read = _ATTRIBUTES.get(name)
    if read is None:
        raise AttributeError(f"{__name__} has no attribute {name!r}")
    return overridden("task_run", name, read())


def __dir__() -> list[str]:
    return sorted(_ATTRIBUTES)
