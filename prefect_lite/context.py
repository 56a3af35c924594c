"""The runs that the current code belongs to.

One context variable holds the innermost; each context knows the one around it, so a task finds its flow and a
flow inside a task finds that task.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar, Token
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol, cast

from prefect_lite.exceptions import MissingContextError
from prefect_lite.runs import FlowRun, RunRecord, TaskRun

if TYPE_CHECKING:
    from prefect_lite.flow_options import FlowOptions
    from prefect_lite.flows import Flow
    from prefect_lite.options import Options
    from prefect_lite.task_runners import TaskRunner
    from prefect_lite.tasks import Task
    from prefect_lite.transactions import BaseTransaction
    from prefect_lite.visualization import Drawing

__all__ = ["FlowRunContext", "RunContext", "TaskRun", "TaskRunContext", "get_run_context"]


class RunLease(Protocol):
    """What a worker does for a run, and for tasks that the run calls directly.

    Attributes:
        lock_patience_seconds: For so long at least it waits for a lock before its slot is lent.
    """

    lock_patience_seconds: float

    def line(self, line: list[Any]) -> None:
        """Take a log line: level, unix milliseconds, logger, text."""
        ...

    def lend(self, waits: int) -> None:
        """Code of the run begins (1) or ends (-1) to wait for another run.

        The slot is free while any of it waits: else tasks that wait for tasks could fill all for ever.
        """
        ...


class RunContext:
    """What the engine needs to execute a run, of a task or of a flow.

    Attributes:
        definition: The task or flow.
        options: Its options for this run (changed ones that travelled are applied).
        run: The run's record.
        args: Positional arguments of the call.
        kwargs: Keyword arguments of the call.
        lease: The worker's side of this run, or of the run that called it directly; None outside of workers.
        prints: Print text that has no line end yet; used by ``log_prints``.
        enclosing: The context around this one, or None.
        drawing: What notes the calls of a flow that is drawn, see ``visualization.py``; None in real runs.
        transaction: What the run's code asked for as its transaction, where nothing is kept; None: nothing.
    """

    __slots__ = (
        "args", "definition", "enclosing", "kwargs", "lease", "options", "prints", "run", "transaction",
    )  # fmt: skip
    drawing: Drawing | None = None

    def __init__(
        self,
        definition: Any,
        options: Any,
        run: Any,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        lease: RunLease | None = None,
        enclosing: RunContext | None = None,
    ) -> None:
        self.definition = definition
        self.options = options
        self.run: RunRecord = run
        self.args = args
        self.kwargs = kwargs
        self.lease = lease
        self.prints = ""
        self.enclosing = enclosing
        self.transaction: BaseTransaction | None = None

    @property
    def slot(self) -> Callable[[int], None] | None:
        """How to lend the run's slot, see ``RunLease.lend``; None when there is none."""
        return self.lease.lend if self.lease is not None else None

    @property
    def parameters(self) -> dict[str, Any]:
        """The arguments by parameter name, defaults included."""
        bound = self.definition.signature.bind(*self.args, **self.kwargs)
        bound.apply_defaults()
        return dict(bound.arguments)

    @property
    def start_time(self) -> datetime | None:
        """When the run began here (aware, UTC)."""
        return self.run.start_time

    @property
    def log_prints(self) -> bool:
        """Whether prints go to the run's log: its own option, else that of the flow around it."""
        context: RunContext | None = self
        while context is not None:
            if context.options.log_prints is not None:
                return bool(context.options.log_prints)
            context = context.enclosing
        return False


class TaskRunContext(RunContext):
    """The current task run, for code inside a task: ``TaskRunContext.get()``."""

    __slots__ = ()

    if TYPE_CHECKING:
        options: Options

    @staticmethod
    def get() -> TaskRunContext | None:
        """The task run that this thread or coroutine belongs to, or None outside of task runs."""
        context = _current.get()
        while context is not None and not isinstance(context, TaskRunContext):
            context = context.enclosing
        return context

    @property
    def task(self) -> Task[Any, Any]:
        """The task that runs."""
        return self.definition

    @property
    def task_run(self) -> TaskRun:
        """The run's record."""
        return cast("TaskRun", self.run)

    @property
    def flow_context(self) -> FlowRunContext | None:
        """The flow run around it in this process."""
        context = self.enclosing
        while context is not None and not isinstance(context, FlowRunContext):
            context = context.enclosing
        return context


class FlowRunContext(RunContext):
    """The current flow run, for code inside a flow: ``FlowRunContext.get()``.

    Attributes:
        task_runner: Where ``submit`` and ``map`` run tasks.
    """

    __slots__ = ("__weakref__", "task_runner")

    if TYPE_CHECKING:
        options: FlowOptions

    task_runner: TaskRunner

    @staticmethod
    def get() -> FlowRunContext | None:
        """The flow run that this thread or coroutine belongs to, or None outside of flow runs."""
        context = _current.get()
        while context is not None and not isinstance(context, FlowRunContext):
            context = context.enclosing
        return context

    @property
    def flow(self) -> Flow[Any, Any]:
        """The flow that runs."""
        return self.definition

    @property
    def flow_run(self) -> FlowRun:
        """The run's record."""
        return cast("FlowRun", self.run)


_current: ContextVar[RunContext | None] = ContextVar("prefect_lite_run", default=None)
_UNSET: Any = object()

active_transaction: ContextVar[BaseTransaction | None] = ContextVar("prefect_lite_transaction", default=None)
"""The innermost transaction that has begun; ``transactions.py`` sets it."""


def current_context() -> RunContext | None:
    """The innermost run that this thread or coroutine belongs to, or None."""
    return _current.get()


def get_run_context() -> TaskRunContext | FlowRunContext:
    """The innermost run that this thread or coroutine belongs to.

    Raises:
        MissingContextError: Called outside of runs.
    """
    context = _current.get()
    if context is None:
        raise MissingContextError(
            "No run context available. You are not in a flow or task run context: this works only inside a "
            "task or flow, while it runs."
        )
    return cast("TaskRunContext | FlowRunContext", context)


def enter_run(context: RunContext) -> Token[RunContext | None]:
    """Make ``context`` the current run; give the token to ``leave_run``."""
    if _current.get(_UNSET) is _UNSET:
        # To go back to a value is safe, to go back to none is not: until Python 3.12 a collection may run in
        # the midst of that, and if it closes a generator task the variable remembers a freed object.
        _current.set(None)
    return _current.set(context)


def stay_in_run(context: RunContext) -> None:
    """Make ``context`` the current run until the context variables of this thread or coroutine are gone."""
    _current.set(context)


def leave_run(token: Token[RunContext | None]) -> None:
    """Undo ``enter_run``."""
    try:
        _current.reset(token)
    except ValueError:  # a coroutine that is closed from outside, where its own context is gone
        return
