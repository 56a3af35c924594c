"""The store in a real cluster of three nodes: every shard on the node of its slot, wherever that goes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from prefect_lite_broker import keys
from prefect_lite_broker.run_queries import page_of_runs
from prefect_lite_broker.store import ClaimedRun
from prefect_lite_broker.writer import EXCHANGE_SECONDS

from prefect_lite.exceptions import ConfigurationError, StoreUnavailable
from prefect_lite.settings import load_settings
from tests.store.driver import KEY, Driver, run_id, submission
from tests.tools.audit import audit
from tests.tools.cluster import Cluster
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

SHARDS = 16


class Wide:
    """A driver whose runs are spread over all shards."""

    def __init__(self, cluster: Cluster, driver: Driver) -> None:
        self.cluster, self.driver = cluster, driver
        self.slots = [keys.slot(prefix) for prefix in driver.store.prefixes]
        self.accepted: list[str] = []
        self._numbers = [count(1) for _ in self.slots]

    async def submit(self, shard: int) -> str:
        run = run_id()[:-3] + f"{shard:03x}"
        (reply,) = await self.driver.submit(submission(run))
        assert reply.status == "accepted", reply
        self.accepted.append(run)
        return run

    async def claim(self, epoch: int, shard: int) -> list[ClaimedRun]:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.driver.store.claim("w1", epoch, shard, next(self._numbers[shard]), 50, answer.set_result)
        reply = await answer
        assert reply.status == "ok"
        return reply.runs

    async def live(self, epoch: int, shard: int, until_set: asyncio.Event) -> int:
        """Submit, claim and finish runs in one shard; returns how many were finished."""
        finished = 0
        while not until_set.is_set():
            await self.submit(shard)
            for run in await self.claim(epoch, shard):
                assert (await self.driver.finish(run)).status == "ok"
                finished += 1
        return finished

    def audit(self) -> dict[str, str]:
        with self.cluster.client() as client:
            states: dict[str, str] = {}
            for prefix in self.driver.store.prefixes:
                states |= audit(client, prefix.decode())  # type: ignore[arg-type]
            return states


@pytest.fixture
async def wide(cluster: Cluster, namespace: str, tmp_path: Path) -> AsyncIterator[Wide]:
    settings = load_settings(redis_url=cluster.url, namespace=namespace, home=tmp_path, lease_seconds=60)
    with cluster.masters[0].client() as client:
        driver = await Driver(settings, client).start()
        wide = Wide(cluster, driver)
        yield wide
        await driver.stop()
        wide.audit()


async def test_a_cluster_has_16_shards_on_all_nodes(wide: Wide) -> None:
    assert wide.driver.store.shards == SHARDS
    assert wide.driver.warnings == []
    assert len({wide.cluster.owner(slot).port for slot in wide.slots}) == 3
    epoch = await wide.driver.worker()
    for shard in range(SHARDS):
        await wide.submit(shard)
    claimed = [run for shard in range(SHARDS) for run in await wide.claim(epoch, shard)]
    assert sorted(run.run_id for run in claimed) == sorted(wide.accepted)
    for run in claimed:
        assert (await wide.driver.finish(run)).status == "ok"
    assert set(await wide.driver.types(wide.accepted)) == {"COMPLETED"}


async def test_hints_reach_other_brokers_from_every_shard(wide: Wide) -> None:
    other = await Driver(wide.driver.store.settings, wide.driver.client, "broker-2").start()
    try:
        assert other.store.shards == SHARDS
        for shard in range(SHARDS):
            other.hints.ready.clear()
            await wide.submit(shard)
            await until(lambda: other.hints.ready == [KEY])
    finally:
        await other.stop()


async def test_the_first_broker_decides_how_many_shards_there_are(
    cluster: Cluster, namespace: str, tmp_path: Path
) -> None:
    def settings(shards: int | None) -> Any:
        return load_settings(redis_url=cluster.url, namespace=namespace, home=tmp_path, shards=shards)

    with cluster.masters[0].client() as client:
        first = await Driver(settings(4), client).start()
        second = await Driver(settings(None), client, "broker-2").start()
        assert [first.store.shards, second.store.shards] == [4, 4]
        with pytest.raises(ConfigurationError, match="started with 4 shards, not 16"):
            await Driver(settings(16), client, "broker-3").start()
        await first.stop()
        await second.stop()


async def test_a_slot_moves_to_another_node_under_load(wide: Wide) -> None:
    """Nothing is lost or done twice, whatever step the move is at; only the slot's own shard stands still."""
    cluster, slot = wide.cluster, wide.slots[0]
    source = cluster.owner(slot)
    target = next(node for node in cluster.masters if node is not source)
    elsewhere = next(shard for shard, other in enumerate(wide.slots) if cluster.owner(other) is not source)
    epoch = await wide.driver.worker()
    waiting = [await wide.submit(0) for _ in range(30)]
    over = asyncio.Event()
    lives = [asyncio.create_task(wide.live(epoch, shard, over)) for shard in (0, elsewhere)]
    await until(lambda: len(wide.accepted) > len(waiting) + 10)
    await asyncio.to_thread(cluster.begin_move, slot, target)
    await until(lambda: "is moving" in wide.driver.store.writers[0].last_error)
    await asyncio.to_thread(cluster.move_keys, slot, source, target, 5)  # a part of them
    before = len(wide.accepted)
    await until(lambda: len(wide.accepted) > before + 10, what="the other shards to go on")
    await asyncio.to_thread(cluster.move_keys, slot, source, target)
    await asyncio.to_thread(cluster.end_move, slot, target)
    moved = await wide.submit(0)
    before = len(wide.accepted)
    await until(lambda: len(wide.accepted) > before + 20)
    over.set()
    finished = sum(await asyncio.gather(*lives))
    for shard in (0, elsewhere):
        for run in await wide.claim(epoch, shard):
            assert (await wide.driver.finish(run)).status == "ok"
            finished += 1
    assert finished == len(wide.accepted), "each was claimed once"
    assert set(await wide.driver.types([*waiting, moved])) == {"COMPLETED"}
    assert cluster.owner(slot) is target
    await until(lambda: all(listener.subscribed.is_set() for listener in wide.driver.store._listeners))


