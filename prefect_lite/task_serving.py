"""Serving one task: ``task.serve()`` is ``prefect_lite.serve(task)``."""

from __future__ import annotations

from concurrent.futures import Executor
from typing import TYPE_CHECKING, Any, TypedDict, Unpack, cast

if TYPE_CHECKING:
    from prefect_lite.task_runners import TaskRunner
    from prefect_lite.tasks import Task


class ServeSettings(TypedDict, total=False):
    """What ``serve`` takes beside the task runner.

    Attributes:
        limit: Runs at a time; None for no limit. Not given: the setting ``PREFECT_LITE_LIMIT`` (10).
        status_server_port: Port for ``GET /health`` and ``/status`` on loopback; None has none.
        timeout: Return after so many seconds; None serves until stopped.
    """

    limit: int | None
    status_server_port: int | None
    timeout: float | None


class TaskServing:
    """See the module's docstring."""

    def serve(
        self, *, task_runner: TaskRunner | Executor | None = None, **settings: Unpack[ServeSettings]
    ) -> None:
        """Execute runs of this task until the process is stopped; see ``task_worker.serve``.

        Args:
            task_runner: Where runs are executed. Default: in threads, coroutines on an event loop.
            **settings: ``limit``, ``status_server_port``, ``timeout``: see ``ServeSettings``.
        """
        from prefect_lite.task_worker import serve

        serve(cast("Task[..., Any]", self), task_runner=task_runner, **settings)

    async def aserve(
        self, *, task_runner: TaskRunner | Executor | None = None, **settings: Unpack[ServeSettings]
    ) -> None:
        """``serve`` in the caller's event loop, without signal handlers; the same arguments."""
        from prefect_lite.task_worker import aserve

        await aserve(cast("Task[..., Any]", self), task_runner=task_runner, **settings)
