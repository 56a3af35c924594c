"""What the value that a function returned makes of its run."""

from __future__ import annotations

import asyncio
from collections import namedtuple
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefect_lite import quote, states, task
from prefect_lite.exceptions import CancelledRun, CrashedRun, FailedRun, PausedRun, UnfinishedRun
from prefect_lite.futures import PrefectFuture
from prefect_lite.local_runs import close_threads
from prefect_lite.returned import awith_states, error_of, outcome_state, with_states
from prefect_lite.states import Cancelled, Completed, Crashed, Failed, Paused, Pending, Running, State

FAILED = Failed(message="m1")
DONE = Completed(message="c1", data=5)
Pair = namedtuple("Pair", "left right")


class Derived(list[Any]):
    """A kind of list."""


@dataclass
class Box:
    inside: Any


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    yield
    close_threads()


@task
def give(value: Any) -> Any:
    return value.unquote() if isinstance(value, quote) else value


def returned(value: Any) -> Any:
    """A task that returns it."""

    @task
    def returns() -> Any:
        return value

    return returns


# What Prefect 3.8.8 does, one line for each program that was run there.
AMOUNTS = [
    ([FAILED], "FAILED", "1/1 states failed."),
    ([DONE, FAILED], "FAILED", "1/2 states failed."),
    ((DONE, FAILED), "FAILED", "1/2 states failed."),
    ({DONE, FAILED}, "FAILED", "1/2 states failed."),
    (Pair(DONE, FAILED), "FAILED", "1/2 states failed."),
    (Derived([DONE, FAILED]), "FAILED", "1/2 states failed."),
    ([DONE, Completed()], "COMPLETED", "All states completed."),
    ([FAILED, Cancelled()], "CANCELLED", "1/2 states cancelled."),
    ([Running(), Cancelled()], "CANCELLED", "1/2 states cancelled."),
    ([Crashed(), FAILED], "FAILED", "2/2 states failed."),
    ([DONE, Crashed()], "FAILED", "1/2 states failed."),
    ([FAILED, Pending()], "FAILED", "1/2 states failed."),
    ([DONE, Running()], "FAILED", "1/2 states are not final."),
    ([Pending(), Pending()], "FAILED", "2/2 states are not final."),
    (Failed(), "FAILED", None),
    (Failed(message="mm", data=KeyError("k")), "FAILED", "mm"),
    (Completed(message="ho", data=5), "COMPLETED", "ho"),
    (Cancelled(message="can"), "CANCELLED", "can"),
    (Crashed(message="cr"), "CRASHED", "cr"),
]
PLAIN = [
    [], (), {}, [DONE, FAILED, 1], [FAILED, 1], [[FAILED], [DONE]], {"a": DONE, "b": FAILED}, {DONE: 1},
    frozenset([DONE, FAILED]), {1: DONE}.values(), iter([FAILED]), ValueError("returned"), [ValueError()],
    ValueError, KeyboardInterrupt("returned"), quote(FAILED), Box(FAILED), "Failed", 5, None,
]  # fmt: skip


@pytest.mark.parametrize(("value", "type_", "message"), AMOUNTS)
def test_states_end_the_run(value: Any, type_: str, message: str | None) -> None:
    state = outcome_state(value)
    assert state is not None
    assert (state.type, state.message) == (type_, message)
    assert value is state or state.data is value or isinstance(value, State)
    run = returned(value)
    assert run() is value, "a direct call gives back what was returned, and raises nothing"
    future = run.submit()
    future.wait()
    for ended in (run(return_state=True), run.submit(return_state=True), future.state):
        assert (ended.type, ended.name, ended.message) == (type_, state.name, message)


@pytest.mark.parametrize("value", PLAIN)
def test_everything_else_is_data(value: Any) -> None:
    assert outcome_state(value) is None
    run = returned(value)
    assert run() is value
    ended = run(return_state=True)
    assert (ended.type, ended.name, ended.message, ended.result()) == ("COMPLETED", "Completed", None, value)
    assert run.submit().result() is value


def test_the_name_and_data_of_a_state_are_those_of_the_run() -> None:
    ended = returned(Completed(name="Nice", data=5)).submit(return_state=True)
    assert (ended.name, ended.result()) == ("Nice", 5)
    assert returned(Completed()).submit().result() is None
    assert returned(Completed(data=KeyError("z"))).submit().result().args == ("z",)
    for value, error, text in (
        (Failed(), FailedRun, "Run failed"),
        (Failed(name="Odd", message="mm"), FailedRun, "mm"),
        (Failed(data=KeyError("k")), KeyError, "k"),
        (Failed(data="why"), FailedRun, "why"),
        (Failed(data=5), TypeError, "int cannot be resolved into an exception"),
        (Crashed(message="cr"), CrashedRun, "cr"),
        (Cancelled(), CancelledRun, "Run cancelled"),
        ([DONE, Failed(data=KeyError("q"))], KeyError, "q"),
        ([DONE, Crashed()], CrashedRun, "Run crashed"),
        ([Pending()], ValueError, "none were failed"),
    ):
        with pytest.raises(error, match=text):
            returned(value).submit().result()
        with pytest.raises(error, match=text):
            returned(value)(return_state=True).result()


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        (Pending(), UnfinishedRun, "Run is in PENDING state, its result is not available"),
        (Running(), UnfinishedRun, "Run is in RUNNING state"),
        (Paused(), PausedRun, "Run is paused"),
    ],
)
def test_a_run_ends_although_it_returned_a_state_that_is_not_final(value: Any, error: Any, text: str) -> None:
    run = returned(value)
    assert run() is value
    ended = run(return_state=True)
    assert ended.is_failed()
    assert "is not final" in (ended.message or "")
    with pytest.raises(error, match=text):
        ended.result()


