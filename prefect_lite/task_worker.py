"""Serving tasks: ``serve(add, mul)`` executes their runs until the process is stopped."""

from __future__ import annotations

import asyncio
from contextvars import Context
from datetime import datetime
from typing import TYPE_CHECKING, Any

from prefect_lite.exceptions import ConfigurationError
from prefect_lite.serving import FromSettings, make_worker

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from prefect_lite.runs import TaskRun
    from prefect_lite.states import State
    from prefect_lite.task_runners import TaskRunner
    from prefect_lite.tasks import Task

__all__ = ["TaskWorker", "aserve", "serve"]


class TaskWorker:
    """A worker as an object: start it, look at it, stop it. Use it once.

    Args:
        tasks: What to execute.
        limit: Runs at a time; None for no limit. Default: the setting ``PREFECT_LITE_LIMIT`` (10).
        task_runner: Where runs are executed: ``ThreadPoolTaskRunner`` (default), ``ProcessPoolTaskRunner``,
            or any executor of ``concurrent.futures``.
        status_server_port: Port for ``GET /health`` and ``/status`` on loopback; None has none.

    Raises:
        ConfigurationError: No task, an impossible limit or task runner.
        DuplicateTaskKey: Two tasks have one key.
    """

    def __init__(
        self,
        *tasks: Task[Any, Any],
        limit: int | FromSettings | None = FromSettings.LIMIT,
        task_runner: TaskRunner | Executor | None = None,
        status_server_port: int | None = None,
    ) -> None:
        self.tasks = list(tasks)
        self._app = make_worker(
            tasks, limit=limit, task_runner=task_runner, status_server_port=status_server_port
        )

    @property
    def limit(self) -> int:
        """Runs at a time."""
        return self._app.limit

    @property
    def client_id(self) -> str:
        """Name of this worker: host and process id."""
        return self._app.name

    @property
    def task_keys(self) -> set[str]:
        """The served keys, aliases too."""
        return set(self._app.registry.keys)

    @property
    def started_at(self) -> datetime | None:
        """When it was started (aware, UTC), or None."""
        return self._app.started_at

    @property
    def started(self) -> bool:
        """Whether it was started."""
        return self._app.started_at is not None

    @property
    def stopping(self) -> bool:
        """Whether it takes no more runs."""
        return self._app.stopping

    @property
    def current_tasks(self) -> int:
        """Runs under way."""
        return self._app.current

    @property
    def available_tasks(self) -> int:
        """Slots that are free."""
        return self._app.available

    @property
    def finished_task_runs(self) -> int:
        """Runs that have ended here."""
        return self._app.finished

    async def start(self, timeout: float | None = None) -> None:
        """Execute runs on this event loop until stopped; see ``aserve``.

        Args:
            timeout: Stop after so many seconds.
        """
        await self._app.aserve(timeout)

    def run(self, timeout: float | None = None) -> None:
        """The same as the process's main job; see ``serve``."""
        self._app.serve(timeout)

    async def execute_task_run(self, task_run: TaskRun) -> State[Any]:
        """Execute a run here and now, without a broker: a test that calls what a worker would.

        With retries, their delays (see ``prefect_lite.testing.frozen_clock``), timeout and hooks. A failure
        is not raised; it is the run's state.

        Args:
            task_run: What ``create_run(parameters=...)`` gave. Its state and its counts are set.

        Returns:
            Its final state, with the result.

        Raises:
            ConfigurationError: This worker does not serve the run's task, or the run has no parameters.
        """
        from prefect_lite import direct, run_creation, run_ends

        task = self._app.registry.get(task_run.task_key)
        if task is None:
            served = ", ".join(sorted(self.task_keys))
            raise ConfigurationError(f"This worker does not serve {task_run.task_key!r}; it serves {served}.")
        if task_run.parameters is None:
            raise ConfigurationError(
                f"Run {task_run.id} has no parameters here, so nothing can be called with them; make it with "
                "create_run(parameters={...})."
            )
        args, kwargs = run_creation.call_of(task, task_run.parameters)
        call = (task, args, kwargs, None, task_run, True)
        caller = asyncio.current_task()
        requests = caller.cancelling() if caller is not None else 0
        # What runs on a worker has nothing of the context of whoever asked for it.
        if task.isasync:
            running = asyncio.get_running_loop().create_task(direct.aexecute(*call), context=Context())
            outcome = await running
        else:
            outcome = await asyncio.to_thread(Context().run, direct.execute, *call)
        state = task_run.state = run_ends.state_of(outcome, task_run)
        if caller is not None and caller.cancelling() > requests:
            raise asyncio.CancelledError  # of the caller; the coroutine has taken it for its own
        return state

    def stop(self) -> None:
        """Begin to stop: runs may finish within the grace time. A second call hands them back at once."""
        self._app.stop("stop() was called")


def serve(
    *tasks: Task[Any, Any],
    limit: int | FromSettings | None = FromSettings.LIMIT,
    status_server_port: int | None = None,
    timeout: float | None = None,
    task_runner: TaskRunner | Executor | None = None,
) -> None:
    """Execute runs of these tasks.

    SIGTERM drains (``PREFECT_LITE_GRACE_SECONDS``), hands the rest back and exits with 0; a second one hands
    back at once. Ctrl-C does the same and returns.

    Args:
        tasks: What to execute.
        limit: Runs at a time; None for no limit. Default: the setting ``PREFECT_LITE_LIMIT`` (10).
        status_server_port: Port for ``GET /health`` and ``/status`` on loopback; None has none.
        timeout: Return after so many seconds; None serves until stopped.
        task_runner: Where runs are executed: ``ThreadPoolTaskRunner`` (default), ``ProcessPoolTaskRunner``,
            or any executor of ``concurrent.futures``.

    Raises:
        ConfigurationError: No task, an impossible value, or called under a running event loop.
        DuplicateTaskKey: Two tasks have one key.
        AuthenticationFailed, ProtocolVersionError: The broker can't be used.
    """
    app = make_worker(tasks, limit=limit, status_server_port=status_server_port, task_runner=task_runner)
    app.serve(timeout)


async def aserve(
    *tasks: Task[Any, Any],
    limit: int | FromSettings | None = FromSettings.LIMIT,
    status_server_port: int | None = None,
    timeout: float | None = None,
    task_runner: TaskRunner | Executor | None = None,
) -> None:
    """``serve`` in the caller's event loop: coroutines run there, and no signal handlers are installed.

    Cancel it to stop: what runs is cancelled and handed back. Arguments and errors as for ``serve``.
    """
    app = make_worker(tasks, limit=limit, status_server_port=status_server_port, task_runner=task_runner)
    await app.aserve(timeout)
