"""What one connection may have a broker remember is bounded, and it is told, or it costs it a comfort."""

from __future__ import annotations

from typing import Any

import pytest
from prefect_lite_broker import notices, verbs

from prefect_lite.protocol.messages import Accepted, Error, Finish, RunState, Submit, Watch
from tests.integration.broker.bench import Bench, BenchMaker
from tests.integration.broker.raw_peer import new_id

pytestmark = pytest.mark.anyio


def peer_of(bench: Bench, role: str = "client") -> Any:
    hub = bench.brokers[0]._hub
    assert hub is not None
    return next(peer for peer in hub.peers if peer.role == role)


async def test_watches(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "MAX_WATCHES", 3)
    client = await bench.client()
    runs = [await client.submit() for _ in range(4)]
    await client.send(Watch(runs))
    assert (await client.expect(Error)).code == "too_many_watches"
    await client.send(Watch(runs[:3]))
    last = await client.submit(watch=True)  # accepted, and read again when its end is asked for
    assert peer_of(bench).watched == set(runs[:3])
    worker = await bench.worker(limit=5)
    for run in await worker.runs(5):
        await worker.send(Finish(run.run_id, run.token, "COMPLETED", "Completed", "", 1, 0.0, b""))
    for run_id in runs[:3]:
        await client.expect(RunState, lambda state, run_id=run_id: state.run_id == run_id)
    await client.send(Watch([last]))
    assert (await client.expect(RunState)).run_id == last


async def test_keys_without_a_worker(make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verbs, "MAX_NOTICED_KEYS", 20)
    monkeypatch.setattr(notices, "MAX_REMEMBERED", 5)
    bench = await make_bench()
    await bench.broker()
    client = await bench.client()
    messages = [Submit(new_id(), f"tasks.nobody{number}", b"body") for number in range(60)]
    await client.send(*messages)
    left = {message.run_id for message in messages}
    told: set[str] = set()
    while left:
        accepted = await client.expect(Accepted)
        left.difference_update(accepted.run_ids)
        told.update(key for key, _ in accepted.notices)
    assert len(told) == len(peer_of(bench).checked) == 20
    hub = bench.brokers[0]._hub
    assert hub is not None
    assert len(hub.notices._sentences) <= 5
