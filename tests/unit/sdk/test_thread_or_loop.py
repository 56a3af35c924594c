"""Code that waits, run by a thread and on an event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from prefect_lite.thread_or_loop import Waits, in_thread, on_loop


def by_loop(waits: Waits[Any]) -> Any:
    return asyncio.run(on_loop(waits))


async def gives(value: object) -> object:
    await asyncio.sleep(0)
    if isinstance(value, Exception):
        raise value
    return value


@pytest.fixture(params=[in_thread, by_loop])
def run(request: pytest.FixtureRequest) -> Callable[[Waits[Any]], Any]:
    return request.param


def test_values_come_back_to_where_they_were_waited_for(run: Callable[[Waits[Any]], Any]) -> None:
    def waits() -> Waits[list[object]]:
        found = [(yield gives(1))]
        found.append((yield gives(2)))
        return found

    assert run(waits()) == [1, 2]


def test_so_do_exceptions(run: Callable[[Waits[Any]], Any]) -> None:
    def waits() -> Waits[str]:
        try:
            yield gives(ValueError("no"))
        except ValueError as exc:
            return f"{exc} {(yield gives('more'))}"
        return ""

    assert run(waits()) == "no more"


def test_what_it_raises_is_raised(run: Callable[[Waits[Any]], Any]) -> None:
    def waits() -> Waits[None]:
        yield gives(KeyError("mine"))

    with pytest.raises(KeyError, match="mine"):
        run(waits())


def test_one_that_waits_for_nothing_needs_no_loop() -> None:
    def waits() -> Waits[int]:
        return 5
        yield gives(1)

    assert in_thread(waits()) == 5


def test_a_cancelled_task_stops_it() -> None:
    ended: list[str] = []

    def waits() -> Waits[None]:
        try:
            yield asyncio.Event().wait()
        finally:
            ended.append("ended")

    async def main() -> None:
        running = asyncio.create_task(on_loop(waits()))
        await asyncio.sleep(0)
        running.cancel()
        await running

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(main())
    assert ended == ["ended"]
