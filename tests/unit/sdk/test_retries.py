"""The retry policy as a pure function, and conditions in all their forms."""

from __future__ import annotations

import asyncio
import inspect
import logging
from typing import Any

import pytest

from prefect_lite import task
from prefect_lite.options import Options
from prefect_lite.retries import (
    Condition,
    ask_condition,
    await_condition,
    exponential_backoff,
    next_retry,
)
from prefect_lite.tasks import exponential_backoff as public_name


def delays(options: Options, uniform: object = None) -> list[float]:
    found: list[float] = []
    for failures in range(1, 100):
        retry = next_retry(options, failures, uniform or (lambda low, high: high))  # type: ignore[arg-type]
        if retry is None:
            return found
        found.append(retry.after_seconds)
    raise AssertionError("no end")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        (Options(), []),
        (Options(retries=2), [0, 0]),
        (Options(retries=2, retry_delay_seconds=3), [3, 3]),
        (Options(retries=3, retry_delay_seconds=[1, 5]), [1, 5, 5]),
        (Options(retries=3, retry_delay_seconds=lambda n: [2.0**i for i in range(n)]), [1, 2, 4]),
        (Options(retries=2, retry_delay_seconds=10, retry_jitter_factor=0.5), [15, 15]),
        (Options(retries=2, retry_jitter_factor=0.5), [0, 0]),
        (Options(retries=1, retry_delay_seconds=[2, 3, 4]), [2]),
        (Options(retries=2, retry_delay_seconds=[]), [0, 0]),
        (Options(retries=2, retry_delay_seconds=lambda n: n / 4), [0.5, 0.5]),  # type: ignore[arg-type]
        (Options(retries=4, retry_delay_seconds=exponential_backoff(10)), [10, 20, 40, 80]),
        (
            Options(retries=52, retry_delay_seconds=exponential_backoff(1)),
            [*(2.0**n for n in range(50)), 2.0**49, 2.0**49],
        ),
        (Options(retries=1, retry_delay_seconds=10, retry_jitter_factor=0), [10]),
    ],
)
def test_the_schedule(options: Options, expected: list[float]) -> None:
    assert delays(options) == expected


def test_jitter_spreads_to_both_sides() -> None:
    options = Options(retries=1, retry_delay_seconds=10, retry_jitter_factor=1)
    seen: list[tuple[float, float]] = []
    delays(options, lambda low, high: seen.append((low, high)) or low)
    assert seen == [(0, 20)]


@pytest.mark.parametrize("factor", [0.1, 0.5, 1, 3])
def test_jitter_stays_within_its_factor(factor: float) -> None:
    options = Options(retries=1, retry_delay_seconds=10, retry_jitter_factor=factor)
    made = [next_retry(options, 1) for _ in range(200)]
    low, high = max(0, 10 * (1 - factor)), 10 * (1 + factor)
    assert all(retry is not None and low <= retry.after_seconds <= high for retry in made)
    assert min(made)[0] < 10 < max(made)[0]  # type: ignore[type-var, index]


def test_the_callable_for_delays_is_asked_once_for_each_task() -> None:
    asked: list[int] = []

    def delays_for(retries: int) -> list[float]:
        asked.append(retries)
        return [1.0] * retries

    options = Options(retries=3, retry_delay_seconds=delays_for)
    assert delays(options) == [1, 1, 1]
    assert asked == [3]
    assert options.changed({"retries": 2}).retry_delays() == (1, 1)
    assert asked == [3, 2]


