"""The one way from the SDK up to the worker: imported only when somebody serves."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import Executor
from enum import Enum
from typing import TYPE_CHECKING, Any

from prefect_lite import child_program
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.settings import get_settings
from prefect_lite.task_runners import (
    ExecutorTaskRunner,
    ProcessPoolTaskRunner,
    TaskRunner,
    ThreadPoolTaskRunner,
)

if TYPE_CHECKING:
    from prefect_lite_worker.app import WorkerApp

    from prefect_lite.tasks import Task


class FromSettings(Enum):
    """Stands for "the setting decides" where None has a meaning of its own."""

    LIMIT = "PREFECT_LITE_LIMIT"


def make_worker(
    tasks: Sequence[Task[Any, Any]],
    *,
    limit: int | FromSettings | None,
    status_server_port: int | None = None,
    task_runner: TaskRunner | Executor | None = None,
    name: str = "",
) -> WorkerApp:
    """A worker for these tasks; see ``task_worker.serve`` for the arguments.

    Raises:
        ConfigurationError: No task, an impossible limit, or a task runner that a worker can't use.
        DuplicateTaskKey: Two tasks have one key.
    """
    from prefect_lite_worker.app import WorkerApp

    if child_program.imported_only:
        raise ConfigurationError(
            "serve() was called while a child process imported the program: put it under "
            '`if __name__ == "__main__":`.'
        )
    runner, most = _runner(task_runner)
    if most is not None:
        if limit is FromSettings.LIMIT:
            limit = get_settings().limit
        limit = most if limit is None else min(limit, most)
    return WorkerApp(tasks, limit=limit, status_server_port=status_server_port, name=name, runner=runner)


def make_open_ended_worker(
    tasks: Sequence[Task[Any, Any]], *, limit: int | FromSettings | None, name: str
) -> WorkerApp:
    """A worker that takes further tasks while it runs (``serve_also``), for test harnesses.

    Raises:
        ConfigurationError: An impossible limit.
        DuplicateTaskKey: Two tasks have one key.
    """
    from prefect_lite_worker.app import WorkerApp

    return WorkerApp(tasks, limit=limit, name=name, open_ended=True)


def _runner(
    task_runner: TaskRunner | Executor | None,
) -> tuple[ProcessPoolTaskRunner | Executor | None, int | None]:
    """Where a worker executes runs, None in its own threads; and how many at a time, if that is said."""
    if task_runner is None:
        return None, None
    if isinstance(task_runner, ThreadPoolTaskRunner):
        return None, task_runner.max_workers
    if isinstance(task_runner, ProcessPoolTaskRunner):
        return task_runner, task_runner.max_workers or available_cpus()
    executor = task_runner.executor if isinstance(task_runner, ExecutorTaskRunner) else task_runner
    if not isinstance(executor, Executor):
        raise ConfigurationError(
            f"A worker can't run tasks in {task_runner!r}: use ThreadPoolTaskRunner, ProcessPoolTaskRunner "
            "or a concurrent.futures.Executor."
        )
    # One that does not tell is given as many runs as the worker has slots.
    return executor, getattr(executor, "_max_workers", None)


def available_cpus() -> int:
    """Processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on macOS
        return os.cpu_count() or 1
