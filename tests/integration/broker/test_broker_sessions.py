"""Workers that vanish, come back, leave, and move between brokers."""

from __future__ import annotations

import logging

import pytest

from prefect_lite.protocol.messages import (
    Answer,
    Cancel,
    Done,
    Finish,
    Goodbye,
    Query,
    Ready,
    Renew,
    Revoke,
    Run,
    RunState,
    Serve,
    Watch,
)
from tests.integration.broker.bench import Bench, BenchMaker

pytestmark = pytest.mark.anyio


async def test_a_vanished_worker_loses_its_runs_to_another(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    client, first = await bench.client(), await bench.worker()
    run_id = await client.submit()
    lost = await first.expect(Run)
    second = await bench.worker()
    first.drop()
    run = await second.expect(Run)
    assert (run.run_id, run.attempt, run.lost) == (run_id, 1, 1)
    assert run.token != lost.token
    events = [record for record in caplog.records if getattr(record, "action", "").startswith("lease_")]
    assert [record.__dict__["run_id"] for record in events] == [run_id]
    assert events[0].levelno == logging.WARNING


async def test_a_silent_worker_loses_its_lease(bench: Bench) -> None:
    client, first = await bench.client(), await bench.worker()
    await client.submit()
    await first.expect(Run)
    second = await bench.worker()
    # It is connected, but sends no RENEW for a lease.
    async with second.beating(0.3):
        assert (await second.expect(Run)).lost == 1


async def test_a_worker_resumes_with_what_it_holds(bench: Bench) -> None:
    client = await bench.client()
    first = await bench.stranger("worker")
    welcome = await first.hello("worker", bench.namespace)
    await first.serve("tasks.add", limit=2)
    ids = {await client.submit(), await client.submit()}
    runs = await first.runs(2)
    first.drop()
    again = await bench.stranger("worker")
    resumed = await again.hello("worker", bench.namespace, welcome.session, welcome.secret)
    assert resumed.resumed
    assert resumed.epoch > welcome.epoch
    assert {run_id for run_id, _ in resumed.held} == ids
    # It never got the second RUN: the broker releases it, and it comes again on this connection.
    kept = runs[0]
    await again.send(Serve(["tasks.add"]), Ready(1), Renew(0, [[kept.run_id, kept.token]]))
    run = await again.expect(Run)
    assert (run.run_id, run.number, run.lost) == (runs[1].run_id, 1, 0)
    await again.send(Finish(kept.run_id, kept.token, "COMPLETED", "", "", 1, 0.0, None))
    assert (await again.expect(Done)).answers == [[kept.run_id, kept.token, "ok"]]


async def test_a_worker_that_vanishes_before_its_done_asks_again(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DONE waits for something to ride with; here that never comes."""
    monkeypatch.setattr("prefect_lite_broker.hub.DONE_SECONDS", 3600.0)
    client, first = await bench.client(), await bench.stranger("worker")
    welcome = await first.hello("worker", bench.namespace)
    await first.serve("tasks.add", limit=1)
    run_id = await client.submit()
    await client.send(Watch([run_id]))
    (run,) = await first.runs(1)
    finish = Finish(run.run_id, run.token, "COMPLETED", "", "", 1, 0.0, None)
    await first.send(finish)
    await client.expect(RunState)  # it is durable
    # A heartbeat in between still names the run, and takes its DONE along.
    await first.send(Renew(1, [[run.run_id, run.token]]))
    assert (await first.expect(Done)).answers == [[run_id, run.token, "ok"]]
    other_id = await client.submit()
    await client.send(Watch([other_id]))
    await first.send(Ready(2))
    (other,) = await first.runs(1)
    await first.send(Finish(other.run_id, other.token, "COMPLETED", "", "", 1, 0.0, None))
    await client.expect(RunState)
    first.drop()
    again = await bench.stranger("worker")
    resumed = await again.hello("worker", bench.namespace, welcome.session, welcome.secret)
    assert (resumed.resumed, resumed.held) == (True, [])
    await again.send(Finish(other.run_id, other.token, "COMPLETED", "", "", 1, 0.0, None))
    assert (await again.expect(Done)).answers == [[other_id, other.token, "already"]]


async def test_resuming_elsewhere_closes_the_older_connection(make_bench: BenchMaker) -> None:
    bench = await make_bench()
    await bench.broker()
    await bench.broker()
    for broker in (0, 1):
        first = await bench.stranger("worker")
        welcome = await first.hello("worker", bench.namespace)
        await first.serve("tasks.add", limit=1)
        second = await bench.stranger("worker", broker)
        assert (await second.hello("worker", bench.namespace, welcome.session, welcome.secret)).resumed
        assert await first.closed() == 4001  # the other broker notices at its next claim for it
        await second.send(Goodbye("done"))
        assert await second.closed() == 1000


async def test_a_wrong_secret_gives_a_new_session(bench: Bench) -> None:
    first = await bench.stranger("worker")
    welcome = await first.hello("worker", bench.namespace)
    second = await bench.stranger("worker")
    other = await second.hello("worker", bench.namespace, welcome.session, b"guessed")
    assert not other.resumed
    assert other.session != welcome.session
    await first.send(Renew(0, []))
    await first.expect(Revoke)


async def test_goodbye_gives_everything_back_at_once(bench: Bench) -> None:
    client, first = await bench.client(), await bench.worker()
    await client.submit()
    await first.expect(Run)
    second = await bench.worker()
    await first.send(Goodbye("drained"))
    assert (await second.expect(Run)).lost == 0
    assert await first.closed() == 1000


async def test_a_drained_worker_gets_nothing_more(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker(limit=5)
    await worker.send(Serve([]))
    await worker.settle()
    await client.submit()
    await worker.settle()
    assert not [message for message in worker.seen if isinstance(message, Run)]
    assert (await (await bench.worker()).expect(Run)).lost == 0


async def test_two_brokers_are_one_system(make_bench: BenchMaker) -> None:
    bench = await make_bench(poll_seconds=30.0)  # so that only hints can be the cause
    await bench.broker()
    await bench.broker()
    client, worker = await bench.client(broker=0), await bench.worker(broker=1)
    await worker.settle()
    run_id = await client.submit()
    await client.send(Watch([run_id]))
    run = await worker.expect(Run)
    await worker.send(Finish(run_id, run.token, "COMPLETED", "", "", 1, 0.0, b"r"))
    assert (await client.expect(RunState)).result == b"r"
    cancelled = await client.submit()
    run = await worker.expect(Run)
    await client.send(Cancel(1, cancelled))
    assert (await client.expect(Answer)).value["status"] == "cancelling"
    assert (await worker.expect(Cancel)).token == run.token


async def test_lost_hints_cost_a_poll(make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefect_lite_broker.app._Hints.on_ready", lambda self, keys: None)
    monkeypatch.setattr("prefect_lite_broker.app._Hints.on_ended", lambda self, ids: None)
    bench = await make_bench()
    await bench.broker()
    await bench.broker()
    client, worker = await bench.client(broker=0), await bench.worker(broker=1)
    await worker.settle()
    run_id = await client.submit()
    await client.send(Watch([run_id]))
    run = await worker.expect(Run)
    await worker.send(Finish(run_id, run.token, "COMPLETED", "", "", 1, 0.0, b"r"))
    await worker.expect(Done)
    # A client asks again every few seconds, which reads the run.
    await client.send(Watch([run_id]))
    assert (await client.expect(RunState)).result == b"r"


async def test_many_suspects_go_one_at_a_time(bench: Bench) -> None:
    client, first = await bench.client(), await bench.worker(limit=3)
    ids = {await client.submit() for _ in range(3)}
    await first.runs(3)
    first.drop()
    second = await bench.worker(limit=10)
    seen: set[str] = set()
    for _ in ids:
        run = await second.expect(Run)
        assert run.lost == 1
        await second.settle()
        assert not [message for message in second.inbox if isinstance(message, Run)]
        seen.add(run.run_id)
        await second.send(
            Renew(run.number, [[run.run_id, run.token]]),
            Finish(run.run_id, run.token, "COMPLETED", "", "", 1, 0.0, None),
        )
    assert seen == ids


async def test_a_query_of_the_log(bench: Bench) -> None:
    from prefect_lite.protocol.messages import Log

    client, worker = await bench.client(), await bench.worker()
    run_id = await client.submit()
    await worker.expect(Run)
    await worker.send(Log(run_id, [[20, 1_700_000_000_000, "tasks", "hello"]]))
    await worker.settle()
    await client.send(Query(3, "log", run_id))
    assert (await client.expect(Answer)).value == [[20, 1_700_000_000_000, "tasks", "hello"]]
