"""Runs that wait for others, through brokers: at once, from any broker, whatever one of them left undone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import pytest
from prefect_lite_broker.dependencies import Dependencies
from prefect_lite_broker.hint_listener import HintListener

from prefect_lite.protocol.messages import (
    Accepted,
    Answer,
    Cancel,
    Done,
    Finish,
    Query,
    Ready,
    Run,
    RunState,
    Submit,
    Watch,
)
from tests.integration.broker.bench import Bench, BenchMaker
from tests.integration.broker.raw_peer import RawPeer, new_id

pytestmark = pytest.mark.anyio

SHARDS = pytest.mark.parametrize("shards", [1, 4])
NEVER = 300.0
"""A poll that does not come: what happens all the same needed none."""


def finished(run: Run, type_: str = "COMPLETED") -> Finish:
    return Finish(run.run_id, run.token, type_, "", "", run.attempt, 0.01, b"result")


async def work(worker: RawPeer, count: int, *, failing: set[str] | None = None) -> list[str]:
    """Execute so many runs, as they come; returns their ids."""
    done: list[str] = []
    for _ in range(count):
        run = await worker.expect(Run)
        done.append(run.run_id)
        await worker.send(finished(run, "FAILED" if run.run_id in (failing or ()) else "COMPLETED"))
    return done


@SHARDS
async def test_a_family_over_two_brokers_without_polling(make_bench: BenchMaker, shards: int) -> None:
    """Submitted at A, executed at B, waited for at A; nobody asks twice."""
    bench = await make_bench(shards=shards, poll_seconds=NEVER)
    await bench.broker()
    await bench.broker()
    client, worker = await bench.client(0), await bench.worker(broker=1, limit=1000)
    parents = [await client.submit() for _ in range(3)]
    child, spared, late = new_id(), new_id(), new_id()
    await client.send(
        Submit(child, "tasks.add", b"", parents=parents, watch=True),
        Submit(spared, "tasks.add", b"", parents=[child], tolerated=parents[:1], watch=True),
    )
    assert sorted(await work(worker, 3)) == sorted(parents)
    assert await work(worker, 2) == [child, spared]
    for run_id in (child, spared):
        state = await client.expect(RunState, lambda state, run_id=run_id: state.run_id == run_id)
        assert state.type == "COMPLETED"
    await client.send(Submit(late, "tasks.add", b"", parents=[child, *parents], watch=True))
    assert await work(worker, 1) == [late]
    assert (await client.expect(RunState)).run_id == late


@SHARDS
async def test_a_failure_is_told_on_every_broker_at_once(make_bench: BenchMaker, shards: int) -> None:
    bench = await make_bench(shards=shards, poll_seconds=NEVER)
    await bench.broker()
    await bench.broker()
    client, other = await bench.client(0), await bench.client(1)
    worker = await bench.worker(broker=1)
    chain = [new_id() for _ in range(6)]
    await client.send(
        *(
            Submit(run_id, "tasks.add", b"", parents=chain[i - 1 : i] if i else [], watch=True)
            for i, run_id in enumerate(chain)
        )
    )
    stored: list[str] = []
    while len(stored) < len(chain):  # before that, the other broker would know nothing of them
        stored += (await client.expect(Accepted)).run_ids
    await other.send(Watch(chain))
    assert await work(worker, 1, failing={chain[0]}) == chain[:1]
    for peer in (client, other):
        names = {}
        for _ in chain:
            state = await peer.expect(RunState)
            names[state.run_id] = state.name
        assert names == {chain[0]: "Failed", **dict.fromkeys(chain[1:], "UpstreamFailed")}
    late = new_id()
    await client.send(Submit(late, "tasks.add", b"", parents=chain[-1:], watch=True))
    state = await client.expect(RunState)
    assert state.message == f"Run {chain[-1]}, which this one waited for, ended as UpstreamFailed."


async def test_cancelling_and_asking_why(bench: Bench) -> None:
    client = await bench.client()
    parent = await client.submit("tasks.nobody")
    child = await client.submit("tasks.nobody", parents=[parent])
    await client.send(Query(1, "why", child))
    answer = await client.expect(Answer)
    assert answer.value["parents"] == [[parent, "Scheduled"]]
    assert answer.value["sentence"] == f"It waits for 1 run: {parent} (Scheduled)."
    await client.send(Query(2, "stats"))
    assert (await client.expect(Answer)).value["blocked"] == 1
    await client.send(Watch([child]), Cancel(3, parent))
    assert (await client.expect(Answer)).value["status"] == "cancelled"
    assert (await client.expect(RunState)).name == "UpstreamFailed"


async def test_why_names_only_a_few_of_many(bench: Bench) -> None:
    client = await bench.client()
    child = await client.submit(parents=[new_id() for _ in range(1200)])
    await client.send(Query(1, "why", child))
    sentence = (await client.expect(Answer)).value["sentence"]
    assert sentence.startswith("It waits for 1,200 runs: ")
    assert sentence.endswith("1,195 more.")
    assert sentence.count("(unknown)") == 5


async def test_an_unknown_parent_is_given_up_in_time(make_bench: BenchMaker) -> None:
    bench = await make_bench(unknown_parent_seconds=0.3, poll_seconds=0.1)
    await bench.broker()
    client, worker = await bench.client(), await bench.worker()
    unknown, child = new_id(), new_id()
    await client.send(Submit(child, "tasks.add", b"", parents=[unknown], watch=True))
    spared = await client.submit(tolerated=[unknown])
    begun = time.monotonic()
    state = await client.expect(RunState)
    assert state.message == f"Run {unknown}, which this one waited for, is unknown."
    assert time.monotonic() - begun > 0.25
    assert await work(worker, 1) == [spared]


@pytest.mark.parametrize("forgotten", ["blocked", "unblocked"])
async def test_another_broker_does_what_one_forgot(
    make_bench: BenchMaker, forgotten: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All brokers forget what they were told, and hear no hint: the services find it."""
    monkeypatch.setattr(Dependencies, forgotten, lambda *_: None)
    monkeypatch.setattr(HintListener, "_tell", lambda self, packed: None)
    bench = await make_bench(shards=4, poll_seconds=0.1, lease_seconds=30.0)
    for _ in range(3):
        await bench.broker()
    client, worker = await bench.client(0), await bench.worker(broker=1)
    parents = [await client.submit() for _ in range(3)]
    child = await client.submit(parents=parents)
    grandchild = await client.submit(parents=[child], watch=True)
    assert sorted(await work(worker, 3)) == sorted(parents)
    assert await work(worker, 2) == [child, grandchild]
    assert (await client.expect(RunState)).type == "COMPLETED"


