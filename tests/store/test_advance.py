"""Time that a test suite lets pass: for everything that waits for a moment, but for no lease."""

from __future__ import annotations

import pytest

from tests.store.driver import Driver, MakeDriver

pytestmark = pytest.mark.anyio

HOUR = 3600.0


@pytest.fixture
async def driver(make_driver: MakeDriver) -> Driver:
    return await make_driver(min_result_ttl_seconds=1, result_ttl_seconds=2 * HOUR, lease_seconds=60)


async def test_delayed_runs_become_due(driver: Driver) -> None:
    (soon,) = await driver.accepted(countdown_seconds=HOUR)
    (late,) = await driver.accepted(countdown_seconds=3 * HOUR)
    due_ms = (await driver.state(late)).due_ms
    await driver.store.advance(2 * HOUR)
    assert (await driver.state(late)).due_ms == due_ms - 2 * HOUR * 1000
    await driver.store.promote()
    await driver.worker()
    assert [run.run_id for run in await driver.claim()] == [soon]
    assert driver.client.zcard(driver.store.prefixes[0] + b"delayed") == 1


async def test_runs_expire(driver: Driver) -> None:
    (waiting,) = await driver.accepted(expires_seconds=HOUR)
    (delayed,) = await driver.accepted(expires_seconds=HOUR, countdown_seconds=2 * HOUR)
    (kept,) = await driver.accepted(expires_seconds=4 * HOUR)
    await driver.store.advance(2 * HOUR)
    ended = (await driver.store.promote()).ended
    assert {state.run_id for state in ended} == {waiting, delayed}
    assert {state.name for state in ended} == {"Expired"}
    await driver.worker()
    assert [run.run_id for run in await driver.claim()] == [kept]


async def test_a_lease_is_not_lost(driver: Driver) -> None:
    await driver.accepted()
    await driver.worker()
    (run,) = await driver.claim()
    await driver.store.advance(HOUR)
    assert await driver.reap() == []
    assert (await driver.finish(run)).status == "ok"


async def test_results_are_kept_for_their_time(driver: Driver) -> None:
    (ended,) = await driver.accepted(idempotency_key="k")
    await driver.worker()
    (run,) = await driver.claim()
    await driver.finish(run)
    await driver.store.advance(HOUR)
    assert (await driver.state(ended)).type == "COMPLETED"
    await driver.store.advance(HOUR + 1)
    assert (await driver.state(ended)).type == ""
