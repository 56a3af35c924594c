"""Every broker runs every service: each thing is done once, and a clock that is set ends no lease."""

from __future__ import annotations

import asyncio
import random
from collections import Counter

import pytest
from prefect_lite_broker.store import LeaseEvent, Repair

from tests.store.driver import KEY, Driver, MakeDriver, submission
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

HOUR_MS = 3_600_000


@pytest.fixture
async def three(make_driver: MakeDriver) -> list[Driver]:
    settings = {"lease_seconds": 60.0, "max_lost": 2, "suspect_group_max": 3, "audit_seconds": 0.001}
    return [await make_driver(broker_id=f"broker-{number}", **settings) for number in (1, 2, 3)]


async def test_leases_end_once_and_runs_are_promoted_once(three: list[Driver]) -> None:
    first = three[0]
    events: list[LeaseEvent] = []
    repairs: list[Repair] = []
    running = True

    async def serve(driver: Driver) -> None:
        store = driver.store
        duties = (
            lambda: store.reap(events.append),
            store.promote,
            store.retention,
            lambda: store.audit(repairs.append),
        )
        while running:
            await asyncio.gather(*(duty() for duty in random.sample(duties, len(duties))))

    services = [asyncio.create_task(serve(driver)) for driver in three]
    held: list[tuple[str, str]] = []  # run, session
    delayed = await first.accepted(150, key="later", countdown_seconds=0.05)
    await first.accepted(60)
    cancelled: set[str] = set()
    for number in range(40):
        driver = three[number % 3]
        session = f"w{number}"
        await driver.worker(session)
        runs = await driver.claim(session, limit=random.randint(1, 8))
        for run in runs:
            driver.started(run)
            if random.random() < 0.1 and await driver.cancel(run.run_id):
                cancelled.add(run.run_id)
        held += [(run.run_id, session) for run in runs]
        driver.end_lease(session)
    await until(lambda: len(events) >= len(held), what="the end of all leases")
    ready = first.prefix + "ready:later:0"
    await until(lambda: first.client.llen(ready) == 150, what="all delayed runs")
    running = False
    await asyncio.gather(*services)

    assert Counter((event.run_id, event.session) for event in events) == Counter(held), "each lease once"
    assert len(set(first.client.lrange(ready, 0, -1))) == 150  # type: ignore[arg-type]
    assert set(delayed) == {run.decode() for run in first.client.lrange(ready, 0, -1)}  # type: ignore[union-attr]
    lost = Counter(event.run_id for event in events if event.outcome != "cancelled")
    for run, times in lost.items():
        assert (await first.state(run)).lost == times
    for run in cancelled:
        assert (await first.state(run)).type == "CANCELLED"
    assert repairs == []
    assert await first.store.audit_totals() != {"passes": 0}


def step(driver: Driver, milliseconds: int) -> None:
    """As if Redis's clock had been set by so much: all it has written is that much older or younger."""
    driver.client.incrby(driver.prefix + "tick", -milliseconds)
    for session, deadline in driver.client.zrange(driver.prefix + "sessions", 0, -1, withscores=True):  # type: ignore[union-attr]
        driver.client.zadd(driver.prefix + "sessions", {session: deadline - milliseconds})


@pytest.mark.parametrize("by", [HOUR_MS, -HOUR_MS, 5_000, -5_000])
async def test_a_step_of_the_clock_reaps_nobody_and_makes_nobody_immortal(
    make_driver: MakeDriver, by: int
) -> None:
    drivers = [
        await make_driver(broker_id=f"broker-{number}", lease_seconds=0.5, renew_seconds=0.2)
        for number in (1, 2, 3)
    ]
    first = drivers[0]
    await first.accepted(2)
    for session in ("alive", "gone"):
        await first.worker(session)
        assert len(await first.claim(session, limit=1)) == 1
    await first.tick()
    step(first, by)
    seen: list[LeaseEvent] = []
    for driver in drivers:
        seen += await driver.reap()
    assert seen == []
    expiry = [session["expires_in_seconds"] for session in await first.store.sessions()]
    assert all(0 < seconds <= 0.5 for seconds in expiry), expiry

    async def reap() -> bool:
        assert (await first.store.renew("alive", 1, [])).status == "ok"
        for driver in drivers:
            seen.extend(await driver.reap())
        return bool(seen)

    await until(reap, 3.0, "the lease of the one that is gone")
    assert [event.session for event in seen] == ["gone"]


async def test_after_a_gap_every_broker_spares_everybody_a_lease(make_driver: MakeDriver) -> None:
    drivers = [await make_driver(broker_id=f"broker-{number}", lease_seconds=30.0) for number in (1, 2, 3)]
    first = drivers[0]
    await first.accepted(50)
    for number in range(50):
        await first.worker(f"w{number}")
        await first.claim(f"w{number}", limit=1)
        first.end_lease(f"w{number}")
    first.client.set(first.prefix + "tick", int(first._clock() * 1000) - 3100)
    events = [event for group in await asyncio.gather(*(each.reap() for each in drivers)) for event in group]
    assert events == [], "all looked at once, and one of them first"
    assert min(session["expires_in_seconds"] for session in await first.store.sessions()) > 29


async def test_a_clock_set_back_does_not_hold_up_suspects(make_driver: MakeDriver) -> None:
    driver = await make_driver(lease_seconds=60.0, suspect_seconds=0.05)
    await driver.accepted(2)
    await driver.worker()
    await driver.claim()
    await driver.tick()
    driver.end_lease("w1")
    assert len(await driver.reap()) == 2
    await driver.worker("w2")
    (suspect,) = await driver.claim("w2")
    driver.started(suspect)
    await driver.store.ping()
    driver.client.hincrby(driver.prefix + f"r:{suspect.run_id}", "sm", HOUR_MS)
    reply = await driver.claim_reply("w2")
    assert reply.runs == []
    assert 0 < reply.again_seconds <= 0.05


async def test_delayed_runs_are_due_once_though_every_broker_looks(three: list[Driver]) -> None:
    runs = await three[0].accepted(250, countdown_seconds=3600)
    for run in runs:
        three[0].make_due(run)
    replies = await asyncio.gather(*(driver.store.promote() for driver in three * 3))
    assert {key for reply in replies for key in reply.ready_keys} == {KEY}
    queued = three[0].client.lrange(three[0].prefix + f"ready:{KEY}:0", 0, -1)
    assert Counter(run.decode() for run in queued) == Counter(runs)  # type: ignore[union-attr]
    assert (await three[1].submit(submission(runs[0])))[0].status == "exists"
