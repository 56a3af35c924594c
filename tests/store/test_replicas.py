"""``redis_wait_replicas``: nothing is answered as stored before so many replicas have it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prefect_lite_broker.probe import first_contact

from prefect_lite.exceptions import StoreUnavailable
from prefect_lite.settings import load_settings
from tests.store.driver import Driver, submission
from tests.tools.server import ValkeyServer
from tests.tools.waiting import until, wait_until

pytestmark = pytest.mark.anyio


@pytest.fixture
def servers() -> Iterator[tuple[ValkeyServer, ValkeyServer]]:
    """A master and its replica."""
    master, replica = ValkeyServer(), ValkeyServer()
    try:
        master.start()
        replica.start()
        attach(master, replica)
        yield master, replica
    finally:
        replica.close()
        master.close()


def attach(master: ValkeyServer, replica: ValkeyServer) -> None:
    with replica.client() as client, master.client() as other:
        client.replicaof("127.0.0.1", str(master.port))
        # A replica counts as attached about a second before it confirms anything.
        wait_until(lambda: other.set("here", 1) and other.wait(1, 100) == 1, 20.0, "a replica that confirms")


@pytest.fixture
async def driver(servers: tuple[ValkeyServer, ValkeyServer], tmp_path: Path) -> AsyncIterator[Driver]:
    settings = load_settings(
        redis_url=servers[0].url,
        home=tmp_path,
        lease_seconds=60,
        redis_wait_seconds=0.6,
        redis_wait_replicas=1,
        redis_wait_replicas_seconds=0.1,
    )
    with servers[0].client() as client:
        driver = await Driver(settings, client).start()
        yield driver
        await driver.stop()
        driver.audit()


async def test_writes_count_when_a_replica_has_them(
    driver: Driver, servers: tuple[ValkeyServer, ValkeyServer]
) -> None:
    replica = servers[1]
    assert driver.warnings == []
    ids = await driver.accepted(150)
    with replica.client() as client:
        assert client.exists(*(f"{driver.prefix}r:{run}" for run in ids)) == 150
    await driver.worker()
    runs = await driver.claim()
    replica.freeze()
    try:
        msg = submission()
        commit = asyncio.ensure_future(driver.finish(runs[0]))
        (reply,) = await driver.submit(msg)
        assert reply.status == "unavailable"
        assert "0 of 1 replicas" in reply.text
        # A connection that is new has written nothing: its WAIT must not speak for the last one's writes.
        driver.client.client_kill_filter(_type="normal", skipme=True)
        await until(lambda: driver.store.counters["reconnects"] > 0)
        (reply,) = await driver.submit(msg)
        assert reply.status == "unavailable"
        assert not commit.done()
        assert "replicas" in await driver.store.readiness()
        assert (await driver.state(ids[-1])).type == "SCHEDULED", "questions are answered"
    finally:
        replica.thaw()
    assert (await commit).status in ("ok", "already")
    assert (await driver.submit(msg))[0].status in ("accepted", "exists")
    assert await driver.store.readiness() == ""


async def test_too_few_replicas_are_warned_of_and_none_cost_nothing(
    driver: Driver,
) -> None:
    settings = driver.store.settings.model_copy(update={"redis_wait_replicas": 2})
    _, warnings = await first_contact(driver.store.dialer, settings)
    assert len(warnings) == 1
    assert "1 replicas are attached, but 2 have to confirm" in warnings[0]
    lonely = await Driver(settings, driver.client, "broker-3").start()
    assert lonely.warnings == warnings
    with pytest.raises(StoreUnavailable, match="1 of 2 replicas"):
        await lonely.store.ping()
    await lonely.stop()
    settings = settings.model_copy(update={"redis_wait_replicas": 0})
    without = await Driver(settings, driver.client, "broker-2").start()
    await driver.stop()  # its questions are over, and so is its waiting
    before = driver.client.info("commandstats")["cmdstat_wait"]["calls"]  # type: ignore[index]
    await without.accepted(10)
    await without.stop()
    assert driver.client.info("commandstats")["cmdstat_wait"]["calls"] == before  # type: ignore[index]