def test_a_returned_failure_is_tried_again() -> None:
    calls: list[int] = []

    @task(retries=2)
    def second_time(last: Any) -> Any:
        calls.append(1)
        return last if len(calls) > 1 else Failed(message="not yet")

    assert second_time(Completed(data=3), return_state=True).result() == 3
    assert len(calls) == 2
    calls.clear()
    for value, count in ((Crashed(), 1), (Cancelled(), 1), (Failed(), 3)):
        calls.clear()

        @task(retries=2)
        def always(value: Any = value) -> Any:
            calls.append(1)
            return value

        always.submit(return_state=True)
        assert len(calls) == count, value


def test_hooks_see_the_state() -> None:
    seen: list[Any] = []

    @task(on_failure=[lambda _task, _run, state: seen.append(state)])
    def fails() -> Any:
        return Failed(name="Odd", message="mm")

    fails()
    assert [(state.name, state.message) for state in seen] == [("Odd", "mm")]


def test_for_a_task_futures_are_data_and_nobody_waits_for_them() -> None:
    bad = returned(Failed()).submit()
    bad.wait()
    for value in (bad, [bad], {"a": bad}):
        run = returned(value)
        assert run() is value
        assert run(return_state=True).is_completed()
        assert run.submit().result() is value


def test_a_flow_s_futures_become_states() -> None:
    good, bad = give.submit(1), returned(Failed(message="f")).submit()
    assert with_states(5) == 5
    assert with_states(good).result() == 1
    nested = with_states([good, {"a": (bad,), "b": {good}}, Box(good), 1])
    assert nested[0].result() == 1
    assert nested[1]["a"][0].message == "f"
    assert [state.result() for state in nested[1]["b"]] == [1]
    assert nested[2].inside.result() == 1
    state = outcome_state(with_states([good, bad]))
    assert state is not None
    assert (state.type, state.message) == ("FAILED", "1/2 states failed.")
    again = asyncio.run(awith_states([good, bad]))
    assert [one.type for one in again] == ["COMPLETED", "FAILED"]


def test_the_error_of_a_state_is_one_even_when_it_has_none() -> None:
    assert isinstance(error_of(Failed()), FailedRun)
    assert isinstance(error_of(Failed(data=5)), TypeError)
    assert isinstance(error_of(Failed(data=[Pending()])), ValueError)


FINAL = st.builds(lambda make: make(), st.sampled_from([Completed, Failed, Crashed, Cancelled]))
ANY = st.builds(
    lambda make: make(), st.sampled_from([Completed, Failed, Crashed, Cancelled, Running, Pending])
)
NESTED = st.recursive(
    ANY | st.integers() | st.none(),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.lists(ANY, min_size=1, max_size=6))
def test_a_list_completes_only_if_all_have(several: list[State[Any]]) -> None:
    state = outcome_state(several)
    assert state is not None
    assert state.is_final()
    assert state.is_completed() == all(one.is_completed() for one in several)
    assert state.is_cancelled() == any(one.is_cancelled() for one in several)


@given(NESTED)
def test_only_collections_of_nothing_but_states_count(value: Any) -> None:
    counts = isinstance(value, State) or (
        isinstance(value, (list, tuple)) and bool(value) and all(isinstance(one, State) for one in value)
    )
    state = outcome_state(value)
    assert (state is not None) == counts
    assert state is None or state.is_final()


def test_futures_are_found_wherever_they_are() -> None:
    future: PrefectFuture[Any] = give.submit(1)

    @settings(max_examples=30)
    @given(
        st.recursive(st.just(future) | st.integers(), lambda i: st.lists(i) | st.dictionaries(st.text(), i))
    )
    def resolved(value: Any) -> None:
        expected = repr(value).replace(repr(future), repr(future.state))
        assert repr(with_states(value)) == expected

    resolved()


def test_states_is_what_users_import() -> None:
    assert states.State is State


def test_the_state_of_another_run_is_a_value_of_a_task_and_decides_how_it_ends() -> None:
    calls: list[int] = []

    @task
    def fails() -> None:
        raise ValueError("x")

    @task(retries=2)
    def gives() -> Any:
        calls.append(1)
        return fails(return_state=True)

    state = gives(return_state=True)
    assert (state.name, state.message) == ("Failed", "1/1 states failed.")
    assert calls == [1], "another attempt of this run would not help the other one"
    with pytest.raises(ValueError, match="x"):
        state.result()
    assert gives().message == "ValueError: x", "a direct call gives what the function returned"
