"""Records of local runs: their states, counts and times."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest

from prefect_lite import task
from prefect_lite.context import TaskRun, TaskRunContext, current_context, get_run_context
from prefect_lite.exceptions import MissingContextError
from prefect_lite.states import Completed, Failed, State, StateType
from prefect_lite.tagging import current_tags, tags


def current_run() -> TaskRun:
    context = TaskRunContext.get()
    assert context is not None
    return context.task_run


def test_the_record_of_a_run_that_is_retried_after_a_delay() -> None:
    seen: list[tuple[int, str | None]] = []
    records: list[TaskRun] = []

    @task(retries=2, retry_delay_seconds=[0.001, 0])
    def fails_twice() -> int:
        run = current_run()
        records.append(run)
        seen.append((run.run_count, run.state_name))
        if run.run_count < 3:
            raise ValueError("again")
        return run.run_count

    assert fails_twice() == 3
    assert seen == [(1, "Running"), (2, "Retrying"), (3, "Retrying")]
    run = records[0]
    names = ["Pending", "Running", "AwaitingRetry", "Retrying", "Retrying", "Completed"]
    assert [state.name for state in run.states] == names
    assert run.states[2].message == "ValueError: again"
    assert run.state_type is StateType.COMPLETED
    assert {state.state_details.task_run_id for state in run.states} == {run.id}
    assert isinstance(run.id, UUID)
    assert run.name == f"fails_twice-{run.run_id[:3]}"
    assert run.start_time is not None
    assert run.end_time is not None
    assert run.created <= run.start_time <= run.end_time <= datetime.now(UTC)
    assert timedelta(0) < run.total_run_time <= run.end_time - run.start_time


def test_a_record_before_its_run() -> None:
    run = TaskRun("0" * 32, "m.f", "f", 0)
    assert (run.run_count, run.state, run.start_time, run.end_time) == (0, None, None, None)
    assert run.states == []


@pytest.mark.parametrize("isasync", [False, True])
def test_return_state(isasync: bool) -> None:
    def body(fail: bool) -> int:
        if fail:
            raise KeyError("x")
        return 5

    async def abody(fail: bool) -> int:
        return body(fail)

    def state_of(fail: bool) -> State[Any]:
        if isasync:
            return asyncio.run(task(abody)(fail, return_state=True))  # type: ignore[call-arg, arg-type]
        return task(body)(fail, return_state=True)  # type: ignore[call-arg, return-value]

    completed, failed = state_of(False), state_of(True)
    assert completed.is_completed()
    assert completed.result() == 5
    assert completed.state_details.task_run_id is not None
    assert failed.is_failed()
    assert failed.message == "KeyError: 'x'"
    with pytest.raises(KeyError):
        failed.result()


def test_a_returned_state_is_the_state_of_the_run_and_what_the_caller_gets() -> None:
    calls: list[str] = []

    @task(retries=1, on_failure=[lambda _task, _run, state: calls.append(f"hook {state.name}")])
    def gives(state: Any) -> Any:
        calls.append("call")
        return state.unwrap() if hasattr(state, "unwrap") else state

    @task
    def fine() -> Any:
        return Completed(data=5, message="m")

    assert fine().data == 5
    state: Any = fine(return_state=True)  # type: ignore[call-arg]
    assert (state.message, state.result()) == ("m", 5)

    @task(retries=1, on_failure=[lambda _task, _run, state: calls.append(f"hook {state.name}")])
    def fails() -> Any:
        calls.append("call")
        return Failed(name="Sour", message="no")

    assert fails().name == "Sour", "a direct call gives what the function returned"
    assert calls == ["call", "call", "hook Sour"], "a failed state is tried again"


def test_an_exception_that_is_returned_is_a_value() -> None:
    @task
    def gives() -> Exception:
        return ValueError("v")

    assert isinstance(gives(), ValueError)


def test_contexts_know_what_is_around_them() -> None:
    @task
    def inner() -> tuple[str, str]:
        context = get_run_context()
        assert context.enclosing is not None
        return context.definition.name, context.enclosing.definition.name

    @task
    def outer() -> tuple[Any, str]:
        return inner(), get_run_context().definition.name

    assert outer() == (("inner", "outer"), "outer")
    assert current_context() is None
    with pytest.raises(MissingContextError, match="No run context"):
        get_run_context()


def test_prints_of_a_task_that_says_nothing_follow_the_run_around_it(
    capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    @task
    def inherits() -> None:
        print("inside")

    @task(log_prints=False)
    def does_not() -> None:
        print("plain")

    @task(log_prints=True)
    def outer() -> None:
        inherits()
        does_not()

    outer()
    assert capsys.readouterr().out == "plain\n"
    assert "inside" in caplog.messages


def test_tags_of_blocks_add_up_and_reach_the_run() -> None:
    @task(tags={"own"})
    def tagged() -> frozenset[str]:
        return current_run().tags

    with tags("a", "b") as outer:
        assert outer == {"a", "b"}
        with tags("c") as inner:
            assert inner == {"a", "b", "c"} == current_tags()
            assert tagged() == {"own", "a", "b", "c"}
        assert tagged() == {"own", "a", "b"}
    assert tagged() == {"own"} == tagged.tags
    with pytest.raises(TypeError, match="Tags are strings"), tags(1):  # type: ignore[arg-type]
        pass