async def test_a_broker_that_stops_leaves_the_rest_to_others(make_bench: BenchMaker) -> None:
    bench = await make_bench(shards=2, poll_seconds=0.1, lease_seconds=30.0)
    first = await bench.broker()
    await bench.broker()
    client = await bench.client(0)
    parent = await client.submit()
    children = [new_id() for _ in range(500)]
    await client.send(*(Submit(run_id, "tasks.add", b"", parents=[parent]) for run_id in children))
    accepted: set[str] = set()
    while len(accepted) < len(children):
        accepted.update((await client.expect(Accepted)).run_ids)
    await first.stop()
    worker = await bench.worker(broker=1, limit=1000)
    done = await work(worker, 501)
    assert Counter(done) == Counter([parent, *children])


@SHARDS
async def test_others_are_served_while_thousands_wait(make_bench: BenchMaker, shards: int) -> None:
    """A fan-out of 2,000: while it is registered and resolved, a plain run takes no longer than a moment."""
    bench = await make_bench(shards=shards, lease_seconds=60.0)  # these workers send no RENEW
    broker = await bench.broker()
    client, other = await bench.client(), await bench.client()
    worker, quick = await bench.worker(limit=5000), await bench.worker("tasks.quick", limit=1000)
    parent = await client.submit()
    run = await worker.expect(Run)
    children = [new_id() for _ in range(2000)]
    for start in range(0, len(children), 500):
        part = children[start : start + 500]
        await client.send(*(Submit(run_id, "tasks.add", b"", parents=[parent]) for run_id in part))
    stop = asyncio.Event()

    async def trickle() -> list[float]:
        waits: list[float] = []
        while not stop.is_set():
            begun = time.monotonic()
            await other.submit("tasks.quick")
            (one,) = await quick.runs(1)
            await quick.send(finished(one))
            await quick.expect(Done)
            waits.append(time.monotonic() - begun)
        return waits

    trickling = asyncio.create_task(trickle())
    begun = time.monotonic()
    await worker.send(finished(run))
    done = await work(worker, 2000)
    whole = time.monotonic() - begun
    stop.set()
    waits = await trickling
    assert Counter(done) == Counter(children)
    assert max(waits) < max(1.0, whole / 2)
    hub: Any = broker._hub
    assert hub.dependencies.pending < 2000


async def test_children_share_the_credit_of_workers(make_bench: BenchMaker) -> None:
    """Children that become ready wake workers as submits do; one without credit gets none."""
    bench = await make_bench(poll_seconds=NEVER)
    await bench.broker()
    client = await bench.client()
    first, second = await bench.worker(limit=1), await bench.worker(limit=0)
    parent = await client.submit()
    child = await client.submit(parents=[parent])
    run = await first.expect(Run)
    await first.send(finished(run))
    await first.expect(Done)
    await second.send(Ready(1))
    assert (await second.expect(Run)).run_id == child
