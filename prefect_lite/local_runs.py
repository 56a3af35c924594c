"""``Task.submit`` and ``Task.map`` in this process: the flow's task runner, or threads outside of flows."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from prefect_lite.context import FlowRunContext
from prefect_lite.futures import PrefectFutureList
from prefect_lite.local_calls import parameters_of
from prefect_lite.task_runners import MAX_THREADS, TaskRunner, ThreadPoolTaskRunner

if TYPE_CHECKING:
    from prefect_lite.tasks import Task

_outside: ThreadPoolTaskRunner | None = None
_lock = threading.Lock()


def submit(task: Task[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
    """Start one run; see ``Task.submit``."""
    arguments = dict(kwargs)
    return_state = arguments.pop("return_state", False)
    wait_for = arguments.pop("wait_for", None)
    future = _task_runner().submit(task, parameters_of(task, args, arguments), wait_for)
    if return_state:
        future.wait()
        return future.state
    return future


def submit_many(
    task: Task[..., Any],
    calls: Iterable[tuple[tuple[Any, ...], Mapping[str, Any]]],
    wait_for: list[Any],
) -> PrefectFutureList[Any]:
    """Start many runs; their arguments bind."""
    runner = _task_runner()
    return PrefectFutureList(
        runner.submit(task, parameters_of(task, args, kwargs), wait_for or None) for args, kwargs in calls
    )


def _task_runner() -> TaskRunner:
    context = FlowRunContext.get()
    return context.task_runner if context is not None else _outside_of_flows()


def _outside_of_flows() -> TaskRunner:
    global _outside
    if _outside is None:
        with _lock:
            if _outside is None:  # another thread may have made it meanwhile
                _outside = ThreadPoolTaskRunner(MAX_THREADS).__enter__()
    return _outside


def close_threads() -> None:
    """End the threads once their runs have ended; the next run starts others."""
    global _outside
    runner, _outside = _outside, None
    if runner is not None:
        runner.__exit__(None, None, None)


def _after_fork() -> None:
    global _outside, _lock
    _outside = None  # its threads stayed in the parent
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_after_fork)
