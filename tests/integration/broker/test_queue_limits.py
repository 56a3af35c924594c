"""Limits on waiting runs, on the wire: what is refused, what is not, and what it costs Redis."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from prefect_lite.protocol.messages import Accepted, Finish, Refused, Submit
from tests.integration.broker.bench import Bench, BenchMaker
from tests.integration.broker.raw_peer import RawPeer, new_id
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

FINGERPRINT = b"print"


def submits(count: int, **fields: Any) -> list[Submit]:
    return [Submit(new_id(), "tasks.add", b"body", FINGERPRINT, **fields) for _ in range(count)]


async def answers(client: RawPeer, messages: list[Submit]) -> tuple[list[str], list[Refused]]:
    """Send them as one frame; returns the ids accepted and the refusals."""
    await client.send(*messages)
    open_ones = {message.run_id for message in messages}
    accepted: list[str] = []
    refused: list[Refused] = []
    while open_ones:
        answer = await client.expect((Accepted, Refused))  # type: ignore[arg-type]
        if isinstance(answer, Refused):
            refused.append(answer)
            open_ones.discard(answer.run_id)
        else:
            ids = [*answer.run_ids, *(asked for asked, _ in answer.aliases)]
            accepted += ids
            open_ones.difference_update(ids)
    return accepted, refused


def room(bench: Bench, broker: int = 0) -> Any:
    hub = bench.brokers[broker]._hub
    assert hub is not None
    return hub.room


async def test_waiting_runs_of_all_kinds_count(make_bench: BenchMaker) -> None:
    bench = await make_bench(max_queued_total=10)
    await bench.broker()
    client = await bench.client()
    ready, delayed = submits(4), submits(3, countdown_seconds=60.0)
    blocked = submits(3, parents=[ready[0].run_id])
    assert (await answers(client, [*ready, *delayed, *blocked]))[1] == []
    more, priority = submits(3), submits(2, priority=9)
    accepted, refused = await answers(client, [*more, *priority])
    assert (accepted, len(refused)) == ([], 5)
    for refusal in refused:
        assert refusal.code == "full"
        assert "runs wait in this namespace; max_queued_total allows 10." in refusal.text
        assert 0.05 <= refusal.retry_after_seconds <= 5
    await until(lambda: room(bench).waiting == 10, what="a reading without the refused ones")


async def test_workers_make_room(make_bench: BenchMaker) -> None:
    bench = await make_bench(max_queued_total=10, poll_seconds=30.0)
    await bench.broker()
    client = await bench.client()
    assert len((await answers(client, submits(12)))[1]) == 2
    worker = await bench.worker(limit=4)
    runs = await worker.runs(4)

    async def accepted() -> int:
        return len((await answers(client, submits(1)))[0])

    # Refusals alone have the broker look again, long before its next poll.
    await until(accepted, 5)
    await worker.send(
        *(Finish(run.run_id, run.token, "COMPLETED", "Completed", "", 1, 0.0, b"") for run in runs)
    )


async def test_a_stored_run_is_not_refused_when_it_is_sent_again(make_bench: BenchMaker) -> None:
    bench = await make_bench(max_queued_total=3)
    await bench.broker()
    await bench.broker()
    client, elsewhere = await bench.client(), await bench.client(1)
    plain, keyed = submits(1), submits(1, idempotency_key="k")
    await answers(client, plain + keyed + submits(1))
    await room(bench, 1).run_once()
    twin = keyed[0]._replace(run_id=new_id())
    accepted, refused = await answers(
        elsewhere, [*plain, *keyed, twin, *submits(2), plain[0]._replace(run_id=new_id())]
    )
    assert sorted(accepted) == sorted([plain[0].run_id, keyed[0].run_id, twin.run_id])
    assert [refusal.code for refusal in refused] == ["full"] * 3
    other = keyed[0]._replace(run_id=new_id(), fingerprint=b"other")
    accepted, (conflict,) = await answers(elsewhere, [other])
    assert (conflict.code, conflict.retry_after_seconds) == ("conflict", -1)
    assert keyed[0].run_id in conflict.text


async def test_a_queue_has_a_limit_of_its_own(make_bench: BenchMaker) -> None:
    bench = await make_bench(max_queue_length=2)
    await bench.broker()
    client = await bench.client()
    accepted, refused = await answers(client, [*submits(3), *submits(2, priority=1), *submits(1)])
    assert len(accepted) == 4
    assert [refusal.code for refusal in refused] == ["full", "full"]
    assert "The queue of 'tasks.add' at priority 0 holds 2 runs" in refused[0].text
    assert "max_queue_length" in refused[0].text
    _, (late,) = await answers(client, submits(3, countdown_seconds=9.0))
    assert "2 runs are delayed in this shard" in late.text


@pytest.mark.parametrize("shards", [1, 4])
async def test_three_brokers_stay_within_the_stated_excess(make_bench: BenchMaker, shards: int) -> None:
    limit = 60
    bench = await make_bench(max_queued_total=limit, shards=shards)
    clients: list[RawPeer] = []
    for number in range(3):
        await bench.broker()
        clients.append(await bench.client(number))

    async def flood(client: RawPeer) -> int:
        stored = 0
        for _ in range(20):
            stored += len((await answers(client, submits(5)))[0])
        return stored

    stored = sum(await asyncio.gather(*map(flood, clients)))
    assert limit <= stored <= 3 * limit
    await room(bench).run_once()
    assert room(bench).waiting == stored
    for number, client in enumerate(clients):
        await room(bench, number).run_once()
        assert (await answers(client, submits(5)))[0] == []


async def test_counting_costs_no_call_per_run(make_bench: BenchMaker) -> None:
    bench = await make_bench(poll_seconds=30.0)
    await bench.broker()
    client = await bench.client()
    store = bench.brokers[0]._store
    readings = 0
    read = store.waiting

    async def counted() -> int:
        nonlocal readings
        readings += 1
        return await read()

    store.waiting = counted  # type: ignore[method-assign]
    for _ in range(50):
        assert (await answers(client, submits(20)))[1] == []
    assert readings == 0