async def test_a_broker_finds_the_cluster_by_nodes_it_has_learned(wide: Wide) -> None:
    """The nodes of the URL may all be gone one day."""
    dialer: Any = wide.driver.store.dialer
    seeds = wide.cluster.masters
    assert {node[1] for node in dialer._nodes} == {node.port for node in seeds}
    only = load_settings(
        redis_url=f"redis+cluster://127.0.0.1:{seeds[0].port},127.0.0.1:1",
        namespace=wide.driver.store.settings.namespace,
        home=wide.driver.store.settings.home,
    )
    other = await Driver(only, wide.driver.client, "broker-2").start()
    learned: Any = other.store.dialer
    assert {node.port for node in seeds} <= {node[1] for node in learned._nodes}
    await other.stop()


async def test_no_cluster_at_all(valkey: Any, tmp_path: Path) -> None:
    for port, words in ((1, "tells about the cluster"), (valkey.port, "cluster support disabled")):
        settings = load_settings(
            redis_url=f"redis+cluster://127.0.0.1:{port}", home=tmp_path, redis_wait_seconds=0.3
        )
        with valkey.client() as client, pytest.raises(StoreUnavailable, match=words):
            await Driver(settings, client).start()


@pytest.fixture
def replicated() -> Iterator[Cluster]:
    own = Cluster(replicas=1)
    try:
        own.start()
        yield own
    finally:
        own.close()


@pytest.mark.chaos
@pytest.mark.parametrize("fault", ["kill", "freeze"])
async def test_a_node_dies_and_its_replica_takes_over(
    replicated: Cluster, tmp_path: Path, fault: str
) -> None:
    settings = load_settings(
        redis_url=replicated.url, home=tmp_path, lease_seconds=60, redis_wait_seconds=30.0
    )
    with replicated.masters[1].client() as client:
        driver = await Driver(settings, client).start()
        wide = Wide(replicated, driver)
        epoch = await driver.worker()
        over = asyncio.Event()
        lives = [asyncio.create_task(wide.live(epoch, shard, over)) for shard in range(SHARDS)]
        await until(lambda: len(wide.accepted) > 200)
        victim = replicated.owner(wide.slots[0])
        await asyncio.sleep(0.2)  # replication is asynchronous; it is not what is tested here
        begun = time.monotonic()
        getattr(victim, fault)()
        (shard,) = [i for i, slot in enumerate(wide.slots) if slot == wide.slots[0]]
        before = sum(run.endswith(f"{shard:03x}") for run in wide.accepted)
        await until(
            lambda: sum(run.endswith(f"{shard:03x}") for run in wide.accepted) > before + 10,
            30.0,
            "the shard to go on",
        )
        assert time.monotonic() - begun < EXCHANGE_SECONDS, "not only when the exchange is given up"
        over.set()
        await asyncio.wait_for(asyncio.gather(*lives, return_exceptions=True), 30.0)
        if fault == "freeze":
            victim.thaw()
        await until(lambda: replicated.owner(wide.slots[0]) is not victim)
        await driver.stop()


async def test_a_list_looks_into_every_shard(wide: Wide) -> None:
    for shard in range(SHARDS):
        await wide.submit(shard)
        await wide.submit(shard)
    found: list[str] = []
    position: str | None = ""
    while position is not None:
        page = await page_of_runs(wide.driver.store, {"position": position, "task_key": KEY})
        found += [run["run_id"] for run in page["runs"]]
        position = page["next"]
    assert sorted(found) == sorted(wide.accepted)
    records = await wide.driver.store.read_runs([*wide.accepted, run_id()])
    assert {record.state.run_id for record in records} == {*wide.accepted}
