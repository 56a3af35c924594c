"""What a run can know about itself while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

if TYPE_CHECKING:
    from prefect_lite.options import Options
    from prefect_lite.tasks import Task


class TaskRun:
    """The record of a run as hooks and retry conditions see it.

    Attributes:
        run_id: 32 lower-case hex digits.
        task_key: Key of the task.
        run_count: Number of the current attempt, from 1.
        start_time_ns: When the first attempt seen by this process began, ``time.time_ns()``.
        state: The state that a hook or a condition is asked about, else None.
    """

    __slots__ = ("run_count", "run_id", "start_time_ns", "state", "task_key", "task_name")

    def __init__(self, run_id: str, task_key: str, task_name: str, run_count: int = 1) -> None:
        self.run_id = run_id
        self.task_key = task_key
        self.task_name = task_name
        self.run_count = run_count
        self.start_time_ns = time.time_ns()
        self.state: Any = None

    @property
    def id(self) -> UUID:
        """The run's id."""
        return UUID(self.run_id)

    @property
    def name(self) -> str:
        """Task name and the first digits of the id."""
        return f"{self.task_name}-{self.run_id[:3]}"

    @property
    def start_time(self) -> datetime:
        """When the run began here, aware, in UTC."""
        return datetime.fromtimestamp(self.start_time_ns / 1e9, tz=UTC)

    def __repr__(self) -> str:
        return f"TaskRun({self.name!r}, run_id={self.run_id!r}, run_count={self.run_count})"


class TaskRunContext:
    """The current run, for code inside a task: ``TaskRunContext.get()``.

    Attributes:
        task: The task that runs.
        options: Its options for this run (changed ones that travelled are applied).
        task_run: The run's record.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        sink: Where a worker takes log lines of this run, else None (a direct call).
        slot: On a worker, called with 1 when the run begins to wait for another run, and with -1 when it
            goes on. Its slot is free meanwhile: else tasks that wait for tasks could fill all for ever.
        prints: Print text that has no line end yet; used by ``log_prints``.
    """

    __slots__ = ("args", "kwargs", "options", "prints", "sink", "slot", "task", "task_run")

    def __init__(
        self,
        task: Task[Any, Any],
        options: Options,
        task_run: TaskRun,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        sink: Callable[[str, list[Any]], None] | None = None,
        slot: Callable[[int], None] | None = None,
    ) -> None:
        self.task = task
        self.options = options
        self.task_run = task_run
        self.args = args
        self.kwargs = kwargs
        self.sink = sink
        self.slot = slot
        self.prints = ""

    @staticmethod
    def get() -> TaskRunContext | None:
        """The run that this thread or coroutine belongs to, or None outside of runs."""
        return _current.get()

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments by parameter name, defaults included."""
        bound = self.task.signature.bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    @property
    def start_time(self) -> datetime:
        """When the run began here, aware, in UTC."""
        return self.task_run.start_time


_current: ContextVar[TaskRunContext | None] = ContextVar("prefect_lite_run", default=None)


def enter_run(context: TaskRunContext) -> Token[TaskRunContext | None]:
    """Make ``context`` the current run; give the token to ``leave_run``."""
    return _current.set(context)


def leave_run(token: Token[TaskRunContext | None]) -> None:
    """Undo ``enter_run``."""
    _current.reset(token)
