"""A session in several shards is resumed whole, however the one before was cut, overtaken or late."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest
from prefect_lite_broker.store import ClaimedRun, Resumed

from prefect_lite.exceptions import StoreUnavailable
from tests.store.driver import KEY, Driver, MakeDriver, submission

pytestmark = pytest.mark.anyio

SHARDS = 4


def in_shard(shard: int) -> str:
    """A run id of a shard."""
    return f"{random.getrandbits(116):029x}{shard:03x}"


@pytest.fixture
async def two(make_driver: MakeDriver) -> tuple[Driver, Driver]:
    """Two brokers' stores with four shards, and a session ``w1`` that holds a run in each."""
    first = await make_driver(shards=SHARDS, lease_seconds=60)
    second = await make_driver(shards=SHARDS, lease_seconds=60, broker_id="broker-2")
    return first, second


def key(driver: Driver, shard: int, name: str) -> str:
    return driver.store.prefixes[shard].decode() + name


def epochs(driver: Driver, session: str = "w1") -> list[int]:
    """The session's epoch in each shard, 0 where it is unknown."""
    return [int(driver.client.hget(key(driver, i, f"s:{session}"), "e") or 0) for i in range(SHARDS)]  # type: ignore[arg-type]


async def claim(driver: Driver, shard: int, epoch: int = 1, number: int = 1) -> list[ClaimedRun]:
    answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    driver.store.claim("w1", epoch, shard, number, 10, answer.set_result)
    reply = await answer
    assert reply.status == "ok"
    return reply.runs


async def hold_one_in_each(driver: Driver) -> list[list[str]]:
    msgs = [submission(in_shard(shard)) for shard in range(SHARDS)]
    await driver.submit(*msgs)
    await driver.worker()
    runs = [run for shard in range(SHARDS) for run in await claim(driver, shard)]
    assert len(runs) == SHARDS
    return sorted([run.run_id, run.token] for run in runs)


def fail_in(monkeypatch: pytest.MonkeyPatch, driver: Driver, broken: int) -> None:
    """The broker dies before its resume has come to this shard and those after it."""
    script = driver.store.script

    async def cut(name: str, shard: int, *args: Any) -> Any:
        if name == "resume_session" and shard >= broken:
            raise StoreUnavailable("cut")
        return await script(name, shard, *args)

    monkeypatch.setattr(driver.store, "script", cut)


async def lose_in(driver: Driver, shard: int) -> None:
    """The reaper of one shard ends the session."""
    await driver.reap()
    driver.client.zadd(key(driver, shard, "sessions"), {"w1": 0})
    await driver.reap()
    assert driver.client.exists(key(driver, shard, "s:w1")) == 0


def assert_whole(driver: Driver, resumed: Resumed | None, held: list[list[str]]) -> None:
    assert resumed is not None
    assert epochs(driver) == [resumed.epoch] * SHARDS
    assert sorted(resumed.held) == held


@pytest.mark.parametrize("broken", [1, 2, 3])
async def test_a_resume_that_was_cut_is_completed_by_the_next(
    two: tuple[Driver, Driver], monkeypatch: pytest.MonkeyPatch, broken: int
) -> None:
    held = await hold_one_in_each(two[0])
    fail_in(monkeypatch, two[0], broken)
    with pytest.raises(StoreUnavailable):
        await two[0].store.resume_session("w1", b"digest")
    assert epochs(two[0]) == [2] * broken + [1] * (SHARDS - broken)
    assert_whole(two[1], await two[1].store.resume_session("w1", b"digest"), held)
    assert (await two[1].store.renew("w1", 1, [])).status == "moved"
    assert (await two[1].store.renew("w1", 3, held)) == ("ok", [], [])


async def test_of_two_resumes_at_once_one_has_the_session(two: tuple[Driver, Driver]) -> None:
    held = await hold_one_in_each(two[0])
    drivers = (*two, *two)
    for _ in range(40):
        replies = await asyncio.gather(
            *(driver.store.resume_session("w1", b"digest") for driver in random.sample(drivers, 3))
        )
        have = [reply for reply in replies if reply is not None and not reply.moved]
        assert None not in replies, "a worker would lose what it holds"
        assert len({reply.epoch for reply in have}) == len(have), "two connections with one epoch"
        last = max(reply.epoch for reply in have) if have else 0
        if epochs(two[0]) != [last] * SHARDS:  # all were overtaken: whoever is really there comes again
            again = await two[0].store.resume_session("w1", b"digest")
            assert_whole(two[0], again, held)
            continue
        owner = next(reply for reply in have if reply.epoch == last)
        assert_whole(two[0], owner, held)


