"""What a run is called in the terminal and in its log."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from prefect_lite import task
from prefect_lite.context import TaskRunContext
from prefect_lite.logging import get_run_logger


def record() -> Any:
    context = TaskRunContext.get()
    assert context is not None
    get_run_logger().info("here")
    return context.task_run.name, context.task_run.task_name, context.task_run.version


@task(key="n.template", task_run_name="load-{table}", version="2.1")
def template(table: str, rows: int = 10) -> Any:
    return record()


@task(key="n.default", task_run_name="{table}-{rows}")
async def default(table: str, rows: int = 10) -> Any:
    return record()


@task(key="n.calls", task_run_name=lambda: "called")
def calls() -> Any:
    return record()


@task(key="n.plain")
def plain() -> Any:
    return record()


@task(key="n.wrong", task_run_name="{nothing}")
def wrong() -> Any:
    return record()


@task(key="n.number", task_run_name=lambda: 5)  # type: ignore[return-value,arg-type]
def number() -> Any:
    return record()


def test_the_option_names_the_run(broker: Any, serve: Any, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="prefect_lite")
    served = serve(template, default, calls)
    assert broker.outcome(broker.push("n.template", "users")) == ("load-users", "template", "2.1")
    assert broker.outcome(broker.push("n.default", table="users")) == ("users-10", "default", None)
    assert broker.outcome(broker.push("n.calls")) == ("called", "calls", None)
    served.app.stop("the test says so", grace_seconds=0.0)
    served.wait()
    names = {record.task_run_name for record in caplog.records if record.getMessage() == "here"}  # type: ignore[attr-defined]
    assert names == {"load-users", "users-10", "called"}
    ends = [record.getMessage() for record in caplog.records if "Completed" in record.getMessage()]
    assert [text.split()[1] for text in ends] == ["load-users", "users-10", "called"]
    versions = {record.task_version for record in caplog.records if record.getMessage() == "here"}  # type: ignore[attr-defined]
    assert versions == {"2.1", None}


def test_options_that_travel_name_it_too(broker: Any, serve: Any) -> None:
    serve(plain)
    name, task_name, version = broker.outcome(
        broker.push("n.plain", options={"name": "renamed", "version": "3"})
    )
    assert (name[:-3], task_name, version) == ("renamed-", "renamed", "3")
    assert broker.outcome(broker.push("n.plain", options={"task_run_name": "this"}))[0] == "this"


@pytest.mark.parametrize(
    ("broken", "error", "problem"),
    [
        (wrong, KeyError, "The run can't be named: KeyError: 'nothing'"),
        (number, TypeError, "for 'task_run_name' returned type int but a string is required"),
    ],
)
def test_a_run_that_cannot_be_named_fails_and_says_so(
    broken: Any, error: type[Exception], problem: str, broker: Any, serve: Any
) -> None:
    serve(broken)
    run_id = broker.push(broken.key)
    finish = broker.end(run_id)
    assert (finish.type, finish.name) == ("FAILED", "Failed")
    assert problem in finish.message
    with pytest.raises(error):
        broker.outcome(run_id)


def test_a_direct_call_has_a_name_too() -> None:
    assert template("users")[0] == "load-users"
