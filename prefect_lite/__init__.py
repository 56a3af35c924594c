"""Prefect's task API as a small, durable, fast distributed system.

Names are imported on first use, so that ``import prefect_lite`` costs nothing, the protocol can be imported
without the tasks, and the broker never loads a pickler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_lite.version import __version__

if TYPE_CHECKING:
    from prefect_lite.batch import batch
    from prefect_lite.futures import (
        PrefectConcurrentFuture,
        PrefectDistributedFuture,
        PrefectFuture,
        PrefectFutureList,
        as_completed,
        wait,
    )
    from prefect_lite.logging import get_run_logger
    from prefect_lite.states import State
    from prefect_lite.task_worker import TaskWorker, aserve, serve
    from prefect_lite.tasks import Task, TaskOptions, exponential_backoff, task
    from prefect_lite.utilities.annotations import allow_failure, quote, unmapped

__all__ = [
    "PrefectConcurrentFuture",
    "PrefectDistributedFuture",
    "PrefectFuture",
    "PrefectFutureList",
    "State",
    "Task",
    "TaskOptions",
    "TaskWorker",
    "__version__",
    "allow_failure",
    "as_completed",
    "aserve",
    "batch",
    "exponential_backoff",
    "get_run_logger",
    "quote",
    "serve",
    "task",
    "unmapped",
    "wait",
]

_HOMES = {
    "prefect_lite.batch": ("batch",),
    "prefect_lite.futures": (
        "PrefectConcurrentFuture",
        "PrefectDistributedFuture",
        "PrefectFuture",
        "PrefectFutureList",
        "as_completed",
        "wait",
    ),
    "prefect_lite.logging": ("get_run_logger",),
    "prefect_lite.states": ("State",),
    "prefect_lite.task_worker": ("TaskWorker", "aserve", "serve"),
    "prefect_lite.tasks": ("Task", "TaskOptions", "exponential_backoff", "task"),
    "prefect_lite.utilities.annotations": ("allow_failure", "quote", "unmapped"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
