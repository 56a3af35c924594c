"""Wake-up hints between brokers."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.store.driver import KEY, Driver, MakeDriver
from tests.tools.proxy import Proxy
from tests.tools.server import ValkeyServer
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def pair(make_driver: MakeDriver) -> tuple[Driver, Driver]:
    return await make_driver(), await make_driver(broker_id="broker-2")


async def test_what_one_broker_does_the_other_hears(pair: tuple[Driver, Driver]) -> None:
    one, two = pair
    (run,) = await one.accepted()
    await until(lambda: two.hints.ready == [KEY])
    await two.worker()
    (leased,) = await two.claim()
    await one.cancel(run)
    await until(lambda: two.hints.cancels == [("w1", run, leased.token)])
    await two.finish(leased)
    await until(lambda: one.hints.ended == [run])
    assert one.hints.ready == one.hints.cancels == two.hints.ended == [], "nobody hears himself"


async def test_what_a_service_does_everybody_hears(pair: tuple[Driver, Driver]) -> None:
    one = pair[0]
    (run,) = await one.accepted(max_lost=0)
    await one.worker()
    await one.claim()
    await one.tick()
    one.end_lease("w1")
    await one.reap()
    for driver in pair:
        await until(lambda driver=driver: driver.hints.ended == [run])


async def test_a_broker_alone_publishes_nothing(make_driver: MakeDriver) -> None:
    one = await make_driver()
    published = "cmdstat_spublish"

    def count() -> int:
        return int(one.client.info("commandstats").get(published, {}).get("calls", 0))  # type: ignore[union-attr]

    await until(lambda: all(backlog.submit.sender == "-" for backlog in one.store.backlogs))
    before = count()
    await one.accepted(10)
    assert count() == before
    two = await make_driver(broker_id="broker-2")
    await until(lambda: all(backlog.submit.sender == "broker-1" for backlog in one.store.backlogs))
    await one.accepted()
    await until(lambda: KEY in two.hints.ready)


async def test_lost_hints_are_told(make_driver: MakeDriver, valkey: ValkeyServer, tmp_path: Path) -> None:
    proxy = Proxy(valkey.socket_path)
    await proxy.start(("127.0.0.1", 0))
    try:
        driver = await make_driver(redis_url=f"redis://127.0.0.1:{proxy.address[1]}")
        assert driver.hints.lost == 0
        proxy.cut()
        await until(lambda: driver.hints.lost == 1)
        await driver.store.stop()
    finally:
        await proxy.close()


async def test_unreadable_hints_are_skipped(make_driver: MakeDriver) -> None:
    driver = await make_driver()
    for junk in (b"", b"\xff", b"\x93\x01\x02", b"\x93\xa1x\xa1c\x91\xa1y", b"junk"):
        driver.client.publish(driver.prefix + "ev", junk)
    (run,) = await driver.accepted()
    other = await make_driver(broker_id="broker-2")
    await other.cancel(run)
    await until(lambda: driver.hints.ended == [run])
