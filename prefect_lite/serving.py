"""The one way from the SDK up to the worker: imported only when somebody serves."""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.settings import get_settings
from prefect_lite.task_runners import TaskRunner, ThreadPoolTaskRunner

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
    task_runner: TaskRunner | None = None,
    name: str = "",
) -> WorkerApp:
    """A worker for these tasks; see ``task_worker.serve`` for the arguments.

    Raises:
        ConfigurationError: No task, an impossible limit, or a task runner that a worker can't use.
        DuplicateTaskKey: Two tasks have one key.
    """
    from prefect_lite_worker.app import WorkerApp

    if task_runner is not None:
        if not isinstance(task_runner, ThreadPoolTaskRunner):
            raise ConfigurationError(
                "A worker runs functions in threads: use ThreadPoolTaskRunner, "
                f"not {type(task_runner).__name__}."
            )
        if task_runner.max_workers is not None:
            if limit is FromSettings.LIMIT:
                limit = get_settings().limit
            limit = task_runner.max_workers if limit is None else min(limit, task_runner.max_workers)
    return WorkerApp(tasks, limit=limit, status_server_port=status_server_port, name=name)
