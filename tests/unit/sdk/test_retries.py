"""The retry policy as a pure function, and conditions in all their forms."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from prefect_lite import task
from prefect_lite.options import Options
from prefect_lite.retries import Condition, ask_condition, await_condition, next_retry


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
    ],
)
def test_the_schedule(options: Options, expected: list[float]) -> None:
    assert delays(options) == expected


def test_jitter_never_shortens() -> None:
    options = Options(retries=1, retry_delay_seconds=10, retry_jitter_factor=1)
    seen: list[tuple[float, float]] = []
    delays(options, lambda low, high: seen.append((low, high)) or low)
    assert seen == [(10, 20)]


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
