"""Flows and workers: tasks in the background of a flow, flows inside such tasks."""

from __future__ import annotations

from typing import Any

import pytest

from prefect_lite import flow, runtime, task
from prefect_lite.local_runs import close_threads
from prefect_lite.task_runners import PrefectTaskRunner
from prefect_lite.testing import test_harness as harness
from prefect_lite.waiting import close_callbacks


@task
def add(x: int) -> int:
    return x + 1


@task
def about() -> Any:
    return runtime.flow_run.id, runtime.task_run.id


@flow
def inside() -> Any:
    return add.submit(1), runtime.flow_run.parent_flow_run_id, runtime.flow_run.root_flow_run_id


@task
def calls_a_flow() -> Any:
    return inside(), add.submit(2).result()


@pytest.fixture
def worker() -> Any:
    with harness():
        yield
    close_threads()
    close_callbacks()


@pytest.mark.usefixtures("worker")
def test_runs_in_the_background_belong_to_the_flow() -> None:
    @flow
    def around() -> Any:
        told = about.delay()
        mixed = add.submit(add.delay(1)), add.delay(add.submit(5))
        return runtime.flow_run.id, told.task_run_id, told, calls_a_flow.delay(), mixed

    flow_id, run_id, told, (nested, submitted), mixed = around()
    assert told == (flow_id, str(run_id))
    assert nested == (2, flow_id, flow_id)
    assert submitted == 3
    assert mixed == (3, 7)


@pytest.mark.usefixtures("worker")
def test_a_flow_whose_task_runner_is_the_background() -> None:
    @flow(task_runner=PrefectTaskRunner())
    def sends() -> Any:
        return runtime.flow_run.id, about.submit(), add.map([1, 2])

    flow_id, (seen, _), mapped = sends()
    assert seen == flow_id
    assert mapped == [2, 3]
