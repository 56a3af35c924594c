"""Runs that lost a lease alone: soon back, and never many of them in the hands of a poison run."""

from __future__ import annotations

import pytest
from prefect_lite_broker.store import ClaimedRun

from tests.store.driver import KEY, Driver, MakeDriver, submission

pytestmark = pytest.mark.anyio

WAIT = 0.1


@pytest.fixture
async def driver(make_driver: MakeDriver) -> Driver:
    return await make_driver(suspect_seconds=WAIT, lease_seconds=60.0)


async def lose(driver: Driver, session: str) -> None:
    await driver.tick()
    driver.end_lease(session)
    await driver.reap()


async def held_suspects(driver: Driver, count: int, session: str = "w1") -> list[str]:
    """So many long runs that have lost one lease together."""
    ids = await driver.accepted(count)
    await driver.worker(session)
    for run in await driver.claim(session):
        driver.started(run)
    await lose(driver, session)
    return ids


async def test_long_runs_lost_together_are_all_soon_back_on_one_session(driver: Driver) -> None:
    lost = await held_suspects(driver, 5)
    await driver.worker("w2")
    taken: list[ClaimedRun] = []
    waits: list[float] = []
    while len(taken) < 5:
        reply = await driver.claim_reply("w2")
        for run in reply.runs:
            driver.started(run)
        taken += reply.runs
        assert reply.drained
        if len(taken) < 5:
            assert 0 < reply.again_seconds <= WAIT
            waits.append(reply.again_seconds)
            await driver.clock_moves(reply.again_seconds)
    assert sorted(run.run_id for run in taken) == sorted(lost)
    assert sum(waits) < WAIT * 6
    assert (await driver.claim_reply("w2")).again_seconds == -1


async def test_the_next_waits_until_the_last_has_begun(driver: Driver) -> None:
    await held_suspects(driver, 2)
    await driver.worker("w2")
    (first,) = await driver.claim("w2")
    await driver.clock_moves(WAIT)
    assert await driver.claim("w2") == [], "leased, and perhaps not begun"
    driver.started(first)
    assert await driver.claim("w2") == []
    await driver.has_begun(first)
    await driver.clock_moves(WAIT)
    assert len(await driver.claim("w2")) == 1


async def test_one_that_lost_two_leases_is_alone_until_it_ends(driver: Driver) -> None:
    once = await driver.accepted(2)
    await driver.worker("w3")
    assert len(await driver.claim("w3")) == 2
    (twice,) = await held_suspects(driver, 1)
    await driver.worker("w2")
    assert len(await driver.claim("w2")) == 1
    await lose(driver, "w2")
    await lose(driver, "w3")
    # A session that holds another suspect does not take it ...
    await driver.worker("w4")
    (first,) = await driver.claim("w4")
    assert first.run_id in once
    driver.started(first)
    await driver.has_begun(first)
    await driver.clock_moves(WAIT)
    (second,) = await driver.claim("w4")
    assert {first.run_id, second.run_id} == set(once)
    assert await driver.claim("w4") == []
    # ... and one that holds it takes no other.
    await driver.worker("w5")
    (alone,) = await driver.claim("w5")
    assert (alone.run_id, alone.lost) == (twice, 2)
    driver.started(alone)
    await driver.release(second)
    await driver.has_begun(alone)
    await driver.clock_moves(WAIT)
    reply = await driver.claim_reply("w5")
    assert (reply.runs, reply.again_seconds) == ([], -1)
    await driver.finish(alone)
    assert [run.run_id for run in await driver.claim("w5")] == [second.run_id]


@pytest.mark.parametrize("at_once", [True, False])
async def test_a_poison_run_and_its_innocent_neighbours(driver: Driver, at_once: bool) -> None:
    # Given a poison run that was the last to begin on a worker with five long runs
    innocents = await driver.accepted(5)
    await driver.worker("w0")
    for run in await driver.claim("w0"):
        driver.started(run)
    await driver.clock_moves(0.005)
    poison = submission(body=b"poison")
    await driver.submit(poison)
    (run,) = await driver.claim("w0")
    driver.started(run)
    await lose(driver, "w0")
    # When every worker that begins it dies, at once or when it has taken what else it may
    for number in range(1, 12):
        if (await driver.state(poison.run_id)).type == "CRASHED":
            break
        session = f"w{number}"
        await driver.worker(session)
        taken: list[ClaimedRun] = []
        poisoned = False
        for _ in range(20):
            reply = await driver.claim_reply(session)
            for run in reply.runs:
                driver.started(run)
            taken += reply.runs
            poisoned = any(run.run_id == poison.run_id for run in taken)
            if (poisoned and at_once) or reply.again_seconds < 0:
                break
            await driver.clock_moves(reply.again_seconds)
        if poisoned:
            await lose(driver, session)
    # Then it is dead, and the others have lost little
    state = await driver.state(poison.run_id)
    assert (state.type, state.lost) == ("CRASHED", 4)
    states = [await driver.state(run) for run in innocents]
    assert {state.type for state in states} <= {"RUNNING", "SCHEDULED"}
    assert max(state.lost for state in states) <= (1 if at_once else 2)


@pytest.mark.parametrize("older", [0, 3, 6])
@pytest.mark.parametrize("key", ["tasks.a", "tasks.z"])
async def test_what_was_claimed_last_is_tried_first(driver: Driver, key: str, older: int) -> None:
    """Whatever its name: it is of another task than its neighbours, and they all began at once."""
    before = await driver.accepted(older)
    await driver.worker("w1", KEY, key)
    held = [run.run_id for run in await driver.claim("w1")]
    (poison,) = await driver.accepted(key=key)
    held += [run.run_id for run in await driver.claim("w1")]
    after = await driver.accepted(6 - older)
    held += [run.run_id for run in await driver.claim("w1")]
    assert held == [*before, poison, *after]
    await lose(driver, "w1")
    # Of several keys one suspect of each is tried in turn, so it is the second at the latest
    tried: list[str] = []
    for number in range(7):
        session = f"v{number}"
        await driver.worker(session, KEY, key)
        (run,) = await driver.claim(session)
        tried.append(run.run_id)
    assert tried.index(poison) == (0 if older == 6 else 1)
    tried.remove(poison)
    assert tried == [*reversed(after), *reversed(before)]
