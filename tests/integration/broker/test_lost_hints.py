"""Brokers that hear no hints still are one system, about a poll later; and who shares what."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from prefect_lite_broker.hint_listener import HintListener

from prefect_lite.protocol.messages import (
    Accepted,
    Answer,
    Cancel,
    Done,
    Finish,
    Goodbye,
    Ready,
    Renew,
    Run,
    RunState,
    Submit,
    Watch,
)
from tests.integration.broker.bench import Bench, BenchMaker
from tests.integration.broker.raw_peer import RawPeer, new_id
from tests.tools.proxy import Proxy
from tests.tools.server import ValkeyServer
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

SHARDS = pytest.mark.parametrize("shards", [1, 4])
POLL_SECONDS = 0.5
SLACK_SECONDS = 0.6
"""For a machine that has other things to do."""


@pytest.fixture
def deaf(monkeypatch: pytest.MonkeyPatch) -> None:
    """No hint is handed on by any broker."""
    monkeypatch.setattr(HintListener, "_tell", lambda self, packed: None)


async def three(make_bench: BenchMaker, redis_url: str = "", **settings: Any) -> Bench:
    times = {"poll_seconds": POLL_SECONDS, "lease_seconds": 30.0, "renew_seconds": 5.0}
    bench = await make_bench(**{**times, **settings})
    if redis_url:
        bench.values["redis_url"] = redis_url
    for _ in range(3):
        await bench.broker()
    return bench


async def submit_execute_wait(bench: Bench) -> tuple[float, float]:
    """Submit at the first broker, execute at the second, wait at the first and third.

    Returns:
        Seconds until the run arrived, and until the last waiter heard of its end.
    """
    client, worker, waiter = (
        await bench.client(broker=0),
        await bench.worker(broker=1),
        await bench.client(broker=2),
    )
    await worker.settle()
    run_id = await client.submit(watch=True)
    begun = time.monotonic()
    await waiter.send(Watch([run_id]))
    await waiter.settle()
    run = await worker.expect(Run)
    arrived = time.monotonic()
    await worker.send(Finish(run_id, run.token, "COMPLETED", "", "", 1, 0.0, b"r"))
    await worker.expect(Done)
    ended = time.monotonic()
    for one in (client, waiter):
        assert (await one.expect(RunState)).result == b"r"
    heard = time.monotonic()
    await worker.send(Goodbye("done"))
    await worker.closed()
    return arrived - begun, heard - ended


@SHARDS
async def test_every_hint_lost_costs_a_poll(make_bench: BenchMaker, deaf: None, shards: int) -> None:
    bench = await three(make_bench, shards=shards)
    for _ in range(2):
        arrival, answer = await submit_execute_wait(bench)
        assert arrival < POLL_SECONDS + SLACK_SECONDS
        assert answer < POLL_SECONDS + SLACK_SECONDS


async def test_subscriptions_that_the_network_swallows_cost_a_poll(
    make_bench: BenchMaker, valkey: ValkeyServer
) -> None:
    proxy = Proxy(("127.0.0.1", valkey.port))
    await proxy.start(("127.0.0.1", 0))
    bench = await three(make_bench, redis_url=f"redis://127.0.0.1:{proxy.address[1]}")
    try:
        with valkey.client() as redis:
            listed: Any = redis.client_list(_type="pubsub")
        subscribed = {int(each["addr"].rpartition(":")[2]) for each in listed}
        silent = [
            link for link in proxy.links if link._writers[1].get_extra_info("sockname")[1] in subscribed
        ]
        assert len(silent) == 3
        proxy.hold("down", links=silent)
        arrival, answer = await submit_execute_wait(bench)
        assert arrival < POLL_SECONDS + SLACK_SECONDS
        assert answer < POLL_SECONDS + SLACK_SECONDS
    finally:
        proxy.release()
        await bench.close()
        await proxy.close()


async def submit_many(client: RawPeer, count: int, task_key: str = "tasks.add") -> set[str]:
    ids = {new_id() for _ in range(count)}
    await client.send(*(Submit(run_id, task_key, b"body") for run_id in ids))
    waiting = set(ids)
    while waiting:
        waiting -= {*(await client.expect(Accepted)).run_ids}
    return ids


class Busy:
    """A worker that ends each run as it comes, and grants as much credit as it then has slots."""

    def __init__(self, peer: RawPeer, slots: int) -> None:
        self.peer, self.slots = peer, slots
        self.ids: list[str] = []
        self.most = 0
        self.answered = 0

    async def work(self, together: int) -> None:
        """Take runs until cancelled, and end them a few at a time."""
        open_runs: list[Run] = []
        while True:
            run = await self.peer.expect(Run)
            self.ids.append(run.run_id)
            open_runs.append(run)
            self.most = max(self.most, len(open_runs))
            if len(open_runs) >= together or not self.peer.inbox:
                await asyncio.sleep(0.03)  # the time that a run takes
                commits = [
                    Finish(one.run_id, one.token, "COMPLETED", "", "", 1, 0.01, None) for one in open_runs
                ]
                open_runs = []
                await self.peer.send(Renew(len(self.ids), []), *commits, Ready(len(self.ids) + self.slots))


@SHARDS
@pytest.mark.parametrize("hints", ["heard", "lost"])
async def test_two_workers_at_two_brokers_share_the_runs_of_a_third(
    make_bench: BenchMaker, request: pytest.FixtureRequest, shards: int, hints: str
) -> None:
    if hints == "lost":
        request.getfixturevalue("deaf")
    bench = await three(make_bench, shards=shards, poll_seconds=0.2)
    client = await bench.client(broker=0)
    workers = [Busy(await bench.worker(broker=broker, limit=5), 5) for broker in (1, 2)]
    tasks = [asyncio.create_task(worker.work(together=5)) for worker in workers]
    ids: set[str] = set()
    try:
        for _ in range(20):
            ids.update(await submit_many(client, 10))
        await until(lambda: sum(len(worker.ids) for worker in workers) >= 200, 20.0, "all runs")
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    taken = Counter(run_id for worker in workers for run_id in worker.ids)
    assert set(taken) == ids
    assert set(taken.values()) == {1}, "each once"
    assert max(worker.most for worker in workers) <= 5, "never more than the credit"
    assert min(len(worker.ids) for worker in workers) >= 40, [len(worker.ids) for worker in workers]


@SHARDS
async def test_keys_of_one_priority_take_turns_across_brokers(
    make_bench: BenchMaker, deaf: None, shards: int
) -> None:
    """A full queue of one key at one broker does not starve another key submitted at another."""
    bench = await three(make_bench, shards=shards)
    many, few = await bench.client(broker=0), await bench.client(broker=1)
    await submit_many(many, 200, "tasks.many")
    late = {await few.submit("tasks.few") for _ in range(5)}
    worker = Busy(await bench.worker("tasks.many", "tasks.few", broker=2, limit=4), 4)
    task = asyncio.create_task(worker.work(together=4))
    try:
        await until(lambda: late <= set(worker.ids), what="the runs of the other key")
        assert len(worker.ids) < 100, "it had its turns"
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_single_slot_reaches_the_runs_of_every_shard(make_bench: BenchMaker, deaf: None) -> None:
    bench = await three(make_bench, shards=4)
    client, worker = await bench.client(broker=0), await bench.worker(broker=1, limit=1)
    await worker.settle()
    for number in range(1, 5):
        run_id = await client.submit(run_id=new_id()[:-1] + str(number % 4))
        begun = time.monotonic()
        run = await worker.expect(Run)
        assert run.run_id == run_id
        assert time.monotonic() - begun < POLL_SECONDS + SLACK_SECONDS
        finish = Finish(run_id, run.token, "COMPLETED", "", "", 1, 0.0, None)
        await worker.send(Renew(number, []), finish, Ready(number + 1))


async def test_a_cancel_whose_hint_is_lost_comes_with_the_next_renewal(
    make_bench: BenchMaker, deaf: None
) -> None:
    bench = await three(make_bench)
    client, worker = await bench.client(broker=0), await bench.worker(broker=1)
    run_id = await client.submit()
    run = await worker.expect(Run)
    await client.send(Cancel(1, run_id))
    assert (await client.expect(Answer)).value["status"] == "cancelling"
    await worker.send(Renew(1, [[run.run_id, run.token]]))
    assert (await worker.expect(Cancel)).token == run.token
