"""States, and what asking them for a result gives."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID

import pytest

from prefect_lite import states
from prefect_lite.exceptions import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    RemoteTraceback,
    UnfinishedRun,
    UpstreamFailedRun,
)
from prefect_lite.states import NO_RESULT, State, StateDetails, StateType


@pytest.mark.parametrize(
    ("made", "type_", "name"),
    [
        (states.Scheduled(), "SCHEDULED", "Scheduled"),
        (states.AwaitingRetry(), "SCHEDULED", "AwaitingRetry"),
        (states.Pending(), "PENDING", "Pending"),
        (states.Running(), "RUNNING", "Running"),
        (states.Retrying(), "RUNNING", "Retrying"),
        (states.Paused(), "PAUSED", "Paused"),
        (states.Cancelling(), "CANCELLING", "Cancelling"),
        (states.Cancelled(), "CANCELLED", "Cancelled"),
        (states.Completed(), "COMPLETED", "Completed"),
        (states.Cached(), "COMPLETED", "Cached"),
        (states.Failed(), "FAILED", "Failed"),
        (states.TimedOut(), "FAILED", "TimedOut"),
        (states.UpstreamFailed(), "FAILED", "UpstreamFailed"),
        (states.Crashed(), "CRASHED", "Crashed"),
    ],
)
def test_each_constructor_makes_its_state(made: State[Any], type_: str, name: str) -> None:
    assert (made.type, made.name) == (StateType(type_), name)
    asked = [check for check in dir(made) if check.startswith("is_") and check != "is_final"]
    assert [check for check in asked if getattr(made, check)()] == [f"is_{type_.lower()}"]
    assert made.is_final() == (type_ in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"))
    assert made.timestamp.tzinfo is not None


def test_a_value_comes_out() -> None:
    assert states.Completed(data=None).result() is None
    assert asyncio.run(states.Completed(data=3).aresult()) == 3


def test_an_exception_of_this_process_keeps_its_traceback() -> None:
    try:
        raise ValueError("v")
    except ValueError as exc:
        state = states.Failed(data=exc)
    with pytest.raises(ValueError, match="v") as caught:
        state.result()
    assert caught.traceback[-1].name == "test_an_exception_of_this_process_keeps_its_traceback"


def test_a_kept_exception_of_a_worker_is_raised_without_growing() -> None:
    error = ValueError("v")
    error.__cause__ = RemoteTraceback("its traceback")
    state = states.Failed(data=error)
    depths = []
    for _ in range(2):
        with pytest.raises(ValueError, match="v") as caught:
            state.result()
        depths.append(len(caught.traceback))
    assert depths[0] == depths[1]
    assert state.result(raise_on_failure=False) is state.data


@pytest.mark.parametrize(
    ("state", "error"),
    [
        (states.Failed(message="m"), FailedRun),
        (states.Failed(name="UpstreamFailed"), UpstreamFailedRun),
        (states.UpstreamFailed(), UpstreamFailedRun),
        (states.Crashed(), CrashedRun),
        (states.Cancelled(), CancelledRun),
        (states.Running(), UnfinishedRun),
        (states.Completed(data=NO_RESULT), MissingResult),
    ],
)
def test_a_state_without_data_says_what_it_is(state: State[Any], error: type[Exception]) -> None:
    with pytest.raises(error):
        state.result()


def test_raising_only_what_failed() -> None:
    states.raise_state_exception(states.Completed())
    states.raise_state_exception(states.Running())
    with pytest.raises(CrashedRun, match="gone"):
        states.raise_state_exception(states.Crashed(message="gone"))
    with pytest.raises(ValueError, match="Expected a failed"):
        states.get_state_exception(states.Completed())


def test_they_print_and_compare() -> None:
    details = StateDetails(task_run_id=UUID(int=1), attempt=2)
    assert str(states.Completed()) == "Completed()"
    assert str(states.Failed(message="x")) == "Failed('x')"
    assert repr(states.Completed(data=3)) == "Completed(type=COMPLETED, result=3)"
    assert states.Completed() == states.Completed()
    assert states.Completed() != State(StateType.COMPLETED, state_details=details)
    assert states.is_state(states.Running())
    assert not states.is_state("Running")
    assert State(StateType.PAUSED).name == "Paused"
