"""Prefect's task API as a small, durable, fast distributed system.

Names are imported on first use, so that ``import prefect_lite`` costs nothing, the protocol can be imported
without the tasks, and the broker never loads a pickler.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from prefect_lite.version import __version__

if TYPE_CHECKING:
    from prefect_lite import runtime
    from prefect_lite.batch import batch
    from prefect_lite.client.orchestration import get_client
    from prefect_lite.context import get_run_context
    from prefect_lite.flows import Flow, flow
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
    from prefect_lite.tagging import tags
    from prefect_lite.task_runners import ProcessPoolTaskRunner, ThreadPoolTaskRunner
    from prefect_lite.task_worker import TaskWorker, aserve, serve
    from prefect_lite.tasks import Task, TaskOptions, exponential_backoff, task
    from prefect_lite.utilities.annotations import allow_failure, quote, unmapped

__all__ = [
    "Flow",
    "PrefectConcurrentFuture",
    "PrefectDistributedFuture",
    "PrefectFuture",
    "PrefectFutureList",
    "ProcessPoolTaskRunner",
    "State",
    "Task",
    "TaskOptions",
    "TaskWorker",
    "ThreadPoolTaskRunner",
    "__version__",
    "allow_failure",
    "as_completed",
    "aserve",
    "batch",
    "exponential_backoff",
    "flow",
    "get_client",
    "get_run_context",
    "get_run_logger",
    "quote",
    "runtime",
    "serve",
    "tags",
    "task",
    "unmapped",
    "wait",
]

_HOMES = {
    "prefect_lite.batch": ("batch",),
    "prefect_lite.client.orchestration": ("get_client",),
    "prefect_lite.context": ("get_run_context",),
    "prefect_lite.flows": ("Flow", "flow"),
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
    "prefect_lite.tagging": ("tags",),
    "prefect_lite.task_runners": ("ProcessPoolTaskRunner", "ThreadPoolTaskRunner"),
    "prefect_lite.task_worker": ("TaskWorker", "aserve", "serve"),
    "prefect_lite.tasks": ("Task", "TaskOptions", "exponential_backoff", "task"),
    "prefect_lite.utilities.annotations": ("allow_failure", "quote", "unmapped"),
}
_MODULE_OF = {name: module for module, names in _HOMES.items() for name in names}
_MODULES = {
    *("assets", "blocks", "cache_policies", "client", "context", "exceptions", "filesystems", "flows"),
    *("futures", "locking", "logging", "results", "runtime", "serializers", "states", "task_runners"),
    *("task_worker", "tasks", "testing", "transactions", "utilities"),
}
"""Work as attributes after ``import prefect_lite`` too, as in ``prefect_lite.states.Completed()``."""


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name in _MODULES:
        return import_module(f"{__name__}.{name}")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(module), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
