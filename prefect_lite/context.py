"""What a run can know about itself while it runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextvars import ContextVar, Token
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol
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
        version: Of the task's definition, if it has one.
        given_name: What the option ``task_run_name`` calls the run, if it does.
    """

    __slots__ = (
        "given_name", "run_count", "run_id", "start_time_ns", "state", "task_key", "task_name", "version",
    )  # fmt: skip

    def __init__(
        self, run_id: str, task_key: str, task_name: str, run_count: int = 1, version: str | None = None
    ) -> None:
        self.run_id = run_id
        self.task_key = task_key
        self.task_name = task_name
        self.run_count = run_count
        self.start_time_ns = time.time_ns()
        self.state: Any = None
        self.version = version
        self.given_name: str | None = None

    @property
    def id(self) -> UUID:
        """The run's id."""
        return UUID(self.run_id)

    @property
    def name(self) -> str:
        """What ``task_run_name`` says, else task name and the first digits of the id."""
        return self.given_name or f"{self.task_name}-{self.run_id[:3]}"

    @property
    def start_time(self) -> datetime:
        """When the run began here, aware, in UTC."""
        return datetime.fromtimestamp(self.start_time_ns / 1e9, tz=UTC)

    def __repr__(self) -> str:
        return f"TaskRun({self.name!r}, run_id={self.run_id!r}, run_count={self.run_count})"


class RunLease(Protocol):
    """What a worker does for a run, and for tasks that the run calls directly."""

    def line(self, line: list[Any]) -> None:
        """Take a log line: level, unix milliseconds, logger, text."""
        ...

    def lend(self, waits: int) -> None:
        """Code of the run begins (1) or ends (-1) to wait for another run.

        The slot is free while any of it waits: else tasks that wait for tasks could fill all for ever.
        """
        ...


class TaskRunContext:
    """The current run, for code inside a task: ``TaskRunContext.get()``.

    Attributes:
        task: The task that runs.
        options: Its options for this run (changed ones that travelled are applied).
        task_run: The run's record.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        lease: The worker's side of this run, or of the run that called it directly; None outside of workers.
        prints: Print text that has no line end yet; used by ``log_prints``.
    """

    __slots__ = ("args", "kwargs", "lease", "options", "prints", "task", "task_run")

    def __init__(
        self,
        task: Task[Any, Any],
        options: Options,
        task_run: TaskRun,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        lease: RunLease | None = None,
    ) -> None:
        self.task = task
        self.options = options
        self.task_run = task_run
        self.args = args
        self.kwargs = kwargs
        self.lease = lease
        self.prints = ""

    @staticmethod
    def get() -> TaskRunContext | None:
        """The run that this thread or coroutine belongs to, or None outside of runs."""
        return _current.get()

    @property
    def slot(self) -> Callable[[int], None] | None:
        """How to lend the run's slot, see ``RunLease.lend``; None when there is none."""
        return self.lease.lend if self.lease is not None else None

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
