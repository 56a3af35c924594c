"""What questions with bodies may cost a broker, whoever asks them."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any, cast

import msgpack
import pytest
from prefect_lite_broker import hub as hub_module
from prefect_lite_broker import sessions
from prefect_lite_broker.bodies import LARGE_BYTES
from prefect_lite_broker.hub import Hub
from prefect_lite_broker.verbs import MAX_QUERIES

from prefect_lite.protocol.codec import CHUNK_BYTES
from prefect_lite.protocol.messages import Answer, Chunk, Done, Finish, Query, Renew, Revoke
from tests.integration.broker.bench import Bench, BenchMaker
from tests.integration.broker.raw_peer import RawPeer
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

pack = cast("Callable[[Any], bytes]", msgpack.packb)
MIB = 1 << 20


@pytest.fixture
async def bench(make_bench: BenchMaker) -> Bench:
    """A broker that cuts nobody who waits for a Redis with much to write to a slow disk."""
    bench = await make_bench(lease_seconds=15.0, renew_seconds=5.0)
    await bench.broker()
    return bench


def hub_of(bench: Bench) -> Hub:
    hub = bench.brokers[0]._hub
    assert hub is not None
    return hub


async def put(peer: RawPeer, request: int, key: str, body: bytes) -> None:
    """Send a body in pieces, whatever its length, and the question about it."""
    pieces = range(0, len(body), CHUNK_BYTES)
    for seq, start in enumerate(pieces):
        await peer.send(Chunk(request, seq, body[start : start + CHUNK_BYTES]))
    await peer.ws.send(pack([["QUERY", request, "keep.put", [key, 60.0, None], request if body else b""]]))


async def answer(peer: RawPeer, request: int) -> Answer:
    return await peer.expect(Answer, lambda message: message.request == request)


async def body_of(peer: RawPeer, request: int) -> bytes:
    """The body of an answer, put together by hand."""
    stream = (await answer(peer, request)).body
    if not isinstance(stream, int):
        return stream or b""
    pieces = [chunk for chunk in peer.inbox if isinstance(chunk, Chunk) and chunk.stream == stream]
    peer.inbox = [message for message in peer.inbox if not isinstance(message, Chunk)]
    peer.seen = [message for message in peer.seen if not isinstance(message, Chunk)]
    return b"".join(chunk.data for chunk in sorted(pieces, key=lambda chunk: chunk.seq))


async def saved_blocks(bench: Bench, count: int) -> list[str]:
    client = await bench.client()
    names = [f"block-{number}" for number in range(count)]
    for number, name in enumerate(names, 1):
        await client.ws.send(pack([["QUERY", number, "block.put", ["kind", name, True], bytes(CHUNK_BYTES)]]))
        assert (await answer(client, number)).value is True
    return names


async def saved(bench: Bench, count: int, size: int) -> list[str]:
    client = await bench.client()
    names = [f"entry-{number}" for number in range(count)]
    for number, name in enumerate(names, 1):
        await put(client, number, name, bytes(size))
        assert (await answer(client, number)).value is True
    client.drop()
    await until(lambda: not hub_of(bench).peers, what="an empty broker")
    return names


@pytest.mark.parametrize("role", ["client", "worker", "admin"])
async def test_any_role_keeps_and_reads(bench: Bench, role: str) -> None:
    peer = await bench.client(role=role)
    for request, size in enumerate((0, 1, LARGE_BYTES, LARGE_BYTES + 1, CHUNK_BYTES + 1, 5 * MIB), 1):
        body = os.urandom(size)
        await put(peer, request, "key", body)
        assert await answer(peer, request) == Answer(request, True, True)
        await peer.send(Query(100 + request, "keep.get", ["key"]))
        assert await body_of(peer, 100 + request) == body
    assert hub_of(bench).unsent == hub_of(bench).bodies.asked == 0


async def test_an_entry_that_another_broker_took_is_too_long_for_this_one(make_bench: BenchMaker) -> None:
    bench = await make_bench(lease_seconds=15.0, renew_seconds=5.0)
    await bench.broker()
    await bench.broker(max_payload_bytes=1_000)
    first, second = await bench.client(), await bench.client(broker=1)
    await put(first, 1, "key", bytes(100_000))
    assert (await answer(first, 1)).ok
    await second.send(Query(1, "keep.get", ["key"]))
    refused = await answer(second, 1)
    assert (refused.ok, refused.value[0]) == (False, "payload_too_large")


async def test_deaf_peers_have_little_memory_of_a_broker_and_not_for_long(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    most, size = 4 * MIB, MIB
    for module in (hub_module, sessions):
        monkeypatch.setattr(module, "MOST_UNSENT_BYTES", most)
    monkeypatch.setattr(sessions, "PLENTY_BYTES", most // 2)
    bench = await make_bench(lease_seconds=60.0, renew_seconds=20.0, write_deadline_seconds=1.0)
    await bench.broker()
    names = await saved(bench, 4, size)
    hub, worst = hub_of(bench), 0
    for _ in range(15):
        deaf = await bench.client()
        deaf.ws.transport.pause_reading()
        # Ten times as much as there is room for, of all of them together
        await deaf.send(*(Query(number, "keep.get", [name]) for number, name in enumerate(names, 1)))

    async def over() -> bool:
        """Each was cut by the deadline of its frames, or told that there was no room."""
        nonlocal worst
        worst = max(worst, hub.unsent)
        return hub.unsent == 0 and not hub.bodies._waiting

    await until(lambda: hub.unsent > 0, what="the first of them")
    await until(over, 15.0, "the end of all of them")
    assert most / 2 < worst <= most + size + 1_000
    reader = await bench.client()
    for number, name in enumerate(names, 1):
        await reader.send(Query(number, "keep.get", [name]))
        assert len(await body_of(reader, number)) == size


async def test_deaf_peers_have_no_more_memory_for_blocks(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = 2 * MIB
    for module in (hub_module, sessions):
        monkeypatch.setattr(module, "MOST_UNSENT_BYTES", most)
    monkeypatch.setattr(sessions, "PLENTY_BYTES", most // 2)
    bench = await make_bench(lease_seconds=60.0, renew_seconds=20.0, write_deadline_seconds=1.0)
    await bench.broker()
    names = await saved_blocks(bench, 8)
    hub, worst = hub_of(bench), 0
    deaf = [await bench.client() for _ in range(10)]
    for peer in deaf:
        peer.ws.transport.pause_reading()
        questions = (Query(number, "block.get", ["kind", name]) for number, name in enumerate(names, 1))
        await peer.send(*questions)

    async def over() -> bool:
        nonlocal worst
        worst = max(worst, hub.unsent)
        return hub.unsent == 0 and not hub.bodies._waiting

    await until(lambda: hub.unsent > 0, what="the first of them")
    await until(over, 15.0, "the end of all of them")
    assert most / 2 < worst <= most + CHUNK_BYTES + 1_000
    reader = await bench.client()
    await reader.send(Query(1, "block.get", ["kind", names[0]]))
    assert len(await body_of(reader, 1)) == CHUNK_BYTES


async def test_one_slow_peer_has_little_read_for_it_at_a_time(make_bench: BenchMaker) -> None:
    bench = await make_bench(write_deadline_seconds=300.0, lease_seconds=300.0, renew_seconds=100.0)
    await bench.broker()
    (name,) = await saved(bench, 1, 3 * MIB)
    hub = hub_of(bench)
    slow = await bench.client()
    slow.ws.transport.pause_reading()
    await slow.send(*(Query(number, "keep.get", [name]) for number in range(1, MAX_QUERIES + 1)))
    await until(lambda: hub.unsent >= 2 * 3 * MIB, what="what is read for it")
    quick = await bench.client()
    for number in range(1, 6):
        await quick.send(Query(number, "keep.get", [name]))
        assert len(await body_of(quick, number)) == 3 * MIB
        assert hub.unsent <= sessions.BACKLOG_BYTES + 3 * MIB
    slow.ws.transport.resume_reading()
    for number in range(1, MAX_QUERIES + 1):
        assert (await answer(slow, number)).ok, "it waited, and was not refused"
    await until(lambda: hub.unsent == 0, what="nothing is on its way")


async def test_bodies_that_wait_cost_others_nothing(
    make_bench: BenchMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = await make_bench(write_deadline_seconds=300.0, lease_seconds=300.0, renew_seconds=100.0)
    await bench.broker()
    (name,) = await saved(bench, 1, 5 * MIB)
    hub = hub_of(bench)
    deaf, quick = await bench.client(), await bench.client()
    deaf.ws.transport.pause_reading()
    await deaf.send(*(Query(number, "keep.get", [name]) for number in range(1, MAX_QUERIES + 1)))
    await until(lambda: bool(hub.bodies._waiting) and hub.unsent > 4 * MIB, what="bodies that wait")
    looks = 0
    fits = sessions.Peer.fits

    def counted(peer: sessions.Peer, size: int) -> bool:
        nonlocal looks
        looks += 1
        return fits(peer, size)

    monkeypatch.setattr(sessions.Peer, "fits", counted)
    for number in range(1, 201):
        await quick.send(Query(number, "keep.has", [name]))
        assert (await answer(quick, number)).value is True
    assert hub.bodies._waiting
    assert looks < 100, "fourteen wait, and were looked at for each of two hundred answers"


async def test_a_peer_that_goes_while_its_bodies_are_read_leaves_nothing(bench: Bench) -> None:
    (name,) = await saved(bench, 1, 8 * MIB)
    hub = hub_of(bench)
    for _ in range(10):
        client = await bench.client()
        await client.send(*(Query(number, "keep.get", [name]) for number in range(1, 9)))
        await until(lambda: hub.unsent > 0, what="something is read")
        client.drop()
    await until(lambda: not hub.peers and hub.unsent == 0, what="nothing is on its way")
    assert not hub.bodies._waiting


async def test_without_room_for_the_body_of_a_question_it_is_to_be_asked_again(bench: Bench) -> None:
    hub = hub_of(bench)
    hub.bodies.take(bench.settings.max_pending_bytes)  # as if Redis were slow
    client = await bench.client()
    await put(client, 1, "key", bytes(CHUNK_BYTES))
    refused = await answer(client, 1)
    assert (refused.ok, refused.value[0]) == (False, "busy")
    await client.send(Query(2, "keep.has", ["key"]))
    assert await answer(client, 2) == Answer(2, True, False)
    hub.bodies.give_back(bench.settings.max_pending_bytes)
    await put(client, 3, "key", bytes(CHUNK_BYTES))
    assert (await answer(client, 3)).ok


async def test_a_worker_keeps_its_leases_while_it_reads_and_writes_large_bodies(
    make_bench: BenchMaker,
) -> None:
    bench = await make_bench(lease_seconds=6.0, renew_seconds=0.5)
    await bench.broker()
    (name,) = await saved(bench, 1, 4 * MIB)
    client, worker = await bench.client(), await bench.worker()
    await client.submit()
    (run,) = await worker.runs(1)
    async with worker.beating(bench.settings.renew_seconds / 2, [run]):
        for number in range(1, 10):
            await worker.send(Query(number, "keep.get", [name]))
            assert len(await body_of(worker, number)) == 4 * MIB
            await put(worker, 10 + number, "another", bytes(4 * MIB))
            assert (await answer(worker, 10 + number)).ok
    assert all(not message.leases for message in worker.seen if isinstance(message, Revoke))
    await worker.send(Renew(run.number, [[run.run_id, run.token]]))
    await worker.send(Finish(run.run_id, run.token, "COMPLETED", "", "", 1, 0.1, b"result"))
    assert (await worker.expect(Done)).answers == [[run.run_id, run.token, "ok"]]


async def test_hostile_questions_leave_the_connection_and_no_trace(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    client = await bench.client()
    hostile: list[tuple[str, Any, Any]] = [
        ("keep.put", ["k", 1.0, None], "text"),
        ("keep.put", ["k", float("nan"), None], b"x"),
        ("keep.put", ["k" * 5_000, None, None], b"x"),
        ("keep.put", {"key": "k"}, b"x"),
        ("keep.get", ["k"], b"x"),
        ("lock.take", ["k", "me", float("inf")], None),
        ("lock.take", ["k", "me", 1e18], None),
        ("lock.take", ["k", "\x00" * 1_000, 5], None),
        ("block.put", ["../../etc", "passwd", True], b"x"),
        ("block.put", ["kind", "name", True], bytes(CHUNK_BYTES)),
        ("block.list", "\x00" * 100_000, None),
    ]
    for request, (what, arg, body) in enumerate(hostile, 1):
        await client.ws.send(pack([["QUERY", request, what, arg, body]]))
        said = await answer(client, request)
        assert said.ok is (what == "block.put" and arg[0] == "kind"), said
    await client.send(Query(99, "block.drop", ["kind", "name", None]))
    assert (await answer(client, 99)).value is True
    assert "Traceback" not in caplog.text
    assert "failed on" not in caplog.text
