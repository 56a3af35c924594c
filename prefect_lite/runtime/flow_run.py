"""The current flow run, also for code of its tasks.

Attributes:
    id: Its id as text; None outside of flow runs, as for all that follow unless they say otherwise. The only
        one that a task on a worker knows.
    name: What ``flow_run_name`` calls it.
    flow_name, flow_version: Name and version of the flow.
    tags: A sorted list; empty outside.
    parameters: Arguments by name, defaults included; an empty dict outside.
    run_count: Number of the attempt, from 1; 0 outside.
    parent_flow_run_id, root_flow_run_id: Of the flow run around it, and of the outermost.
    scheduled_start_time: When it was to start; the time now outside.
    parent_deployment_id, job_variables, api_url, ui_url: None: there are no deployments or pages here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prefect_lite import clock
from prefect_lite.context import FlowRunContext, TaskRunContext
from prefect_lite.runtime.overrides import overridden


def _of_run(read: Callable[[FlowRunContext], Any], outside: Callable[[], Any]) -> Callable[[], Any]:
    def value() -> Any:
        context = FlowRunContext.get()
        return read(context) if context is not None else outside()

    return value


def _none() -> None:
    return None


def _id_of_task_run() -> str | None:
    context = TaskRunContext.get()
    return _text(context.task_run.flow_run_id) if context is not None else None


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


_ATTRIBUTES: dict[str, Callable[[], Any]] = {
    "api_url": _none,
    "flow_name": _of_run(lambda context: context.flow_run.flow_name, _none),
    "flow_version": _of_run(lambda context: context.flow_run.version, _none),
    "id": _of_run(lambda context: str(context.flow_run.id), _id_of_task_run),
    "job_variables": _none,
    "name": _of_run(lambda context: context.flow_run.name, _none),
    "parameters": _of_run(lambda context: context.parameters, dict),
    "parent_deployment_id": _none,
    "parent_flow_run_id": _of_run(lambda context: _text(context.flow_run.parent_flow_run_id), _none),
    "root_flow_run_id": _of_run(lambda context: _text(context.flow_run.root_flow_run_id), _none),
    "run_count": _of_run(lambda context: context.flow_run.run_count, int),
    "scheduled_start_time": _of_run(lambda context: context.flow_run.expected_start_time, clock.now),
    "tags": _of_run(lambda context: sorted(context.flow_run.tags), list),
    "ui_url": _none,
}


def __getattr__(name: str) -> Any:
    read = _ATTRIBUTES.get(name)
    if read is None:
        raise AttributeError(f"{__name__} has no attribute {name!r}")
    return overridden("flow_run", name, read())


def __dir__() -> list[str]:
    return sorted(_ATTRIBUTES)
