"""A master that sentinels watch dies, and the store goes on with its replica."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect_lite_broker.writer import EXCHANGE_SECONDS

from prefect_lite.exceptions import StoreUnavailable
from prefect_lite.settings import Settings, load_settings
from tests.store.driver import Driver, run_id, submission
from tests.tools.sentinel import SERVICE, SentinelFleet
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def sentinels() -> Iterator[SentinelFleet]:
    fleet = SentinelFleet()
    try:
        fleet.start()
        yield fleet
    finally:
        fleet.close()


@pytest.mark.parametrize("fault", ["freeze", pytest.param("kill", marks=pytest.mark.chaos)])
async def test_brokers_go_on_with_the_new_master(
    sentinels: SentinelFleet, tmp_path: Path, fault: str
) -> None:
    """The connections to a frozen one stay open; nobody waits until its answers are given up."""

    def settings(url: str = sentinels.url, wait: float = 20.0) -> Settings:
        return load_settings(redis_url=url, home=tmp_path, lease_seconds=60, redis_wait_seconds=wait)

    with sentinels.replica.client() as client:
        with pytest.raises(StoreUnavailable, match="'nobody'"):
            await Driver(settings(sentinels.url.replace(SERVICE, "nobody"), 0.3), client).start()
        drivers = [await Driver(settings(), client, f"broker-{number}").start() for number in range(2)]
        try:
            (first,) = await drivers[0].accepted()
            await until(lambda: client.exists(f"{drivers[0].prefix}r:{first}"), what="replication")
            getattr(sentinels.master, fault)()
            killed = time.monotonic()
            ids = [run_id() for _ in drivers]
            replies = await asyncio.gather(
                *(driver.submit(submission(run)) for driver, run in zip(drivers, ids, strict=True))
            )
            took = time.monotonic() - killed
            assert [reply.status for (reply,) in replies] == ["accepted"] * 2
            assert took < EXCHANGE_SECONDS
            assert set(drivers[0].audit()) == {first, *ids}, "at the new master"
            await until(lambda: all(one.subscribed.is_set() for one in drivers[0].store._listeners))
            # The old master comes back, takes itself for one at first, and nobody asks it.
            if fault == "kill":
                sentinels.master.start()
            else:
                sentinels.master.thaw()
            (last,) = await drivers[1].accepted()
            assert (await drivers[0].state(last)).type == "SCHEDULED"
        finally:
            for driver in drivers:
                await driver.stop()
