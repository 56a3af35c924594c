"""Redis is killed, frozen, and comes back; the broker stays."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from prefect_lite.protocol.messages import (
    Accepted,
    Answer,
    Cancel,
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


async def test_a_worker_that_can_not_be_recorded_is_sent_away(outage: tuple[ValkeyServer, Bench]) -> None:
    """Else it would be connected, and idle for ever."""
    server, bench = outage
    worker = await bench.stranger("worker")
    welcome = await worker.hello("worker", bench.namespace)
    server.freeze()
    try:
        await worker.serve("tasks.add", limit=1)
        error = await worker.expect(Error)
        assert (error.code, error.fatal) == ("unavailable", True)
        assert await worker.closed() == 1013
    finally:
        server.thaw()
    again = await bench.stranger("worker")
    await again.hello("worker", bench.namespace, welcome.session, welcome.secret)
    await again.serve("tasks.add", limit=1)
    run_id = await (await bench.client()).submit()
    assert (await again.expect(Run)).run_id == run_id


async def test_questions_about_a_run_are_refused_in_words(outage: tuple[ValkeyServer, Bench]) -> None:
    server, bench = outage
    client = await bench.client()
    run_id = await client.submit()
    server.freeze()
    try:
        await client.send(Query(4, "run", run_id), Cancel(5, run_id))
        answers = [await client.expect(Answer) for _ in range(2)]
    finally:
        server.thaw()
    assert {answer.request for answer in answers} == {4, 5}
    for answer in answers:
        code, sentence = answer.value
        assert (answer.ok, code) == (False, "unavailable")
        assert sentence.endswith(".")