@pytest.mark.parametrize("shard", [0, 2])
async def test_a_session_reaped_in_one_shard_keeps_its_leases_in_the_others(
    two: tuple[Driver, Driver], shard: int
) -> None:
    held = await hold_one_in_each(two[0])
    await two[0].store.resume_session("w1", b"digest")
    await lose_in(two[0], shard)
    kept = [pair for pair in held if two[0].store.shard_of(pair[0]) != shard]
    assert (await two[0].store.renew("w1", 2, held)).status == "unknown"
    resumed = await two[1].store.resume_session("w1", b"digest", {"host": "here"})
    assert_whole(two[1], resumed, kept)
    assert resumed is not None
    renewed = await two[1].store.renew("w1", resumed.epoch, held)
    assert (renewed.status, len(renewed.revoked)) == ("ok", 1)
    assert await two[1].store.serve("w1", resumed.epoch, [KEY]) == "ok"
    assert len(await claim(two[1], shard, resumed.epoch)) == 1, "it claims there again"
    (session,) = await two[1].store.sessions()
    assert session["info"] == {"host": "here"}


async def test_a_wrong_secret_gets_nothing_though_a_shard_has_forgotten_the_session(
    two: tuple[Driver, Driver],
) -> None:
    await hold_one_in_each(two[0])
    await lose_in(two[0], 0)
    assert await two[1].store.resume_session("w1", b"guess", {"host": "there"}) is None
    assert epochs(two[0]) == [0, 1, 1, 1]


async def test_a_session_that_no_shard_knows_is_not_made(two: tuple[Driver, Driver]) -> None:
    assert await two[0].store.resume_session("w1", b"digest", {"host": "here"}) is None
    assert epochs(two[0]) == [0] * SHARDS


@pytest.mark.parametrize("shard", [0, 3])
async def test_a_shard_whose_server_lost_data_is_brought_up(two: tuple[Driver, Driver], shard: int) -> None:
    held = await hold_one_in_each(two[0])
    for _ in range(6):
        await two[0].store.resume_session("w1", b"digest")
    two[0].client.hset(key(two[0], shard, "s:w1"), "e", 2)
    assert_whole(two[1], await two[1].store.resume_session("w1", b"digest"), held)


async def test_a_dying_session_lives_on_with_what_the_reaper_has_not_come_to(driver: Driver) -> None:
    runs = await driver.accepted(250)
    await driver.worker()
    for _ in range(3):
        await driver.claim(limit=100)
    await driver.cancel(runs[0])
    await driver.cancel(runs[249])
    await driver.tick()
    driver.end_lease("w1")
    settings = driver.store.settings
    more, *_ = await driver.store.script("reap", 0, 60_000, 3, 5, 100, 1000, 1000, 10, 9000)
    assert more == 1
    assert (await driver.claim_reply()).status == "moved", "nobody claims with a dying session"
    resumed = await driver.store.resume_session("w1", b"digest")
    assert resumed is not None
    assert len(resumed.held) == 150
    reply = await driver.store.renew("w1", resumed.epoch, resumed.held)
    held = {run for run, _ in resumed.held}
    assert reply.status == "ok"
    assert {run for run, _ in reply.cancelling} == held & {runs[0], runs[249]}
    assert await driver.reap() == [], "it is not dying any more"
    assert settings.max_lost == 3


async def test_a_dying_session_of_suspects_counts_those_it_still_has(driver: Driver) -> None:
    await driver.accepted(3)
    await driver.worker()
    await driver.claim()
    await driver.tick()
    driver.end_lease("w1")
    assert len(await driver.reap()) == 3
    await driver.worker("w2")
    (suspect,) = await driver.claim("w2")
    await driver.tick()
    driver.end_lease("w2")
    # As if it held many more: the reaper has taken note of its death and no more.
    driver.client.hset(driver.prefix + "s:w2", mapping={"g": 500, "e": 2})
    resumed = await driver.store.resume_session("w2", b"digest")
    assert resumed is not None
    assert resumed.held == [[suspect.run_id, suspect.token]]
    await driver.finish(suspect)
    assert driver.client.hget(driver.prefix + "s:w2", "uc") == b"0"
    assert len((await driver.claim_reply("w2", epoch=resumed.epoch, number=1)).runs) == 1
