"""Redis is killed, frozen, and comes back; the broker stays."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from prefect_lite.protocol.messages import (
    Accepted,
    Answer,
    Done,
    Error,
    Finish,
    Query,
    Ready,
    Refused,
    Renew,
    Run,
    RunState,
    Submit,
    Watch,
)
from tests.integration.broker.bench import Bench
from tests.integration.broker.raw_peer import new_id
from tests.tools.server import ValkeyServer
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
async def outage(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[ValkeyServer, Bench]]:
    """A bench on a Valkey of its own that loses nothing when killed."""
    server = ValkeyServer(appendfsync="always")
    server.start()
    bench = Bench(
        server.url, server.directory, redis_wait_seconds=0.5, lease_seconds=30.0, renew_seconds=10.0
    )
    await bench.broker()
    yield server, bench
    await bench.close()
    server.close()


async def test_a_killed_redis_loses_nothing(outage: tuple[ValkeyServer, Bench]) -> None:
    server, bench = outage
    (broker,) = bench.brokers
    client, worker = await bench.client(), await bench.worker(limit=2)
    first = await client.submit()
    held = await worker.expect(Run)
    waiting = [await client.submit() for _ in range(3)]
    leased = await worker.expect(Run)
    await client.send(Watch([first, leased.run_id, *waiting]))
    server.kill()
    # A commit is kept, a submit is refused in words after the wait, and nobody is thrown out.
    await worker.send(Finish(first, held.token, "COMPLETED", "", "", 1, 0.0, b"r"), Ready(3))
    refused_id = new_id()
    await client.send(Submit(refused_id, "tasks.add", b""))
    refused = await client.expect(Refused)
    assert (refused.run_id, refused.code) == (refused_id, "unavailable")
    assert refused.retry_after_seconds > 0
    assert "Redis" in refused.text
    await client.send(Query(4, "stats"))
    assert (await client.expect(Answer)).value[0] == "unavailable"
    await worker.send(Renew(2, [[first, held.token], [leased.run_id, leased.token]]))
    assert (await worker.expect(Error)).code == "unavailable"
    stranger = await bench.stranger("worker")
    with pytest.raises(AssertionError, match="1013"):
        await stranger.hello("worker", bench.namespace)
    server.start()
    assert (await worker.expect(Done)).answers == [[first, held.token, "ok"]]
    assert (await client.expect(RunState)).run_id == first
    await until(lambda: broker._store.healthy)
    done = {first}
    worker_limit = 3
    await worker.send(Finish(leased.run_id, leased.token, "COMPLETED", "", "", 1, 0.0, b"r"))
    for _ in waiting[1:]:
        run = await worker.expect(Run)
        worker_limit += 1
        await worker.send(
            Finish(run.run_id, run.token, "COMPLETED", "", "", 1, 0.0, b"r"), Ready(worker_limit)
        )
    for _ in range(3):
        done.add((await client.expect(RunState)).run_id)
    assert done == {first, *waiting}
    assert not [message for message in client.seen if isinstance(message, RunState) and not message.type]


async def test_a_frozen_redis_holds_submits_for_a_moment(outage: tuple[ValkeyServer, Bench]) -> None:
    server, bench = outage
    client = await bench.client()
    server.freeze()
    try:
        run_id = new_id()
        await client.send(Submit(run_id, "tasks.add", b""))
    finally:
        server.thaw()
    answer = await client.expect(Accepted)
    assert answer.run_ids == [run_id]
