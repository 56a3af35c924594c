"""Where the code of a flow that is drawn finds the drawing: in the context of its run, as real runs do.

``submit`` and ``map`` find a task runner there that draws. Direct calls of tasks don't look for a context, as
that would cost all of them something; they are taken over while there are drawings.
"""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterable, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Self

from prefect_lite import task_calls
from prefect_lite.context import FlowRunContext, current_context, enter_run, leave_run
from prefect_lite.run_ids import new_run_id
from prefect_lite.runs import FlowRun
from prefect_lite.task_runners import TaskRunner

if TYPE_CHECKING:
    from prefect_lite.drawing import Drawing
    from prefect_lite.flows import Flow
    from prefect_lite.futures import PrefectFuture
    from prefect_lite.tasks import Task


class DrawnFlowContext(FlowRunContext):
    """The run of a flow that is drawn, for the code in it."""

    __slots__ = ("drawing",)

    def __init__(
        self, flow: Flow[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], drawing: Drawing
    ) -> None:
        record = FlowRun(new_run_id(), flow.name, flow.options.version)
        super().__init__(flow, flow.options, record, args, kwargs, None, current_context())
        self.drawing = drawing
        self.task_runner = _DrawingTaskRunner(drawing)


class _DrawingTaskRunner(TaskRunner):
    """Runs nothing."""

    def __init__(self, drawing: Drawing) -> None:
        self._drawing = drawing

    def duplicate(self) -> Self:
        return type(self)(self._drawing)

    def submit(
        self,
        task: Task[..., Any],
        parameters: dict[str, Any],
        wait_for: Any = None,
        dependencies: Mapping[str, Iterable[Any]] | None = None,
    ) -> PrefectFuture[Any]:
        return self._drawing.submit(task, (parameters, dependencies), wait_for)


def tracker() -> Drawing | None:
    """What notes the calls that are made here; None if they are to be made."""
    context = current_context()
    return context.drawing if context is not None else None


_open = 0
_opening = threading.Lock()


@contextmanager
def drawn(context: DrawnFlowContext) -> Generator[None]:
    """Calls that are made inside, in this thread or coroutine, are noted instead of made."""
    token = enter_run(context)
    _take_calls(1)
    try:
        yield
    finally:
        _take_calls(-1)
        leave_run(token)


def _take_calls(more: int) -> None:
    """Direct calls of the whole process come here, but only as long as there are drawings."""
    global _open
    with _opening:
        _open += more
        task_calls.call_by(_call if _open else None)


def _call(task: Task[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    drawing = tracker()
    if drawing is not None:
        return drawing.call(task, args, kwargs)
    from prefect_lite.direct import call

    return call(task, args, kwargs)
