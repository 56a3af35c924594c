"""One shard's server is away, as a node of a cluster may be: the other shards go on as if it were not."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from prefect_lite.exceptions import StoreUnavailable
from tests.store.driver import Driver, MakeDriver, submission
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

SHARDS, AWAY = 4, 1
OTHERS = [shard for shard in range(SHARDS) if shard != AWAY]
BEFORE_REFUSAL_SECONDS = 30.0
"""A call to the shard that is away is refused only after this; no test waits so long."""


def in_shard(shard: int) -> str:
    return f"{random.getrandbits(116):029x}{shard:03x}"


@pytest.fixture
async def broken(make_driver: MakeDriver) -> Driver:
    """A session ``w1`` holds a run in each shard, and is past its deadline; then one server goes away."""
    driver = await make_driver(
        shards=SHARDS, lease_seconds=60, redis_wait_seconds=BEFORE_REFUSAL_SECONDS, audit_seconds=0.001
    )
    await driver.submit(*(submission(in_shard(shard)) for shard in range(SHARDS)))
    await driver.worker()
    for shard in range(SHARDS):
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        driver.store.claim("w1", 1, shard, 1, 10, answer.set_result)
        assert len((await answer).runs) == 1
    await driver.tick()
    writer = driver.store.writers[AWAY]
    connection: Any = writer._connection

    async def nobody() -> Any:
        raise ConnectionRefusedError("nobody is there")

    writer._way = writer._way._replace(dial=nobody)
    connection._writer.transport.abort()
    unanswered = asyncio.ensure_future(
        driver.store.command("PING", shard=AWAY)
    )  # an idle writer sees nothing
    await until(lambda: not writer.connected)
    unanswered.cancel()
    return driver


async def test_leases_end_where_the_servers_are(broken: Driver) -> None:
    for prefix in broken.store.prefixes:
        broken.client.zadd(prefix + b"sessions", {"w1": 0})
    async with asyncio.timeout(5.0):
        events = await broken.reap()
    assert sorted(broken.store.shard_of(event.run_id) for event in events) == OTHERS


async def test_leases_are_renewed_where_the_servers_are(broken: Driver) -> None:
    for prefix in broken.store.prefixes:
        broken.client.zadd(prefix + b"sessions", {"w1": 1})
    async with asyncio.timeout(5.0):
        with pytest.raises(StoreUnavailable, match="nobody is there"):
            await broken.store.renew("w1", 1, [])
        scores = [broken.client.zscore(prefix + b"sessions", "w1") for prefix in broken.store.prefixes]
    assert [shard for shard, score in enumerate(scores) if score != 1] == OTHERS


async def test_a_renewal_tells_of_a_resume_even_so(broken: Driver) -> None:
    broken.client.hset(broken.store.prefixes[3] + b"s:w1", "e", 2)
    async with asyncio.timeout(5.0):
        assert (await broken.store.renew("w1", 1, [])).status == "moved"


async def test_due_runs_and_the_rest_are_seen_to_where_the_servers_are(broken: Driver) -> None:
    delayed = [in_shard(shard) for shard in OTHERS]
    await broken.submit(*(submission(run, countdown_seconds=60.0) for run in delayed))
    for run in delayed:
        prefix = broken.store.prefixes[broken.store.shard_of(run)]
        broken.client.zadd(prefix + b"delayed", {run: 1}, xx=True)
    async with asyncio.timeout(5.0):
        reply = await broken.store.promote()
        assert len(reply.ready_keys) == 1
        for run in delayed:
            prefix = broken.store.prefixes[broken.store.shard_of(run)].decode()
            assert broken.client.hget(prefix + f"r:{run}", "st") == b"R"
        await broken.store.retention()
        await broken.store.audit(lambda _: None)
        ended = [in_shard(shard) for shard in range(SHARDS)]
        await broken.submit(*(submission(run) for run in ended if broken.store.shard_of(run) != AWAY))
        for run in ended:
            if broken.store.shard_of(run) != AWAY:
                await broken.cancel(run)
        assert sorted(await broken.store.over(ended)) == sorted(
            run for run in ended if broken.store.shard_of(run) != AWAY
        )
    for shard in OTHERS:
        assert broken.client.hget(broken.store.prefixes[shard] + b"audit", "at")


async def test_all_servers_away_is_trouble(broken: Driver) -> None:
    for writer in broken.store.writers:
        writer.connected = False
    for duty in (broken.store.promote(), broken.store.retention(), broken.store.over([in_shard(0)])):
        with pytest.raises(StoreUnavailable):
            await asyncio.wait_for(duty, 5.0)
