"""What one peer may cost, and what a broker that stops begins no more."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, cast

import msgpack
import pytest
from prefect_lite_broker import hub as hub_module
from prefect_lite_broker import queries, sessions, verbs
from prefect_lite_broker.hub import Hub
from prefect_lite_broker.sessions import Peer
from websockets.exceptions import ConnectionClosed

from prefect_lite.protocol.codec import CHUNK_BYTES
from prefect_lite.protocol.messages import (
    Accepted,
    Answer,
    Chunk,
    Done,
    Error,
    Finish,
    Log,
    Query,
    Run,
    RunState,
    Submit,
    Watch,
)
from tests.integration.broker.bench import Bench, BenchMaker
from tests.integration.broker.raw_peer import RawPeer, new_id
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

pack = cast("Callable[[Any], bytes]", msgpack.packb)


def hub_of(bench: Bench) -> Hub:
    hub = bench.brokers[0]._hub
    assert hub is not None
    return hub


async def slow_client(bench: Bench) -> tuple[RawPeer, Peer]:
    """A client that has stopped reading, and the broker's side of it."""
    before = set(hub_of(bench).peers)
    client = await bench.client()
    (peer,) = hub_of(bench).peers - before
    client.ws.transport.pause_reading()
    return client, peer


@pytest.fixture
async def patient(make_bench: BenchMaker) -> Bench:
    """A broker that would not cut a slow peer for minutes."""
    bench = await make_bench(write_deadline_seconds=300.0, lease_seconds=300.0, renew_seconds=100.0)
    await bench.broker()
    return bench


