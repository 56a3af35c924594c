"""What is kept by name, in a real server: entries, locks and blocks; alone and in a cluster."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from prefect_lite_broker import keys, store_keep
from prefect_lite_broker.lanes import BYTES_PER_TURN
from redis.exceptions import OutOfMemoryError

from prefect_lite.exceptions import StoreUnavailable
from prefect_lite.protocol.kept_things import BlockName, Drop, Hold, Put
from prefect_lite.settings import load_settings
from tests.store.driver import EVERYWHERE, KEY, Driver, MakeDriver, submission
from tests.tools.cluster import Cluster
from tests.tools.proxy import Proxy
from tests.tools.server import ValkeyServer
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

MIB = 1 << 20
STRANGE = ("{other}", "a:b", "sum of é ☃", "}{", "x" * 1_024, "\x00\n", "*?[")


def life(driver: Driver, name: str) -> int:
    """Ms until a key goes; -1: never, -2: there is none."""
    return driver.client.pttl(driver.prefix + name)  # type: ignore[return-value]


# -- entries ----------------------------------------------------------------------------------------


@EVERYWHERE
@pytest.mark.parametrize("key", STRANGE)
async def test_any_text_is_a_key(driver: Driver, key: str) -> None:
    store = driver.store
    assert await store.keep_get(key, MIB) is None
    assert not await store.keep_has(key)
    assert await store.keep_put(Put(key, 60.0, ""), key.encode())
    assert await store.keep_get(key, MIB) == key.encode()
    assert await store.keep_has(key)
    assert await store.lock_take(Hold(key, key[:64], 60.0))
    assert await store.lock_look(key) == key[:64]
    assert await store.keep_drop(key)
    assert not await store.keep_has(key)
    assert not await store.keep_drop(key)


async def test_an_empty_body_is_a_body(driver: Driver) -> None:
    await driver.store.keep_put(Put("a", 0.0, ""), b"")
    assert await driver.store.keep_get("a", 0) == b""


async def test_an_entry_goes_when_its_time_is_over_however_often_it_is_read(make_driver: MakeDriver) -> None:
    driver = await make_driver(cache_idle_seconds=1_000.0)
    await driver.store.keep_put(Put("a", 10.0, ""), b"body")
    before = life(driver, "keep:a")
    assert 9_000 < before <= 10_000
    assert await driver.store.keep_get("a", MIB) == b"body"
    assert life(driver, "keep:a") <= before


async def test_an_entry_without_a_time_stays_while_it_is_read(make_driver: MakeDriver) -> None:
    driver = await make_driver(cache_idle_seconds=1_000.0)
    await driver.store.keep_put(Put("a", 0.0, ""), b"body")
    assert 1_000_000 <= life(driver, "keep:a") <= 1_100_000
    # Read early: it stays for more than its time anyway, and the read costs no write
    driver.client.pexpire(driver.prefix + "keep:a", 1_000_500)
    await driver.store.keep_get("a", MIB)
    assert life(driver, "keep:a") <= 1_000_500
    driver.client.pexpire(driver.prefix + "keep:a", 5_000)
    assert await driver.store.keep_has("a")
    assert life(driver, "keep:a") <= 5_000, "to ask for it is not to read it"
    assert await driver.store.keep_get("a", 2) == 4
    assert life(driver, "keep:a") <= 5_000, "what was too long to be read was not read"
    assert await driver.store.keep_get("a", MIB) == b"body"
    assert life(driver, "keep:a") > 1_000_000


async def test_a_new_body_has_its_own_time(make_driver: MakeDriver) -> None:
    driver = await make_driver(cache_idle_seconds=1_000.0)
    await driver.store.keep_put(Put("a", 0.0, ""), b"first")
    await driver.store.keep_put(Put("a", 5.0, ""), b"second")
    assert life(driver, "keep:a") <= 5_000
    assert await driver.store.keep_get("a", MIB) == b"second"
    assert life(driver, "keep:a") <= 5_000


async def test_large_bodies(driver: Driver) -> None:
    bodies = {f"k{size}": os.urandom(size) for size in (1, 65_536, 65_537, 3 * MIB, 17 * MIB)}
    await asyncio.gather(*(driver.store.keep_put(Put(key, 60.0, ""), body) for key, body in bodies.items()))
    for key, body in bodies.items():
        if len(body) > 1:
            assert await driver.store.keep_get(key, len(body) - 1) == len(body)
        assert await driver.store.keep_get(key, len(body)) == body


async def test_bodies_are_bounded_in_each_pipeline(driver: Driver) -> None:
    lane = driver.store.backlogs[0].keep
    body = os.urandom(MIB)
    pipelines = driver.store.counters["pipelines"]
    writes = [asyncio.ensure_future(driver.store.keep_put(Put(f"k{i}", 60.0, ""), body)) for i in range(12)]
    assert await asyncio.gather(*writes) == [True] * 12
    assert driver.store.counters["pipelines"] - pipelines >= 12 * MIB // BYTES_PER_TURN
    assert (lane.bytes, lane.pending) == (0, [])


async def test_a_full_server_refuses_entries_and_goes_on_with_all_else(driver: Driver) -> None:
    await driver.accepted(2)
    await driver.worker()
    await driver.store.keep_put(Put("a", 0.0, ""), b"body")
    driver.client.config_set("maxmemory", 1)
    try:
        pipelines = driver.store.counters["pipelines"]
        with pytest.raises(OutOfMemoryError):
            await driver.store.keep_put(Put("b", 60.0, ""), b"body")
        with pytest.raises(OutOfMemoryError):
            await driver.store.block_put(BlockName("kind", "name"), b"document")
        assert driver.store.counters["pipelines"] - pipelines <= 2, "it was repeated"
        # What is there can be read, kept for longer, dropped; locks make room by themselves
        assert await driver.store.keep_get("a", MIB) == b"body"
        assert await driver.store.lock_take(Hold("a", "me", 60.0))
        assert await driver.store.lock_renew(Hold("a", "me", 60.0))
        assert await driver.store.lock_drop(Drop("a", "me", "mark"))
        assert await driver.store.keep_drop("a")
        runs = await driver.claim()
        assert (await driver.finish(runs[0])).status == "ok"
    finally:
        driver.client.config_set("maxmemory", 0)


async def test_without_a_server_all_of_it_is_refused_in_time(server: ValkeyServer, tmp_path: Path) -> None:
    settings = load_settings(redis_url=server.url, home=tmp_path, redis_wait_seconds=0.3)
    with server.client() as client:
        driver = await Driver(settings, client).start()
        server.stop()
        for call in (
            driver.store.keep_put(Put("a", 0.0, ""), b"x" * MIB),
            driver.store.keep_get("a", MIB),
            driver.store.lock_take(Hold("a", "me", 1.0)),
            driver.store.block_list(),
        ):
            with pytest.raises(StoreUnavailable):
                await call
        assert driver.store.backlogs[0].keep.bytes == 0
        await driver.stop()


@pytest.fixture
async def server() -> AsyncIterator[ValkeyServer]:
    started = ValkeyServer()
    started.start()
    yield started
    started.close()


# -- locks ------------------------------------------------------------------------------------------


@EVERYWHERE
async def test_one_holder_at_a_time(driver: Driver) -> None:
    store = driver.store
    assert await store.lock_look("a") is None
    assert await store.lock_take(Hold("a", "me", 60.0))
    assert not await store.lock_take(Hold("a", "you", 60.0))
    assert await store.lock_take(Hold("b", "you", 60.0)), "another key is another lock"
    assert await store.lock_look("a") == "me"
    assert not await store.lock_renew(Hold("a", "you", 60.0))
    assert not await store.lock_drop(Drop("a", "you", ""))
    assert await store.lock_drop(Drop("a", "me", ""))
    assert await store.lock_look("a") is None
    assert life(driver, "lock:a") == -2
    assert await store.lock_take(Hold("a", "you", 60.0))


async def test_of_many_that_take_it_at_once_one_gets_it(make_driver: MakeDriver) -> None:
    drivers = [await make_driver(broker_id=f"broker-{i}") for i in range(3)]
    takes = [one.store.lock_take(Hold("a", f"h{i}", 60.0)) for i, one in enumerate(drivers * 7)]
    assert sum(await asyncio.gather(*takes)) == 1


async def test_who_takes_it_again_holds_it_for_that_time(driver: Driver) -> None:
    assert await driver.store.lock_take(Hold("a", "me", 60.0))
    assert await driver.store.lock_take(Hold("a", "me", 5.0))
    assert life(driver, "lock:a") <= 5_000
    assert await driver.store.lock_renew(Hold("a", "me", 60.0))
    assert life(driver, "lock:a") > 50_000


async def test_a_lock_that_is_not_renewed_is_free(driver: Driver) -> None:
    assert await driver.store.lock_take(Hold("a", "me", 0.001))
    await driver.clock_moves(0.002)
    assert await driver.store.lock_look("a") is None
    assert not await driver.store.lock_renew(Hold("a", "me", 60.0)), "somebody may have had it meanwhile"
    assert await driver.store.lock_take(Hold("a", "you", 60.0))


async def test_a_drop_that_is_asked_again_has_the_same_answer_whoever_has_the_lock(driver: Driver) -> None:
    store = driver.store
    assert await store.lock_take(Hold("a", "me", 60.0))
    assert await store.lock_drop(Drop("a", "me", "m1"))
    assert 0 < life(driver, "lock:a") <= 1_000 * store_keep.MARK_WAITS * store.settings.keep_wait_seconds
    assert await store.lock_drop(Drop("a", "me", "m1"))
    assert await store.lock_look("a") is None
    assert await store.lock_take(Hold("a", "you", 60.0))
    assert await store.lock_drop(Drop("a", "me", "m1"))
    assert await store.lock_look("a") == "you", "the repetition drops nothing"
    assert not await store.lock_drop(Drop("a", "me", "m2")), "a second one is not a repetition"
    assert not await store.lock_drop(Drop("a", "me", ""))


async def test_a_drop_that_was_done_already_does_not_undo_a_later_take(driver: Driver) -> None:
    """The connection broke, the repeated question was answered by a second broker, and the same holder has
    taken the lock again; then the first broker, which stood still, does what it was asked for."""
    store = driver.store
    assert await store.lock_take(Hold("a", "me", 60.0))
    assert await store.lock_drop(Drop("a", "me", "m1"))
    assert await store.lock_take(Hold("a", "me", 60.0))
    assert await store.lock_drop(Drop("a", "me", "m1"))
    assert await store.lock_look("a") == "me"
    assert await store.lock_drop(Drop("a", "me", "m2"))
    assert await store.lock_look("a") is None


async def test_who_has_lost_the_lock_writes_nothing(driver: Driver) -> None:
    store = driver.store
    assert not await store.keep_put(Put("a", 0.0, "me"), b"mine")
    assert await store.lock_take(Hold("a", "me", 60.0))
    assert await store.keep_put(Put("a", 0.0, "me"), b"mine")
    assert await store.keep_put(Put("a", 0.0, "me"), b"mine"), "a repetition"
    driver.client.pexpire(driver.prefix + "lock:a", 0)
    assert await store.lock_take(Hold("a", "you", 60.0))
    assert not await store.keep_put(Put("a", 0.0, "me"), b"late")
    assert await store.keep_get("a", MIB) == b"mine"
    assert await store.lock_drop(Drop("a", "you", "m"))
    assert not await store.keep_put(Put("a", 0.0, "you"), b"late"), "the mark of a drop is no holder"
    assert await store.keep_put(Put("a", 0.0, ""), b"without"), "who names no holder needs no lock"


async def test_a_write_under_a_lock_that_is_asked_again_has_the_same_answer(driver: Driver) -> None:
    """Even when somebody else has the lock by then; and it is not done twice."""
    store = driver.store
    assert await store.lock_take(Hold("a", "me", 60.0))
    assert await store.keep_put(Put("a", 0.0, "me", "m1"), b"mine")
    driver.client.pexpire(driver.prefix + "lock:a", 0)
    assert await store.lock_take(Hold("a", "you", 60.0))
    assert await store.keep_put(Put("a", 0.0, "you", "m2"), b"yours")
    assert await store.keep_put(Put("a", 0.0, "me", "m1"), b"mine")
    assert await store.keep_get("a", MIB) == b"yours"
    assert not await store.keep_put(Put("a", 0.0, "me", "m3"), b"late")
    assert not await store.keep_put(Put("a", 0.0, "me", ""), b"late")
    assert life(driver, "did:m1") > 0
    assert life(driver, "did:m3") == -2
    await store.keep_put(Put("a", 0.0, "", "m4"), b"without")
    assert life(driver, "did:m4") == -2, "what needs no lock may be written again"


async def test_time_that_is_advanced_ends_entries_and_leaves_locks(driver: Driver) -> None:
    await driver.store.keep_put(Put("old", 50.0, ""), b"body")
    await driver.store.keep_put(Put("young", 500.0, ""), b"body")
    await driver.store.lock_take(Hold("old", "me", 50.0))
    await driver.store.advance(100.0)
    assert not await driver.store.keep_has("old")
    assert 390_000 < life(driver, "keep:young") <= 400_000
    assert await driver.store.lock_look("old") == "me"
    assert life(driver, "lock:old") > 40_000


# -- blocks -----------------------------------------------------------------------------------------


@EVERYWHERE
async def test_blocks(driver: Driver) -> None:
    store = driver.store
    assert await store.block_list() == []
    assert await store.block_get(BlockName("kind", "name")) is None
    assert await store.block_put(BlockName("kind", "name"), b"one") == 1
    assert await store.block_put(BlockName("kind", "name"), b"two") == 0
    assert await store.block_get(BlockName("kind", "name")) == b"one"
    assert await store.block_put(BlockName("kind", "name", overwrite=True), b"two") == 1
    assert await store.block_get(BlockName("kind", "name")) == b"two"
    assert await store.block_put(BlockName("kind", "a-name"), b"three") == 1
    assert await store.block_put(BlockName("a-kind", "name"), b"four") == 1
    assert await store.block_list() == ["a-kind/name", "kind/a-name", "kind/name"]
    assert await store.block_drop(BlockName("kind", "name"))
    assert not await store.block_drop(BlockName("kind", "name"))
    assert life(driver, "blocks") == -1, "saved until it is dropped"


async def test_saving_and_dropping_that_are_asked_again(driver: Driver) -> None:
    store = driver.store
    assert await store.block_put(BlockName("kind", "name", mark="m1"), b"one") == 1
    assert await store.block_put(BlockName("kind", "name", mark="m1"), b"one") == 1
    assert await store.block_put(BlockName("kind", "name", mark="m2"), b"one") == 0
    assert await store.block_drop(BlockName("kind", "name", mark="m3"))
    assert await store.block_drop(BlockName("kind", "name", mark="m3"))
    assert not await store.block_drop(BlockName("kind", "name", mark="m4"))
    assert await store.block_put(BlockName("kind", "name", mark="m1"), b"late") == 1
    assert await store.block_get(BlockName("kind", "name")) is None, "a repetition saves nothing"
    assert life(driver, "did:m1") > 0


async def test_blocks_are_counted(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_keep, "MAX_BLOCKS", 2)
    store = driver.store
    assert [await store.block_put(BlockName("kind", f"n{i}"), b"x") for i in range(3)] == [1, 1, -1]
    assert await store.block_put(BlockName("kind", "n0", overwrite=True), b"y") == 1
    assert await store.block_drop(BlockName("kind", "n1"))
    assert await store.block_put(BlockName("kind", "n2"), b"x") == 1


# -- lost replies, several shards -------------------------------------------------------------------


async def test_every_call_whose_reply_is_lost_has_the_answer_of_the_first(
    make_driver: MakeDriver, valkey: ValkeyServer
) -> None:
    proxy = Proxy(valkey.socket_path)
    await proxy.start(("127.0.0.1", 0))
    driver = await make_driver(redis_url=f"redis://127.0.0.1:{proxy.address[1]}")
    store = driver.store
    try:
        for i in range(10):
            key = f"k{i}"
            calls = (
                (store.lock_take(Hold(key, "me", 60.0)), True),
                (store.lock_take(Hold(key, "you", 60.0)), False),
                (store.keep_put(Put(key, 60.0, "me"), os.urandom(100_000)), True),
                (store.keep_has(key), True),
                (store.lock_renew(Hold(key, "me", 60.0)), True),
                (store.lock_drop(Drop(key, "me", f"m{i}")), True),
                (store.block_put(BlockName("kind", key, mark=f"p{i}"), b"doc"), 1),
                (store.block_get(BlockName("kind", key)), b"doc"),
                (store.block_drop(BlockName("kind", key, mark=f"d{i}")), True),
            )
            for call, expected in calls:
                proxy.cut_next_reply()
                assert await call == expected
                assert not proxy.armed, "the cut did not happen"
    finally:
        await driver.stop()
        await proxy.close()


async def test_in_a_cluster_an_entry_and_its_lock_are_in_one_slot(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    settings = load_settings(redis_url=cluster.url, namespace=namespace, home=tmp_path)
    with cluster.masters[0].client() as client:
        driver = await Driver(settings, client).start()
        store = driver.store
        names = [f"{{{i}}}:key" for i in range(40)]
        try:
            assert len({keys.shard_of_key(name, store.shards) for name in names}) > 10
            for name in names:
                assert await store.lock_take(Hold(name, "me", 60.0))
                assert await store.keep_put(Put(name, 60.0, "me"), name.encode())
                assert not await store.keep_put(Put(name, 60.0, "you"), b"no")
            assert [await store.keep_get(name, MIB) for name in names] == [name.encode() for name in names]
            with cluster.client() as all_nodes:
                for name in names:
                    prefix = store.prefixes[keys.shard_of_key(name, store.shards)]
                    there = [prefix + f"{kind}:{name}".encode() for kind in ("keep", "lock")]
                    assert len({keys.slot(key) for key in [*there, prefix]}) == 1
                    assert [all_nodes.pttl(key) > 0 for key in there] == [True, True]
                    assert await store.lock_drop(Drop(name, "me", ""))
                    assert await store.keep_drop(name)
        finally:
            await driver.stop()


async def test_large_bodies_do_not_hold_up_the_life_of_runs(driver: Driver) -> None:
    """A pipeline has one large body at most, and what runs need goes before it."""
    await driver.worker()
    bodies = [
        asyncio.ensure_future(driver.store.keep_put(Put(f"k{i}", 60.0, ""), bytes(8 * MIB))) for i in range(6)
    ]
    await until(lambda: bool(driver.store.backlogs[0].keep.pending), 1.0)
    assert (await driver.submit(submission(key=KEY)))[0].status == "accepted"
    assert sum(body.done() for body in bodies) < 6, "it waited for all of them"
    assert await asyncio.gather(*bodies) == [True] * 6
