"""The way of a run through the broker: submit, claim, commit, watch."""

from __future__ import annotations

import pytest

from prefect_lite.protocol.messages import (
    Accepted,
    Answer,
    Cancel,
    Chunk,
    Done,
    Finish,
    Goodbye,
    Query,
    Ready,
    Refused,
    Release,
    Renew,
    Retry,
    Revoke,
    Run,
    RunState,
    Started,
    Submit,
    Watch,
)
from tests.integration.broker.bench import Bench, BenchMaker
from tests.integration.broker.raw_peer import RawPeer, new_id

pytestmark = pytest.mark.anyio


def finished(run: Run, type_: str = "COMPLETED", result: bytes | None = b"result") -> Finish:
    return Finish(run.run_id, run.token, type_, "", "", run.attempt, 0.01, result)


async def query(peer: RawPeer, what: str, arg: object = None) -> Answer:
    await peer.send(Query(1, what, arg))
    return await peer.expect(Answer)


async def test_a_run_from_submit_to_result(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker()
    run_id = await client.submit(body=b"arguments")
    await client.send(Watch([run_id]))
    run = await worker.expect(Run)
    assert run[:1] + run[3:] == (1, "tasks.add", 1, 0, b"arguments")
    assert run.run_id == run_id
    await worker.send(Started(run.run_id, run.token, 1), finished(run))
    assert (await worker.expect(Done)).answers == [[run_id, run.token, "ok"]]
    state = await client.expect(RunState)
    assert (state.run_id, state.type, state.name, state.attempt) == (run_id, "COMPLETED", "Completed", 1)
    assert state.result == b"result"
    # A commit that is repeated changes nothing, one with a foreign token is late.
    await worker.send(finished(run), finished(run._replace(token="another")))
    answers = (await worker.expect(Done)).answers
    answers += (await worker.expect(Done)).answers if len(answers) < 2 else []
    assert sorted(answer[2] for answer in answers) == ["already", "stale"]


async def test_done_goes_with_the_next_run(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    client, worker = await bench.client(), await bench.worker()
    monkeypatch.setattr("prefect_lite_broker.hub.DONE_SECONDS", 3600.0)
    run_id = await client.submit()
    await client.send(Watch([run_id]))
    run = await worker.expect(Run)
    await worker.send(finished(run))
    await client.expect(RunState)  # nobody waits for DONE
    other_id = await client.submit()
    assert (await worker.expect(Done)).answers == [[run_id, run.token, "ok"]]
    assert (await worker.expect(Run)).run_id == other_id


async def test_what_is_too_late_is_answered_at_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    client, worker = await bench.client(), await bench.worker()
    monkeypatch.setattr("prefect_lite_broker.hub.DONE_SECONDS", 3600.0)
    run_id = await client.submit()
    run = await worker.expect(Run)
    await worker.send(finished(run._replace(token="another")))
    assert (await worker.expect(Done)).answers == [[run_id, "another", "stale"]]


async def test_who_watches_late_is_told_at_once(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker()
    run_id = await client.submit()
    run = await worker.expect(Run)
    await worker.send(finished(run))
    await worker.expect(Done)
    other = await bench.client()
    await other.send(Watch([run_id, "0" * 32]))
    assert (await other.expect(RunState, lambda state: state.run_id == run_id)).type == "COMPLETED"
    assert (await other.expect(RunState)).type == ""


@pytest.mark.parametrize("shards", [1, 5])
async def test_many_runs_in_one_frame(make_bench: BenchMaker, shards: int) -> None:
    bench = await make_bench(shards=shards)
    await bench.broker()
    client, worker = await bench.client(), await bench.worker(limit=400)
    ids = [new_id() for _ in range(1_000)]
    await client.send(*(Submit(run_id, "tasks.add", b"x") for run_id in ids))
    accepted: set[str] = set()
    while len(accepted) < len(ids):
        accepted.update((await client.expect(Accepted)).run_ids)
    await client.send(Watch(ids))
    done: set[str] = set()
    for count in range(1, len(ids) + 1):
        run = await worker.expect(Run)
        assert run.number == count
        done.add(run.run_id)
        await worker.send(finished(run), Ready(400 + count))
    assert done == accepted == set(ids)
    states = {(await client.expect(RunState)).run_id for _ in ids}
    assert states == done


async def test_a_large_body_and_result_travel_in_chunks(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker()
    pieces = [bytes([number]) * 256_000 for number in range(4)]
    run_id = new_id()
    for seq, piece in enumerate(pieces):
        await client.send(Chunk(1, seq, piece))
    # On the wire the number of the stream stands for the body.
    await client.send(Submit(run_id, "tasks.add", 1))  # pyright: ignore[reportArgumentType]
    await client.expect(Accepted)
    await client.send(Watch([run_id]))
    run = await worker.expect(Run)
    assert b"".join(chunk.data for chunk in worker.seen if isinstance(chunk, Chunk)) == b"".join(pieces)
    for seq, piece in enumerate(pieces):
        await worker.send(Chunk(9, seq, piece))
    await worker.send(finished(run)._replace(result=9))  # type: ignore[arg-type]
    await client.expect(RunState)
    assert b"".join(chunk.data for chunk in client.seen if isinstance(chunk, Chunk)) == b"".join(pieces)


async def test_credit_is_cumulative_and_never_exceeded(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker(limit=3)
    for _ in range(10):
        await client.submit()
    await worker.runs(3)
    await worker.settle()
    assert [message for message in worker.inbox if isinstance(message, Run)] == []
    await worker.send(Ready(5), Ready(4))
    assert [run.number for run in await worker.runs(2)] == [4, 5]
    await worker.settle()
    assert [message for message in worker.inbox if isinstance(message, Run)] == []


async def test_a_worker_gets_only_what_it_serves(bench: Bench) -> None:
    client = await bench.client()
    adds, subs = await bench.worker("tasks.add"), await bench.worker("tasks.sub")
    add, sub = await client.submit("tasks.add"), await client.submit("tasks.sub")
    assert (await adds.expect(Run)).run_id == add
    assert (await subs.expect(Run)).run_id == sub


async def test_higher_priority_first(bench: Bench) -> None:
    client = await bench.client()
    low, high = await client.submit(priority=0), await client.submit(priority=9)
    worker = await bench.worker(limit=2)
    assert [run.run_id for run in await worker.runs(2)] == [high, low]


async def test_retry_release_and_countdown_come_back(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker(limit=100)
    run_id = await client.submit(countdown_seconds=0.2)
    run = await worker.expect(Run)
    await worker.send(Retry(run_id, run.token, 0.2, 2, "failed once"))
    assert (await worker.expect(Done)).answers == [[run_id, run.token, "ok"]]
    again = await worker.expect(Run)
    assert (again.run_id, again.attempt) == (run_id, 2)
    assert again.token != run.token
    await worker.send(Release(run_id, again.token))
    last = await worker.expect(Run)
    assert (last.attempt, last.lost) == (2, 0)


async def test_an_expired_run_is_cancelled(bench: Bench) -> None:
    client = await bench.client()
    run_id = await client.submit(expires_seconds=0.1)
    await client.send(Watch([run_id]))
    state = await client.expect(RunState)
    assert (state.type, state.name) == ("CANCELLED", "Expired")


async def test_repeated_and_conflicting_submits(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker()
    run_id = await client.submit(fingerprint=b"1" * 16)
    await client.submit(run_id=run_id, fingerprint=b"1" * 16)
    await client.send(Submit(run_id, "tasks.add", b"other", b"2" * 16))
    refused = await client.expect(Refused)
    assert (refused.run_id, refused.code) == (run_id, "conflict")
    await worker.expect(Run)
    await worker.settle()
    assert not [message for message in worker.inbox if isinstance(message, Run)]


async def test_an_idempotency_key_stands_for_one_run(bench: Bench) -> None:
    client = await bench.client()
    first = await client.submit(fingerprint=b"1" * 16, idempotency_key="order-7")
    second = new_id()
    await client.send(Submit(second, "tasks.add", b"body", b"1" * 16, idempotency_key="order-7"))
    assert (await client.expect(Accepted)).aliases == [[second, first]]


async def test_a_run_that_waits_for_itself_is_refused(bench: Bench) -> None:
    client, run_id = await bench.client(), new_id()
    await client.send(Submit(run_id, "tasks.add", b"", parents=[run_id]))
    assert (await client.expect(Refused)).code == "unsupported"


async def test_cancel_of_a_waiting_run(bench: Bench) -> None:
    client = await bench.client()
    run_id = await client.submit()
    await client.send(Watch([run_id]), Cancel(5, run_id))
    answer = await client.expect(Answer)
    assert answer == Answer(5, True, {"run_id": run_id, "status": "cancelled"})
    assert (await client.expect(RunState)).type == "CANCELLED"


async def test_cancel_of_a_running_run(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker()
    run_id = await client.submit()
    run = await worker.expect(Run)
    await worker.send(Started(run_id, run.token, 1))
    await worker.settle()
    await client.send(Watch([run_id]), Cancel(5, run_id))
    assert (await client.expect(Answer)).value["status"] == "cancelling"
    assert await worker.expect(Cancel) == Cancel(0, run_id, run.token)
    await worker.send(finished(run, "CANCELLED", None))
    assert (await client.expect(RunState)).type == "CANCELLED"


async def test_a_key_nobody_serves_is_noticed_once(bench: Bench) -> None:
    await bench.worker("tasks.add")
    client = await bench.client()
    run_id = new_id()
    await client.send(Submit(run_id, "tasks.ad", b""))
    accepted = await client.expect(Accepted)
    assert accepted.run_ids == [run_id]
    assert accepted.notices == [
        ["tasks.ad", "No worker serves 'tasks.ad'; the run waits for one. Served is 'tasks.add'."]
    ]
    again = new_id()
    await client.send(Submit(again, "tasks.ad", b""), Submit(new_id(), "tasks.add", b""))
    assert (await client.expect(Accepted)).notices == []


async def test_questions(bench: Bench) -> None:
    client, admin = await bench.client(), await bench.client(role="admin")
    run_id = await client.submit()
    facts = (await query(client, "run", run_id)).value
    assert (facts["type"], facts["name"], facts["task_key"]) == ("SCHEDULED", "Scheduled", "tasks.add")
    assert "No worker serves" in (await query(client, "why", run_id)).value["sentence"]
    later = await client.submit(countdown_seconds=60)
    assert "delayed until" in (await query(client, "why", later)).value["sentence"]
    assert (await query(client, "why", "0" * 32)).value["type"] == ""
    worker = await bench.worker()
    await worker.settle()
    stats = (await query(client, "stats")).value
    assert stats["sessions"] == 1
    assert stats["broker"]["connections"] == 3
    assert (await query(client, "served")).value == {"tasks.add": 1}
    for what in ("sessions", "dead.list", "stop"):
        assert (await query(client, what)).value[0] == "forbidden"
    assert (await query(admin, "sessions")).value[0]["task_keys"] == ["tasks.add"]
    assert (await query(admin, "dead.list")).value == []
    assert (await query(client, "nonsense")).value[0] == "unknown_query"
    assert (await query(client, "run", 7)).value[0] == "bad_run_id"
    assert (await query(client, "run", "../etc")).value[0] == "bad_run_id"


async def test_an_administrator_stops_the_broker(bench: Bench) -> None:
    admin, client = await bench.client(role="admin"), await bench.client()
    assert (await query(admin, "stop", "for a test")).value is True
    (broker,) = bench.brokers
    await broker.serve()
    assert broker.stop_reason == "for a test"
    await broker.stop()
    await client.expect(Goodbye)
    assert await client.closed() == 1012


async def test_heartbeats_are_answered(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker()
    await client.send(Renew(0, []))
    assert (await client.expect(Revoke)).leases == []
    await client.submit()
    run = await worker.expect(Run)
    await worker.send(Renew(1, [[run.run_id, run.token], [new_id(), "never"]]))
    assert [token for _, token in (await worker.expect(Revoke)).leases] == ["never"]
