"""The group-commit writer when Redis is away, full, new, or hostile."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect_lite_broker import packing, writer
from prefect_lite_broker.connect import pack_command
from prefect_lite_broker.store import UNREAD, ClaimedRun, SubmitReply

from prefect_lite.exceptions import ConfigurationError, StoreUnavailable
from prefect_lite.settings import load_settings
from tests.store.driver import KEY, Driver, MakeDriver, submission
from tests.tools.server import ValkeyServer
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def server() -> Iterator[ValkeyServer]:
    """A server that the test may kill."""
    own = ValkeyServer(appendfsync="always")
    own.start()
    yield own
    own.close()


@pytest.fixture
async def driver(server: ValkeyServer, tmp_path: Path) -> AsyncIterator[Driver]:
    settings = load_settings(redis_url=server.url, home=tmp_path, redis_wait_seconds=1.0, lease_seconds=60)
    with server.client() as client:
        driver = await Driver(settings, client).start()
        yield driver
        await driver.stop()


async def test_work_of_one_turn_goes_out_in_one_pipeline(driver: Driver) -> None:
    before = dict(driver.store.counters)
    await driver.accepted(250)
    after = driver.store.counters
    assert after["pipelines"] - before["pipelines"] == 1
    assert after["calls"] - before["calls"] == 3
    assert after["largest"] == 100


async def test_a_claim_sees_the_submit_of_the_same_turn(driver: Driver) -> None:
    await driver.worker()
    before = driver.store.counters["pipelines"]
    _, runs = await asyncio.gather(driver.accepted(), driver.claim())
    assert len(runs) == 1
    assert driver.store.counters["pipelines"] == before + 1


async def test_start_and_end_of_one_turn_are_one_write(driver: Driver) -> None:
    await driver.accepted()
    await driver.worker()
    (run,) = await driver.claim()
    before = driver.store.counters["calls"]
    driver.started(run)
    reply = await driver.finish(run, run_seconds=0.5)
    assert driver.store.counters["calls"] == before + 1
    assert reply.state is not None
    assert reply.state.ended_ms - reply.state.started_ms == 500


async def test_redis_killed_and_restarted(driver: Driver, server: ValkeyServer) -> None:
    await driver.accepted(5)
    await driver.worker()
    runs = await driver.claim()
    assert driver.store.healthy
    server.kill()
    commits = [asyncio.ensure_future(driver.finish(run)) for run in runs]
    for run in runs:
        driver.started(run)
    refused = await driver.submit(submission())
    assert [reply.status for reply in refused] == ["unavailable"]
    assert "1 s" in refused[0].text
    with pytest.raises(StoreUnavailable):
        await driver.store.ping()
    assert not driver.store.healthy
    assert not any(commit.done() for commit in commits), "commits are kept"
    server.start()
    assert {reply.status for reply in await asyncio.gather(*commits)} == {"ok"}
    await driver.accepted()
    assert driver.store.healthy
    driver.audit()


async def test_a_writer_goes_on_after_a_fault_of_its_own(
    driver: Driver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> Any:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(driver.store.backlogs[0], "collect", broken)
    await driver.accepted(3)
    assert "the writer of shard 0 failed; it goes on" in caplog.text


async def test_redis_frozen(driver: Driver, server: ValkeyServer) -> None:
    await driver.worker()
    server.freeze()
    try:
        claim = asyncio.ensure_future(driver.claim())
        (reply,) = await driver.submit(submission())
        assert reply.status == "unavailable"
        with pytest.raises(StoreUnavailable):
            await driver.store.stats()
        assert not claim.done()
    finally:
        server.thaw()
    # The refused submit had been sent: it may be there, and if so it is claimed or waits.
    await claim
    await driver.accepted(3)
    driver.audit()


async def test_a_pipeline_without_an_answer_ends_its_connection(
    server: ValkeyServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_lite_broker.writer.EXCHANGE_SECONDS", 0.3)
    settings = load_settings(redis_url=server.url, home=tmp_path, redis_wait_seconds=20.0)
    with server.client() as client:
        driver = await Driver(settings, client).start()
        try:
            await driver.accepted(3)
            server.freeze()
            submitted = asyncio.ensure_future(driver.submit(submission()))
            await until(lambda: driver.store.writers[0].reconnects == 1)
            server.thaw()
            assert (await submitted)[0].status == "accepted", (
                "sent again, and what it stored before is its own"
            )
            driver.audit()
        finally:
            server.thaw()
            await driver.stop()


async def test_an_idle_writer_notices_that_its_connection_was_closed(driver: Driver) -> None:
    await driver.accepted()
    writer = driver.store.writers[0]
    for other in driver.client.client_list(_type="normal"):
        if other["cmd"] not in ("client|list", "client"):
            driver.client.client_kill_filter(_id=other["id"])
    await until(lambda: writer.reconnects == 1 and writer.connected)
    await driver.accepted()


async def test_a_refused_submit_can_be_repeated(driver: Driver, server: ValkeyServer) -> None:
    msg = submission()
    server.freeze()
    try:
        assert (await driver.submit(msg))[0].status == "unavailable"
    finally:
        server.thaw()
    assert (await driver.submit(msg))[0].status in ("accepted", "exists")
    assert list(driver.audit()) == [msg.run_id]


async def test_flushed_scripts_are_loaded_again(driver: Driver) -> None:
    driver.client.script_flush()
    ids = await driver.accepted(120)
    assert (await driver.store.stats())["queues"][0]["length"] == len(ids)


async def test_full_memory(driver: Driver) -> None:
    await driver.accepted(3)
    await driver.worker()
    driver.client.config_set("maxmemory", 1)
    try:
        (reply,) = await driver.submit(submission())
        assert reply.status == "unavailable"
        assert "memory" in reply.text
    finally:
        driver.client.config_set("maxmemory", 0)
    await driver.accepted()
    assert len(await driver.claim()) == 4


async def test_commits_make_room_while_memory_is_full(driver: Driver) -> None:
    """Only new runs are refused."""
    await driver.accepted(6)
    epoch = await driver.worker()
    runs = await driver.claim(limit=5)
    driver.client.config_set("maxmemory", 1)
    try:
        refused = asyncio.ensure_future(driver.submit(submission()))
        driver.started(runs[0])
        assert (await driver.finish(runs[0])).status == "ok"
        assert (await driver.retry(runs[1], 99)).status == "ok"
        assert (await driver.release(runs[2])).status == "ok"
        assert (await driver.cancel(runs[3].run_id)).status == "cancelling"
        assert (await driver.store.renew("w1", epoch, [[runs[3].run_id, runs[3].token]])).status == "ok"
        assert len(await driver.claim()) == 2
        driver.store.log(runs[3].run_id, [[20, 0, "prefect_lite", "not worth it"]])
        await driver.tick()
        driver.client.eval(
            "#!lua flags=allow-oom\nredis.call('ZADD', KEYS[1], 0, 'w1')", 1, driver.prefix + "sessions"
        )
        assert len(await driver.reap()) == 4
        await driver.store.promote()
        await driver.store.retention()
        await driver.worker("w2")
        # Another broker can start.
        other = await Driver(driver.store.settings, driver.client, "broker-2").start()
        await other.stop()
        assert (await refused)[0].status == "unavailable"
        assert driver.store.counters["dropped_logs"] == 1
    finally:
        driver.client.config_set("maxmemory", 0)
    await driver.accepted()
    driver.audit()


async def test_submits_that_memory_was_too_full_for_are_hinted_when_they_are_stored(driver: Driver) -> None:
    driver.client.config_set("maxmemory", 1)
    submitted = asyncio.ensure_future(driver.submit(submission()))
    await until(lambda: driver.store.backlogs[0].full)
    driver.client.config_set("maxmemory", 0)
    assert (await submitted)[0].status == "accepted"
    assert driver.hints.ready == [KEY]


async def test_submits_that_did_not_fit_are_hinted_when_they_are_stored(driver: Driver) -> None:
    await driver.accepted(450)
    assert driver.hints.ready == [KEY]


async def test_submits_are_bounded_by_bytes(server: ValkeyServer, tmp_path: Path) -> None:
    settings = load_settings(
        redis_url=server.url, home=tmp_path, max_pending_bytes=1000, redis_wait_seconds=0.5
    )
    with server.client() as client:
        driver = await Driver(settings, client).start()
        try:
            replies = await driver.submit(*(submission(body=b"x" * 400) for _ in range(4)))
            large = await driver.submit(submission(body=b"x" * 5000))
        finally:
            await driver.stop()
    assert [reply.status for reply in replies] == ["accepted"] * 2 + ["full"] * 2
    assert replies[-1].retry_after_seconds > 0
    assert large[0].status == "accepted", "one is always taken"


async def test_log_lines_that_redis_is_too_slow_for_are_dropped(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefect_lite_broker.redis_store.LOG_BYTES", 10_000)
    (run,) = await driver.accepted()
    for _ in range(20):
        driver.store.log(run, [[20, 0, "prefect_lite", "x" * 1000]])
    assert 0 < driver.store.counters["dropped_logs"] < 20
    kept = len(await driver.store.read_log(run))
    assert kept + driver.store.counters["dropped_logs"] == 20
    driver.store.log(run, [[20, 0, "prefect_lite", "again"]])
    assert len(await driver.store.read_log(run)) == kept + 1


async def test_lookups_over_the_bound_are_answered(server: ValkeyServer, tmp_path: Path) -> None:
    settings = load_settings(redis_url=server.url, home=tmp_path, max_pending_writes=1)
    with server.client() as client:
        driver = await Driver(settings, client).start()
        try:
            states = await asyncio.gather(driver.state("a" * 32), driver.state("b" * 32))
        finally:
            await driver.stop()
    assert [state.type for state in states] == ["", UNREAD]


async def test_cancels_over_the_bound_are_answered(server: ValkeyServer, tmp_path: Path) -> None:
    settings = load_settings(redis_url=server.url, home=tmp_path, max_pending_writes=1)
    with server.client() as client:
        driver = await Driver(settings, client).start()
        try:
            replies = await asyncio.gather(driver.cancel("a" * 32), driver.cancel("b" * 32))
        finally:
            await driver.stop()
    assert [reply.status for reply in replies] == ["unknown", "unavailable"]


async def test_lookups_while_redis_is_away_are_answered(driver: Driver, server: ValkeyServer) -> None:
    server.kill()
    assert (await driver.state("a" * 32)).type == UNREAD
    server.start()
    assert (await driver.state("a" * 32)).type == ""


async def test_read_only_server(driver: Driver) -> None:
    driver.client.replicaof("127.0.0.1", "1")
    waiting = asyncio.ensure_future(driver.submit(submission()))
    await until(lambda: driver.store.writers[0].last_error)
    driver.client.replicaof("NO", "ONE")
    assert (await waiting)[0].status == "accepted"


async def test_a_key_of_a_wrong_type_harms_one_run(driver: Driver) -> None:
    msgs = [submission() for _ in range(5)]
    driver.client.set(f"{driver.prefix}r:{msgs[2].run_id}", "junk")
    replies = await driver.submit(*msgs)
    assert [reply.status for reply in replies] == ["accepted"] * 2 + ["unavailable"] + ["accepted"] * 2
    assert "WRONGTYPE" in replies[2].text
    driver.client.delete(f"{driver.prefix}r:{msgs[2].run_id}")
    driver.audit()


async def test_bounded_submits(server: ValkeyServer, tmp_path: Path) -> None:
    settings = load_settings(
        redis_url=server.url, home=tmp_path, max_pending_writes=10, redis_wait_seconds=0.5
    )
    with server.client() as client:
        driver = await Driver(settings, client).start()
        try:
            replies = await driver.submit(*(submission() for _ in range(15)))
        finally:
            await driver.stop()
    assert [reply.status for reply in replies] == ["accepted"] * 10 + ["full"] * 5
    assert replies[-1].retry_after_seconds > 0


async def test_stop_answers_what_is_in_flight(server: ValkeyServer, tmp_path: Path) -> None:
    settings = load_settings(redis_url=server.url, home=tmp_path)
    with server.client() as client:
        driver = await Driver(settings, client).start()
        replies: list[SubmitReply] = []
        for _ in range(300):
            driver.store.submit(submission(), replies.append)
        await driver.stop()
        assert [reply.status for reply in replies] == ["accepted"] * 300
        assert [reply.status for reply in await driver.submit(submission())] == ["unavailable"]
        with pytest.raises(StoreUnavailable):
            await driver.store.ping()


async def test_stop_while_redis_is_away(server: ValkeyServer, tmp_path: Path) -> None:
    settings = load_settings(redis_url=server.url, home=tmp_path)
    with server.client() as client:
        driver = await Driver(settings, client).start()
        server.kill()
        replies: list[SubmitReply] = []
        driver.store.submit(submission(), replies.append)
        await until(lambda: not driver.store.healthy)
        await driver.stop()
        assert [reply.status for reply in replies] == ["unavailable"]


async def test_no_redis_at_all(tmp_path: Path, server: ValkeyServer) -> None:
    settings = load_settings(redis_url="unix:///nowhere/valkey.sock", home=tmp_path, redis_wait_seconds=0.3)
    with server.client() as client, pytest.raises(StoreUnavailable, match=r"0\.3 s"):
        await Driver(settings, client).start()


async def test_a_namespace_keeps_its_shards(
    make_driver: MakeDriver, driver: Driver, server: ValkeyServer
) -> None:
    settings = driver.store.settings.model_copy(update={"shards": 4})
    with pytest.raises(ConfigurationError, match="PREFECT_LITE_SHARDS=1"):
        await Driver(settings, driver.client).start()


async def test_warnings_about_the_server(make_driver: MakeDriver, valkey: ValkeyServer) -> None:
    driver = await make_driver()
    assert driver.warnings == []
    driver.client.config_set("maxmemory-policy", "allkeys-lru")
    driver.client.config_set("appendonly", "no")
    try:
        warnings = (await make_driver(broker_id="broker-2")).warnings
    finally:
        driver.client.config_set("maxmemory-policy", "noeviction")
        driver.client.config_set("appendonly", "yes")
    assert "noeviction" in warnings[0]
    assert "appendonly" in warnings[1]


async def test_several_shards(make_driver: MakeDriver) -> None:
    driver = await make_driver(shards=4)
    ids = await driver.accepted(40)
    epoch = await driver.worker()
    taken: list[ClaimedRun] = []
    for shard in range(4):
        answer = asyncio.get_running_loop().create_future()
        driver.store.claim("w1", epoch, shard, 1, 100, answer.set_result)
        taken += (await answer).runs
    assert sorted(run.run_id for run in taken) == sorted(ids)
    assert (await driver.store.stats())["held"] == 40
    held = [[run.run_id, run.token] for run in taken]
    assert (await driver.store.renew("w1", epoch, held)).revoked == []
    resumed = await driver.store.resume_session("w1", b"digest")
    assert resumed is not None
    assert sorted(resumed.held) == sorted(held)
    assert {(await driver.finish(run)).status for run in taken} == {"ok"}
    assert set(await driver.types(ids)) == {"COMPLETED"}
    assert await driver.store.close_session("w1", resumed.epoch) == []


async def test_a_large_body_or_result_is_not_copied_for_redis(
    driver: Driver, monkeypatch: pytest.MonkeyPatch
) -> None:
    lengths: list[int] = []

    def counted(words: tuple[Any, ...]) -> bytes:
        packed = pack_command(words)
        lengths.append(len(packed))
        return packed

    for module in (writer, packing):
        monkeypatch.setattr(module, "pack_command", counted)
    alone, through, result = (os.urandom(3 << 20) for _ in range(3))
    await driver.worker()
    await driver.submit(submission(body=alone), submission(), submission(body=b"\r\n" * 40_000))
    runs = [*await driver.claim(), *await driver.claim()]  # a claim takes only so many bytes
    assert [run.body for run in runs] == [alone, b"body", b"\r\n" * 40_000]
    _, reply = await driver.write_through([submission(body=through)])
    assert [run.body for run in reply.runs] == [through]
    await asyncio.gather(*(driver.finish(run, result=result) for run in runs))
    assert (await driver.state(runs[1].run_id)).result == result
    assert max(lengths) < 200_000
    driver.audit()