@pytest.mark.parametrize(
    ("factor", "error", "words"),
    [
        ("x", TypeError, "`backoff_factor` must be a number"),
        (None, TypeError, "`backoff_factor` must be a number"),
        (-1, ValueError, "`backoff_factor` must be >= 0"),
        (float("nan"), ValueError, "`backoff_factor` must be a finite number"),
    ],
)
def test_impossible_backoffs_are_refused(factor: Any, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        exponential_backoff(factor)


def test_backoffs() -> None:
    assert exponential_backoff(10)(5) == [10, 20, 40, 80, 160]
    assert exponential_backoff(0.5)(3) == [0.5, 1, 2]
    assert exponential_backoff(0)(2) == [0, 0]
    assert exponential_backoff(2)(0) == []
    assert len(exponential_backoff(1)(80)) == 50
    assert public_name is exponential_backoff


def test_conditions() -> None:
    async def yes(*_: object) -> bool:
        return True

    def broken(*_: object) -> bool:
        raise RuntimeError("oops")

    async def abroken(*_: object) -> bool:
        raise RuntimeError("oops")

    def ask(condition: object) -> Condition:
        answer = ask_condition(condition, None, None, None)  # type: ignore[arg-type]
        if isinstance(answer, Condition):
            return answer
        assert inspect.isawaitable(answer)
        return asyncio.run(_await(answer))

    assert ask(lambda *_: 1) == (True, "")
    assert ask(lambda *_: None) == (False, "")
    assert ask(yes) == (True, "")

    def leaving(*_: object) -> bool:
        raise SystemExit(3)

    assert ask(leaving) == (False, "Its retry condition raised SystemExit: 3")
    assert ask(broken) == (False, "Its retry condition raised RuntimeError: oops")
    assert ask(abroken) == (False, "Its retry condition raised RuntimeError: oops")


async def _await(answer: object) -> Condition:
    return await await_condition(answer)  # type: ignore[arg-type]


@pytest.mark.parametrize("isasync", [False, True])
@pytest.mark.parametrize("async_condition", [False, True])
def test_a_condition_decides(isasync: bool, async_condition: bool) -> None:
    attempts: list[int] = []

    def condition(_task: object, run: object, state: object) -> bool:
        assert state.is_failed()  # type: ignore[attr-defined]
        return isinstance(state.data, ValueError)  # type: ignore[attr-defined]

    async def acondition(_task: object, run: object, state: object) -> bool:
        return condition(_task, run, state)

    def body() -> None:
        attempts.append(1)
        raise ValueError if len(attempts) == 1 else KeyError("final")

    async def abody() -> None:
        body()

    decorate = task(retries=5, retry_condition_fn=acondition if async_condition else condition)
    with pytest.raises(KeyError, match="final"):
        asyncio.run(decorate(abody)()) if isasync else decorate(body)()
    assert len(attempts) == 2


@pytest.mark.parametrize("isasync", [False, True])
@pytest.mark.parametrize("async_condition", [False, True])
def test_a_condition_that_raises_ends_the_retries_and_is_named(
    isasync: bool, async_condition: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR, logger="prefect_lite")
    attempts: list[int] = []

    def condition(*_: object) -> bool:
        raise LookupError("no answer")

    async def acondition(*_: object) -> bool:
        raise LookupError("no answer")

    def body() -> None:
        attempts.append(1)
        raise ValueError("first")

    async def abody() -> None:
        body()

    made = task(retries=5, retry_condition_fn=acondition if async_condition else condition)(
        abody if isasync else body  # type: ignore[arg-type]
    )
    state: Any = asyncio.run(made(return_state=True)) if isasync else made(return_state=True)
    assert attempts == [1]
    assert isinstance(state.data, ValueError)
    assert "retry condition raised LookupError: no answer" in state.message
    (record,) = [one for one in caplog.records if "retry_condition_fn" in one.getMessage()]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], LookupError)


def test_a_condition_is_told_the_run_and_the_failure_of_each_attempt() -> None:
    seen: list[Any] = []

    def condition(tried: Any, run: Any, state: Any) -> object:
        seen.append((tried.name, run.run_count, state.name, str(state.data)))
        return "any true value" if run.run_count < 3 else None

    @task(name="t", retries=9, retry_condition_fn=condition)  # type: ignore[arg-type]
    def failing() -> None:
        raise ValueError(len(seen))

    with pytest.raises(ValueError, match="2"):
        failing()
    assert seen == [("t", 1, "Failed", "0"), ("t", 2, "Failed", "1"), ("t", 3, "Failed", "2")]


@pytest.mark.parametrize("isasync", [False, True])
def test_delays_are_waited_for(isasync: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []

    async def asleep(seconds: float) -> None:
        waited.append(seconds)

    monkeypatch.setattr("prefect_lite.clock.sleep", waited.append)
    monkeypatch.setattr("prefect_lite.clock.asleep", asleep)

    def body() -> None:
        raise ValueError("always")

    async def abody() -> None:
        body()

    made = task(retries=3, retry_delay_seconds=[30, 60])(abody if isasync else body)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="always"):
        asyncio.run(made()) if isasync else made()
    assert waited == [30, 60, 60]