@pytest.mark.parametrize("limit", ["MAX_WAITING_MESSAGES", "MAX_WAITING_BYTES"])
async def test_a_peer_that_falls_far_behind_is_cut(
    patient: Bench, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    monkeypatch.setattr(sessions, limit, 1_000)
    monkeypatch.setattr(sessions, "WEIGH_SECONDS", 0.0)
    client, peer = await slow_client(patient)

    async def more() -> bool:
        with suppress(ConnectionClosed):
            await client.send(*(Query(number, "x" * 500) for number in range(500)))
        return peer.gone

    await until(more, what="the cut")
    assert not hub_of(patient).peers


@pytest.fixture
async def unpolled(make_bench: BenchMaker) -> Bench:
    """A patient broker that never looks for what it forgot to tell."""
    bench = await make_bench(
        write_deadline_seconds=300.0,
        lease_seconds=300.0,
        renew_seconds=100.0,
        poll_seconds=300.0,
        max_payload_bytes=32 * 1024 * 1024,
    )
    await bench.broker()
    return bench


async def in_pieces(peer: RawPeer, stream: int, length: int) -> Any:
    """Send a blob ahead of the message that refers to it; returns what stands for it there."""
    for seq, start in enumerate(range(0, length, CHUNK_BYTES)):
        await peer.send(Chunk(stream, seq, b"x" * min(CHUNK_BYTES, length - start)))
    return stream


async def ended_with(bench: Bench, client: RawPeer, *lengths: int) -> list[str]:
    """Runs that ``client`` watches and that have ended with results of these lengths."""
    worker = await bench.worker()
    run_ids: list[str] = []
    for length in lengths:
        run_id = await (await bench.client()).submit()
        await client.send(Watch([run_id]))
        run = await worker.expect(Run)
        await until(lambda run_id=run_id: run_id in hub_of(bench).watches._watchers)
        result = b"x" * length if length <= CHUNK_BYTES else await in_pieces(worker, 1, length)
        await worker.send(Finish(run_id, run.token, "COMPLETED", "", "", 1, 0.0, result))
        await worker.expect(Done)
        run_ids.append(run_id)
    return run_ids


async def test_a_small_result_does_not_wait_for_a_large_one(unpolled: Bench) -> None:
    client, _ = await slow_client(unpolled)
    _, small = await ended_with(unpolled, client, 10_000_000, 10)
    client.ws.transport.resume_reading()
    assert (await client.expect(RunState)).run_id == small


async def test_what_was_left_in_the_store_comes_when_the_peer_has_read(unpolled: Bench) -> None:
    client, peer = await slow_client(unpolled)
    first, second = await ended_with(unpolled, client, 10_000_000, 100_000)
    assert peer.owed
    client.ws.transport.resume_reading()
    assert [(await client.expect(RunState)).run_id for _ in range(2)] == [first, second]


async def test_a_worker_gets_its_next_run_when_it_has_read_a_large_one(unpolled: Bench) -> None:
    before = set(hub_of(unpolled).peers)
    worker = await unpolled.worker()
    (peer,) = hub_of(unpolled).peers - before
    worker.ws.transport.pause_reading()
    client = await unpolled.client()
    large = await client.submit(body=await in_pieces(client, 1, 10_000_000))
    await until(lambda: peer.wire.has_data)
    small = await client.submit()
    assert peer.credit == 0
    worker.ws.transport.resume_reading()
    assert [(await worker.expect(Run)).run_id for _ in range(2)] == [large, small]


async def test_a_question_counts_until_its_answer_has_left(
    patient: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def answer(*_args: Any) -> tuple[bool, Any]:
        return True, "x" * 400_000

    monkeypatch.setattr(queries, "answer", answer)
    client, peer = await slow_client(patient)
    await client.send(*(Query(number, "run") for number in range(verbs.MAX_QUERIES)))
    await until(lambda: peer.answered == verbs.MAX_QUERIES and peer.wire.has_data)
    assert peer.asking == verbs.MAX_QUERIES
    await client.send(Query(99, "run"))
    client.ws.transport.resume_reading()
    assert (await client.expect(Answer, lambda each: each.request == 99)).value[0] == "busy"
    for number in range(verbs.MAX_QUERIES):
        assert (await client.expect(Answer, lambda each, number=number: each.request == number)).ok
    await client.send(Query(100, "run"))
    assert (await client.expect(Answer, lambda each: each.request == 100)).ok


async def test_a_long_log_is_read_in_pages(bench: Bench) -> None:
    client, worker = await bench.client(), await bench.worker()
    run_id = await client.submit()
    await worker.expect(Run)
    lines: list[list[Any]] = [[20, number, "tasks", f"{number}" * 20_000] for number in range(40)]
    lines.append([20, 41, "tasks", "\U0001f600" * 65_000])
    for line in lines:
        await worker.send(Log(run_id, [line]))
    await worker.settle()
    got: list[list[Any]] = []
    at: int | None = 0
    while at is not None:
        await client.send(Query(at, "log", [run_id, at]))
        answer = await client.expect(Answer)
        assert answer.ok, answer.value
        got += answer.value["lines"]
        assert answer.value["next"] != at
        at = answer.value["next"]
    assert got == lines
    await client.send(Query(77, "log", run_id))  # as older peers ask
    first = (await client.expect(Answer)).value
    assert 0 < len(first) < len(lines)
    assert first == lines[: len(first)]
    for bad in ([run_id], [run_id, -1], [1, 2], [run_id, True]):
        await client.send(Query(78, "log", bad))
        assert (await client.expect(Answer)).value[0] in ("bad_argument", "bad_run_id")


async def test_nothing_is_begun_while_stopping(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    client, worker = await bench.client(), await bench.worker(limit=3)
    hub = hub_of(bench)
    hub.stopping = True
    run_id = new_id()
    await client.send(Submit(run_id, "tasks.add", b""))
    await client.send(Query(1, "run", run_id))
    assert (await client.expect(Answer)).value["type"] == ""
    assert not [message for message in client.seen if isinstance(message, Accepted)]
    other = await bench.broker()
    assert other
    client2 = await bench.client(broker=1)
    accepted = await client2.submit()
    claims: list[Any] = []
    monkeypatch.setattr(hub.store, "claim", lambda *args: claims.append(args))
    hub.dispatch.wake_all()
    hub.dispatch.run()
    hub.dispatch.poll()
    assert claims == []
    await worker.settle()
    assert not [message for message in worker.seen if isinstance(message, Run)]
    hub.stopping = False
    monkeypatch.undo()
    hub.dispatch.poll()
    assert (await worker.expect(Run)).run_id == accepted


async def test_what_a_peer_reports_is_logged_short_and_seldom(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    client = await bench.client()
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            await client.send(Error("co\nde" * 100, "forged\n09:00:00 CRITICAL all is lost" * 1_000))
        await client.settle()
    lines = [record.getMessage() for record in caplog.records if "reports" in record.getMessage()]
    assert 0 < len(lines) <= sessions.MAX_REPORTS
    assert all(len(line) < 600 and "\n" not in line for line in lines)


async def results(bench: Bench, count: int, size: int) -> list[str]:
    """Ids of runs with such results."""
    client, worker = await bench.client(), await bench.worker(limit=count)
    ids = [await client.submit() for _ in range(count)]
    for run in await worker.runs(count):
        for seq in range(0, size, CHUNK_BYTES):
            await worker.send(Chunk(run.number, seq // CHUNK_BYTES, b"x" * min(CHUNK_BYTES, size - seq)))
        await worker.ws.send(
            pack([["FINISH", run.run_id, run.token, "COMPLETED", "", "", 1, 0.0, run.number]])
        )
    done: set[str] = set()
    while len(done) < count:
        done |= {run_id for run_id, *_ in (await worker.expect(Done)).answers}
    client.drop()
    worker.drop()
    return ids


async def test_deaf_peers_are_cut_although_there_is_no_room_for_their_results(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 4 << 20
    for module in (hub_module, sessions):
        monkeypatch.setattr(module, "MOST_UNSENT_BYTES", most)
    monkeypatch.setattr(sessions, "PLENTY_BYTES", most // 2)
    bench = await make_bench(lease_seconds=60.0, renew_seconds=20.0, write_deadline_seconds=1.0)
    await bench.broker()
    size = 1 << 20
    ids = await results(bench, 30, size)
    hub = hub_of(bench)
    await until(lambda: not hub.peers, what="an empty broker")
    # Each wants two results of its own, ten times as much as there is room for
    deaf = [await slow_client(bench) for _ in range(15)]
    worst = 0
    for number, (client, _) in enumerate(deaf):
        await client.send(Watch(ids[2 * number :][:2]))

    async def cut() -> bool:
        nonlocal worst
        worst = max(worst, hub.unsent)
        return not hub.peers

    await until(cut, 10.0, "the end of all of them")
    assert most / 2 < worst <= most + size + 1_000
    assert hub.unsent == 0
    assert not any(peer.wire.has_data for _, peer in deaf), "kept until the garbage collector finds it"
    # What they missed is in the store, and one who reads gets all of it
    reader = await bench.client()
    await reader.send(Watch(ids))
    seen = {(await reader.expect(RunState)).run_id for _ in ids}
    assert seen == set(ids)


async def test_who_reads_gets_small_results_beside_deaf_peers_and_large_ones_after_them(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (hub_module, sessions):
        monkeypatch.setattr(module, "MOST_UNSENT_BYTES", 1 << 20)
    bench = await make_bench(
        lease_seconds=60.0, renew_seconds=20.0, write_deadline_seconds=2.0, poll_seconds=60.0
    )
    await bench.broker()
    ids = await results(bench, 3, 1 << 20)
    (small,) = await results(bench, 1, 10_000)
    hub = hub_of(bench)
    await until(lambda: not hub.peers, what="an empty broker")
    client, _ = await slow_client(bench)
    await client.send(Watch(ids[:2]))
    await until(lambda: hub.unsent > 1 << 20, what="what waits for a deaf peer")
    reader = await bench.client()
    await reader.send(Watch([ids[2]]))
    await reader.send(Watch([small]))
    assert (await reader.expect(RunState)).run_id == small
    assert len(hub.peers) == 2
    # As soon as the deaf one is cut, not at some poll
    assert (await reader.expect(RunState)).run_id == ids[2]
    assert len(hub.peers) == 1
