"""States, and what asking them for a result gives."""

from __future__ import annotations

import asyncio
import base64
import copy
import inspect
import pickle
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from prefect_lite import clock, states, task
from prefect_lite.exceptions import (
    CancelledRun,
    CrashedRun,
    FailedRun,
    MissingResult,
    PausedRun,
    RemoteTraceback,
    UnfinishedRun,
    UpstreamFailedRun,
)
from prefect_lite.states import NO_RESULT, State, StateDetails, StateType

LATER = datetime(2030, 1, 1, tzinfo=UTC)
INNER = states.Failed(message="inner")


@pytest.mark.parametrize(
    ("made", "type_", "name"),
    [
        (states.Scheduled(), "SCHEDULED", "Scheduled"),
        (states.AwaitingRetry(), "SCHEDULED", "AwaitingRetry"),
        (states.AwaitingConcurrencySlot(), "SCHEDULED", "AwaitingConcurrencySlot"),
        (states.Late(), "SCHEDULED", "Late"),
        (states.Submitting(), "PENDING", "Submitting"),
        (states.InfrastructurePending(), "PENDING", "InfrastructurePending"),
        (states.Suspended(), "PAUSED", "Suspended"),
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
    ("state", "error", "text"),
    [
        (states.Failed(), FailedRun, "Run failed"),
        (states.Failed(message="m"), FailedRun, "^m$"),
        (states.Failed(message="m", data="why"), FailedRun, "^why$"),
        (states.Failed(data=INNER), FailedRun, "^inner$"),
        (states.Failed(data=[states.Completed(), INNER]), FailedRun, "^inner$"),
        (states.Failed(data=(states.Crashed(), INNER)), CrashedRun, "Run crashed"),
        (states.Failed(data=[states.Running()]), ValueError, "none were failed"),
        (states.Failed(data=states.Running()), ValueError, "Expected failed or crashed state got Running"),
        (states.Failed(data=5), TypeError, "Unexpected result for failed state: 5.* int cannot be resolved"),
        (states.Failed(data={"a": INNER}), TypeError, "dict cannot be resolved into an exception"),
        (states.Failed(data=KeyError), TypeError, "type cannot be resolved"),
        (states.Failed(data=KeyError("k")), KeyError, "k"),
        (states.Failed(name="UpstreamFailed"), UpstreamFailedRun, "Run failed"),
        (states.UpstreamFailed(), UpstreamFailedRun, "Run failed"),
        (states.Crashed(), CrashedRun, "Run crashed"),
        (states.Crashed(data=KeyError("k")), KeyError, "k"),
        (states.Cancelled(), CancelledRun, "Run cancelled"),
        (states.Cancelled(data="w"), CancelledRun, "^w$"),
        (states.Pending(), UnfinishedRun, "Run is in PENDING state, its result is not available"),
        (states.AwaitingRetry(), UnfinishedRun, "Run is in SCHEDULED state"),
        (states.Cancelling(), UnfinishedRun, "Run is in CANCELLING state"),
        (states.Paused(), PausedRun, "Run is paused, its result is not available"),
        (states.Completed(), MissingResult, "State data is missing"),
        (states.Completed(data=NO_RESULT), MissingResult, "State data is missing"),
    ],
)
def test_a_state_says_what_it_is(state: State[Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        state.result()
    with pytest.raises(error, match=text):
        asyncio.run(state.aresult())


@pytest.mark.parametrize("data", ["why", 5, [1], INNER, [INNER], KeyError])
def test_without_raising_a_failed_state_gives_its_data(data: Any) -> None:
    assert states.Failed(data=data).result(raise_on_failure=False) is data


def test_without_raising_the_others_give_an_exception_or_raise() -> None:
    error = states.Failed(message="m").result(raise_on_failure=False)
    assert (type(error), str(error)) == (FailedRun, "m")
    returned = KeyError("returned")
    assert states.Completed(data=returned).result() is returned
    for state in (states.Pending(), states.Paused(), states.Completed()):
        with pytest.raises((UnfinishedRun, PausedRun, MissingResult)):
            state.result(raise_on_failure=False)
    paused = states.Paused()
    with pytest.raises(PausedRun) as caught:
        paused.result()
    assert caught.value.state is paused


def test_raising_only_what_failed() -> None:
    states.raise_state_exception(states.Completed())
    states.raise_state_exception(states.Running())
    with pytest.raises(CrashedRun, match="gone"):
        states.raise_state_exception(states.Crashed(message="gone"))
    with pytest.raises(ValueError, match="Expected failed or crashed state"):
        states.get_state_exception(states.Completed())
    named = State(StateType.FAILED, state_details={"task_run_id": UUID(int=7)})
    assert str(UUID(int=7)) in str(states.get_state_exception(named))


async def give(state: State[Any]) -> Any:
    return state.result(raise_on_failure=False)


@pytest.mark.anyio
async def test_where_a_loop_runs_the_answers_are_awaited() -> None:
    assert await states.Completed(data=3).result() == 3  # type: ignore[misc]
    with pytest.raises(FailedRun, match="m"):
        await states.Failed(message="m").result()
    with pytest.raises(UnfinishedRun):
        await states.Running().result()
    assert isinstance(await states.get_state_exception(states.Crashed()), CrashedRun)  # type: ignore[misc]
    with pytest.raises(CancelledRun):
        await states.raise_state_exception(states.Cancelled())  # type: ignore[func-returns-value]
    await states.raise_state_exception(states.Completed())  # type: ignore[func-returns-value]
    in_thread = await asyncio.to_thread(lambda: states.Completed(data=3).result())
    assert in_thread == 3


@pytest.mark.anyio
async def test_in_a_plain_task_they_are_values_although_a_loop_runs() -> None:
    @task
    def plain() -> Any:
        return states.Failed(message="m").result(raise_on_failure=False)

    @task
    async def waits() -> bool:
        answer: Any = states.Completed(data=3).result()
        return inspect.iscoroutine(answer) and await answer == 3

    assert isinstance(plain(), FailedRun)
    assert await waits()


def test_a_loop_below_a_plain_task_gets_values() -> None:
    @task
    def plain() -> Any:
        return asyncio.run(give(states.Completed(data=3)))

    assert plain() == 3
    assert asyncio.run(asyncio.run(hold(states.Completed(data=4)))[0]) == 4


async def hold(state: State[Any]) -> list[Any]:
    return [state.result()]


def test_they_print_and_compare() -> None:
    details = StateDetails(task_run_id=UUID(int=1), attempt=2)
    assert str(states.Completed()) == "Completed()"
    assert str(states.Failed(message="x")) == "Failed('x')"
    assert repr(states.Completed(data=3)) == "Completed(message=None, type=COMPLETED, result=3)"
    assert repr(states.Late(message="q")) == "Late(message='q', type=SCHEDULED, result=None)"
    state = states.Completed(data=[1], timestamp=LATER)
    assert state == states.Completed(data=[1], timestamp=LATER) == copy.copy(state)
    assert hash(state) == hash(copy.copy(state))
    assert len({state, states.Completed(data=[1])}) == 2
    assert state != states.Completed(data=[2], timestamp=LATER)
    assert state != states.Completed(data=[1], timestamp=LATER, state_details=details)
    assert state != "Completed"
    assert states.is_state(states.Running())
    assert not states.is_state("Running")


def test_made_of_what_is_given() -> None:
    assert State(StateType.PAUSED).name == "Paused"
    assert State("FAILED").is_failed()
    with pytest.raises(ValueError, match="NOPE"):
        State("NOPE")
    given = uuid4()
    state = states.Failed(name="Odd", message="m", timestamp=LATER, id=given, state_details={"attempt": 3})
    assert (state.name, state.timestamp, state.id) == ("Odd", LATER, given)
    assert state.state_details.attempt == 3
    assert states.Scheduled(State, LATER).state_details.scheduled_time == LATER
    assert states.AwaitingRetry(scheduled_time=LATER).state_details.scheduled_time == LATER
    assert states.Late(name="Later").name == "Later"
    assert states.Scheduled().state_details.scheduled_time is not None
    with pytest.raises(ValueError, match="An extra scheduled_time was provided"):
        states.Scheduled(scheduled_time=LATER, state_details={"scheduled_time": LATER})


def test_a_pause_has_an_end() -> None:
    assert states.Paused().state_details.pause_timeout is None
    state = states.Paused(pause_expiration_time=LATER, pause_key="k")
    assert (state.state_details.pause_timeout, state.state_details.pause_key) == (LATER, "k")
    suspended = states.Suspended(timeout_seconds=60)
    assert suspended.state_details.pause_reschedule
    assert suspended.state_details.pause_timeout is not None
    left = suspended.state_details.pause_timeout - suspended.timestamp
    assert timedelta(seconds=59) < left < timedelta(seconds=61)
    with pytest.raises(ValueError, match="both a pause_expiration_time and timeout_seconds"):
        states.Paused(timeout_seconds=1, pause_expiration_time=LATER)


def test_copies_are_other_states() -> None:
    state = states.Completed(data=3, message="m", timestamp=LATER)
    fresh = state.fresh_copy()
    assert (fresh.data, fresh.message) == (3, "m")
    assert fresh.timestamp != LATER
    changed = state.model_copy(update={"name": "Other"})
    assert (changed.name, changed.timestamp, changed.data) == ("Other", LATER, 3)
    assert len({state.id, fresh.id, changed.id}) == 3


def test_the_id_of_a_run_s_state_is_the_same_wherever_it_is_made() -> None:
    def made() -> State[Any]:
        return states.Running(timestamp=LATER, state_details=StateDetails(task_run_id=UUID(int=1)))

    assert made().id == made().id != states.Running(timestamp=LATER).id
    state = states.Running()
    assert state.id == state.id


def test_they_can_be_pickled() -> None:
    state = pickle.loads(pickle.dumps(states.Completed(timestamp=LATER)))
    assert state == states.Completed(timestamp=LATER)
    assert state.data is NO_RESULT


OF_THE_FIRST_VERSION = (
    "gASV9gAAAAAAAACME3ByZWZlY3RfbGl0ZS5zdGF0ZXOUjAVTdGF0ZZSTlCmBlF2UKGgAjAlTdGF0ZVR5cGWUk5SMCUNPTVBMRVRFRJSF"
    "lFKUjAlDb21wbGV0ZWSUjANtc2eUjAhkYXRldGltZZSMCGRhdGV0aW1llJOUQwoH6gECAAAAAAAAlGgMjAh0aW1lem9uZZSTlGgMjAl0"
    "aW1lZGVsdGGUk5RLAEsASwCHlFKUhZRSlIaUUpRoAIwMU3RhdGVEZXRhaWxzlJOUKYGUXZQojAR1dWlklIwEVVVJRJSTlCmBlH2UjANp"
    "bnSUSwdzYowBa5ROSwJLAWViSwVlYi4="
)
"""A state with details of five fields, and no id."""


def test_those_that_an_older_version_has_pickled_can_be_read() -> None:
    state = pickle.loads(base64.b64decode(OF_THE_FIRST_VERSION))
    details = StateDetails(task_run_id=UUID(int=7), task_key="k", attempt=2, lost=1)
    assert state == State(
        StateType.COMPLETED, "Completed", "msg", datetime(2026, 1, 2, tzinfo=UTC), details, data=5
    )
    assert state.state_details.pause_key is None
    assert state.id == state.id


def test_those_of_a_newer_version_can_be_read() -> None:
    state = states.Failed(message="m", timestamp=LATER, state_details=StateDetails(task_key="k"))
    *known, rest = state.__getstate__()
    newer = state.fresh_copy()
    newer.__setstate__([*known, "a field of tomorrow", rest])
    assert newer == state
    details = StateDetails()
    details.__setstate__([*state.state_details.__getstate__(), "a field of tomorrow"])  # type: ignore[attr-defined]
    assert details == state.state_details


class Derived(State[Any]):
    """One with attributes of its own."""


def test_derived_ones_keep_what_they_have() -> None:
    state = Derived(StateType.RUNNING)
    state.more = 5  # type: ignore[attr-defined]
    for other in (pickle.loads(pickle.dumps(state)), copy.copy(state)):
        assert (type(other), other.more, other) == (Derived, 5, state)


def test_pickles_name_the_public_module() -> None:
    assert b"state_objects" not in pickle.dumps(states.Completed(state_details=StateDetails(task_key="k")))
    assert b"state_types" not in pickle.dumps(states.Completed())


def test_they_are_dated_by_the_replaceable_clock() -> None:
    class Fixed(clock.Clock):
        def now(self) -> datetime:
            return LATER

    before = clock.replace(Fixed())
    try:
        assert states.Running().timestamp == LATER
    finally:
        clock.replace(before)


def test_which_collections_count_as_states() -> None:
    one = states.Running()
    for obj in ([one], (one, one), {one}):
        assert states.is_state_iterable(obj)
    for obj in ([], (), [one, 1], {"a": one}, frozenset([one]), one, iter([one])):
        assert not states.is_state_iterable(obj)


def test_a_name_of_its_own_is_printed_with_the_type() -> None:
    assert str(states.Completed(name="Mine", message="m")) == "Mine('m', type=COMPLETED)"
    assert str(states.Completed(message="m")) == "Completed('m')"
    assert str(states.Pending()) == "Pending()"
