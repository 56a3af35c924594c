"""``runtime.task_run`` and ``runtime.flow_run``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from prefect_lite import runtime, task
from prefect_lite.context import FlowRunContext, TaskRunContext
from prefect_lite.flows import flow
from prefect_lite.runtime import flow_run, task_run
from prefect_lite.tagging import tags

OF_TASK_RUNS = ["api_url", "id", "name", "parameters", "run_count", "tags", "task_name", "ui_url"]
OF_FLOW_RUNS = [
    "api_url", "flow_name", "flow_version", "id", "job_variables", "name", "parameters",
    "parent_deployment_id", "parent_flow_run_id", "root_flow_run_id", "run_count", "scheduled_start_time",
    "tags", "ui_url",
]  # fmt: skip


def values(module: Any) -> dict[str, Any]:
    return {name: getattr(module, name) for name in dir(module)}


def test_they_have_the_attributes_of_prefect() -> None:
    assert dir(task_run) == OF_TASK_RUNS
    assert dir(flow_run) == OF_FLOW_RUNS
    assert runtime.task_run is task_run
    assert runtime.flow_run is flow_run
    for module in (task_run, flow_run, runtime):
        with pytest.raises(AttributeError, match="no_such"):
            module.no_such  # noqa: B018


def test_outside_of_runs_they_are_empty() -> None:
    empty: dict[str, Any] = {"parameters": {}, "tags": [], "run_count": 0}
    assert values(task_run) == {**dict.fromkeys(OF_TASK_RUNS), **empty}
    now = flow_run.scheduled_start_time
    assert abs((datetime.now(UTC) - now).total_seconds()) < 60
    assert {**values(flow_run), "scheduled_start_time": None} == {**dict.fromkeys(OF_FLOW_RUNS), **empty}


def test_inside_they_tell_of_the_innermost_run_of_their_kind() -> None:
    @task(tags={"b"}, task_run_name="see-{x}", retries=1)
    def see(x: int, y: int = 2) -> Any:
        if task_run.run_count == 1:
            raise ValueError
        record = TaskRunContext.get().task_run  # type: ignore[union-attr]
        return record, values(task_run), values(flow_run)

    @flow(version="7", flow_run_name="child-{n}")
    def child(n: int) -> Any:
        return see(n)

    @flow
    def parent() -> Any:
        with tags("a"):
            return FlowRunContext.get().flow_run, child(5)  # type: ignore[union-attr]

    outer, (record, of_task, of_flow) = parent()
    assert of_task == {
        "api_url": None,
        "id": str(record.id),
        "name": "see-5",
        "parameters": {"x": 5, "y": 2},
        "run_count": 2,
        "tags": ["a", "b"],
        "task_name": "see",
        "ui_url": None,
    }
    assert of_flow.pop("id") == str(record.flow_run_id)
    assert of_flow.pop("scheduled_start_time").tzinfo is UTC
    assert of_flow == {
        "api_url": None,
        "flow_name": "child",
        "flow_version": "7",
        "job_variables": None,
        "name": "child-5",
        "parameters": {"n": 5},
        "parent_deployment_id": None,
        "parent_flow_run_id": str(outer.id),
        "root_flow_run_id": str(outer.id),
        "run_count": 1,
        "tags": ["a"],
        "ui_url": None,
    }


def test_a_task_without_its_flow_still_knows_its_id() -> None:
    @task
    def see() -> Any:
        context = TaskRunContext.get()
        assert context is not None
        context.task_run.flow_run_id = context.task_run.id  # as on a worker, where the flow is elsewhere
        return flow_run.id, task_run.id, flow_run.name

    flow_run_id, task_run_id, name = see()
    assert flow_run_id == task_run_id
    assert name is None


def test_the_environment_overrides(monkeypatch: pytest.MonkeyPatch) -> None:
    def given(what: str, text: str) -> None:
        monkeypatch.setenv(f"PREFECT_LITE__RUNTIME__{what}", text)

    given("TASK_RUN__NAME", "somebody")
    given("TASK_RUN__RUN_COUNT", "3")
    given("FLOW_RUN__SCHEDULED_START_TIME", "2026-01-02T03:04:05+00:00")
    given("FLOW_RUN__TAGS", "a")
    assert (task_run.name, task_run.run_count) == ("somebody", 3)
    assert flow_run.scheduled_start_time == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    with pytest.raises(ValueError, match="FLOW_RUN__TAGS can't stand for a list"):
        flow_run.tags  # noqa: B018
