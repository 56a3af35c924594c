"""Clocks that stand still or jump, in the place of the process's one."""

from __future__ import annotations

import asyncio
import threading
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from prefect_lite import clock, task
from prefect_lite.exceptions import ConfigurationError
from prefect_lite.testing import FakeClock, JumpingClock, frozen_clock
from tests.tools.waiting import wait_until


def test_the_real_clock_tells_the_time() -> None:
    before = datetime.now(UTC)
    assert before <= clock.now() <= datetime.now(UTC)
    assert clock.now().tzinfo is UTC
    assert abs(clock.time_ns() - time.time_ns()) < 1e9
    assert abs(clock.monotonic() - time.monotonic()) < 1


def test_a_frozen_clock_stands_still() -> None:
    start = datetime(2026, 1, 2, tzinfo=UTC)
    with frozen_clock(start) as frozen:
        assert clock.now() == start == clock.now()
        frozen.advance(90)
        assert clock.now() == start + timedelta(seconds=90)
        assert clock.monotonic() == 90
        assert clock.time_ns() == round((start.timestamp() + 90) * 1e9)
    assert abs(clock.time_ns() - time.time_ns()) < 1e9


def test_sleeping_on_a_frozen_clock_moves_it() -> None:
    began = time.monotonic()
    with frozen_clock() as frozen:
        before = clock.now()
        clock.sleep(3600)
        asyncio.run(clock.asleep(60))
        clock.sleep(-1)
        assert clock.now() - before == timedelta(seconds=3660)
        assert frozen.slept == [3600, 60]
    assert time.monotonic() - began < 10


def test_the_clock_is_put_back_after_an_error_and_in_order() -> None:
    real = clock.current()
    with suppress(KeyError), frozen_clock() as outer:
        with frozen_clock() as inner:
            assert clock.current() is inner
        assert clock.current() is outer
        raise KeyError
    assert clock.current() is real


@pytest.mark.parametrize("seconds", [-1, float("nan"), float("inf"), 1e10, "5", None])
@pytest.mark.parametrize("kind", [FakeClock, JumpingClock])
def test_time_goes_forward_only(kind: type[FakeClock | JumpingClock], seconds: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"forward only.*1,000,000,000 seconds.*not by"):
        kind().advance(seconds)


@pytest.mark.parametrize("start", [datetime(2026, 1, 2), "2026-01-02"])
def test_a_start_without_a_zone_is_refused(start: Any) -> None:
    with pytest.raises(ConfigurationError, match="aware"):
        FakeClock(start)


def test_retry_delays_of_a_direct_call_take_no_time() -> None:
    attempts: list[datetime] = []

    @task(retries=3, retry_delay_seconds=[10, 100, 1000])
    def flaky() -> str:
        attempts.append(clock.now())
        if len(attempts) < 4:
            raise ValueError("again")
        return "done"

    with frozen_clock() as frozen:
        assert flaky() == "done"
    assert frozen.slept == [10, 100, 1000]
    assert [b - a for a, b in pairwise(attempts)] == [
        timedelta(seconds=seconds) for seconds in (10, 100, 1000)
    ]


async def _flaky_coroutine() -> list[float]:
    attempts: list[int] = []

    @task(retries=2, retry_delay_seconds=500)
    async def flaky() -> int:
        attempts.append(1)
        if len(attempts) < 3:
            raise ValueError("again")
        return len(attempts)

    with frozen_clock() as frozen:
        assert await flaky() == 3
    return frozen.slept


def test_retry_delays_of_a_coroutine_take_no_time() -> None:
    assert asyncio.run(_flaky_coroutine()) == [500, 500]


def test_a_jump_wakes_who_sleeps_beyond_it() -> None:
    jumping = JumpingClock()
    woken: list[str] = []

    def sleeper() -> None:
        jumping.sleep(1000)
        woken.append("thread")

    async def coroutine() -> None:
        await jumping.asleep(1000)
        woken.append("coroutine")

    threads = [threading.Thread(target=sleeper), threading.Thread(target=lambda: asyncio.run(coroutine()))]
    for thread in threads:
        thread.start()
    wait_until(lambda: len(jumping._sleepers) == len(jumping._jumped._waiters) == 1)  # type: ignore[attr-defined]
    before = jumping.now()
    jumping.advance(500)
    assert not woken
    jumping.advance(501)
    for thread in threads:
        thread.join(10)
    assert sorted(woken) == ["coroutine", "thread"]
    assert jumping.now() - before >= timedelta(seconds=1001)
    assert not jumping._sleepers


def test_a_jumping_clock_sleeps_for_real_too() -> None:
    jumping = JumpingClock()
    began = time.monotonic()
    jumping.sleep(0.02)
    asyncio.run(jumping.asleep(0.02))
    assert time.monotonic() - began >= 0.04
