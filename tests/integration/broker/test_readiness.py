"""``/readyz`` tells whether a run could be accepted just now; ``/healthz`` only that the process lives."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prefect_lite_broker.app import Broker
from prefect_lite_broker.auth import Auth
from prefect_lite_broker.redis_store import RedisStore

from prefect_lite.exceptions import ConfigurationError
from tests.integration.broker.bench import Bench
from tests.integration.broker.raw_peer import TOKENS
from tests.tools.server import ValkeyServer
from tests.tools.waiting import until

pytestmark = pytest.mark.anyio

ANSWER_SECONDS = 1.5


@pytest.fixture
async def scene(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[tuple[ValkeyServer, Broker]]:
    server = ValkeyServer()
    server.start()
    # Without traffic of its own: the question has to find out by itself.
    bench = Bench(server.url, server.directory, redis_wait_seconds=0.5, reap_seconds=600.0)
    await bench.broker()
    yield server, bench.brokers[0]
    await bench.close()
    server.close()


async def get(broker: Broker, path: str) -> tuple[int, str]:
    """Status and body."""
    reader, writer = await asyncio.open_unix_connection(broker.addresses[0].removeprefix("ws+unix://"))
    writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    head, _, body = (await asyncio.wait_for(reader.read(), 5)).decode().partition("\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    return int(head.split()[1]), body


async def readiness(broker: Broker) -> tuple[int, str]:
    """Status and reason, within the time a probe has."""
    began = time.monotonic()
    status, body = await get(broker, "/readyz")
    assert time.monotonic() - began < ANSWER_SECONDS
    facts = json.loads(body)
    assert facts["ready"] == (status == 200) == (not facts["reason"])
    assert await get(broker, "/healthz") == (200, "ok\n")
    return status, facts["reason"]


async def becomes_ready(broker: Broker) -> None:
    async def ready() -> bool:
        return (await readiness(broker))[0] == 200

    await until(ready)


def refuse(name: str, server: ValkeyServer) -> Callable[[], Any]:
    """Have Redis refuse runs; the result ends it."""
    client = server.client()
    if name == "memory":
        client.config_set("maxmemory", 1)
        return lambda: (client.config_set("maxmemory", 0), client.close())
    if name == "replica":
        client.replicaof("127.0.0.1", "1")
        return lambda: (client.replicaof("NO", "ONE"), client.close())
    server.freeze()
    return lambda: (server.thaw(), client.close())


@pytest.mark.parametrize(
    ("name", "word"), [("memory", "maxmemory"), ("replica", "replica"), ("frozen", "answer")]
)
async def test_a_redis_that_takes_no_runs(scene: tuple[ValkeyServer, Broker], name: str, word: str) -> None:
    server, broker = scene
    assert await readiness(broker) == (200, "")
    end = refuse(name, server)
    try:
        for _ in range(3):
            status, reason = await readiness(broker)
            assert status == 503
            assert word in reason
    finally:
        end()
    await becomes_ready(broker)


async def test_a_redis_that_is_gone(scene: tuple[ValkeyServer, Broker]) -> None:
    server, broker = scene
    server.kill()
    assert (await readiness(broker))[0] == 503

    async def told() -> bool:
        return "Redis is not reachable" in (await readiness(broker))[1]

    await until(told)
    server.start()
    await becomes_ready(broker)


async def test_hints_that_are_not_subscribed(
    scene: tuple[ValkeyServer, Broker], monkeypatch: pytest.MonkeyPatch
) -> None:
    server, broker = scene
    with server.client() as client:
        client.execute_command("ACL", "SETUSER", "default", "-ssubscribe")
        client.client_kill_filter(_type="pubsub")

        async def told() -> bool:
            return (await readiness(broker)) == (503, "The wake-up hints are not subscribed.")

        await until(told)
        client.execute_command("ACL", "SETUSER", "default", "+ssubscribe")
    await becomes_ready(broker)


async def test_a_broker_that_stops(scene: tuple[ValkeyServer, Broker]) -> None:
    broker = scene[1]
    hub = broker._hub
    assert hub is not None
    hub.stopping = True
    assert await readiness(broker) == (503, "The broker is stopping.")
    hub.stopping = False


async def test_many_ask_and_redis_is_asked_once(scene: tuple[ValkeyServer, Broker]) -> None:
    server, broker = scene
    server.freeze()
    try:
        answers = await asyncio.gather(*(readiness(broker) for _ in range(30)))
        assert {status for status, _ in answers} == {503}
        assert broker._store.counters["pending"] < 10
    finally:
        server.thaw()
    await becomes_ready(broker)


async def test_missing_replicas_are_warned_of_and_refused_if_strict(
    scene: tuple[ValkeyServer, Broker], caplog: pytest.LogCaptureFixture
) -> None:
    server = scene[0]
    directory = server.directory / "other"
    directory.mkdir()
    bench = Bench(
        server.url, directory, redis_wait_replicas=1, redis_wait_replicas_seconds=0.1, redis_wait_seconds=0.5
    )
    store = RedisStore(bench.settings, "broker-9")
    with pytest.raises(ConfigurationError, match="0 replicas are attached, but 1 have to confirm"):
        await Broker(bench.settings, store, broker_id="broker-9", auth=Auth(TOKENS), strict=True).start()
    warned = await bench.broker()
    try:
        assert "0 replicas are attached" in caplog.text
        status, reason = await readiness(warned)
        assert status == 503
        assert "0 of 1 replicas" in reason
    finally:
        await bench.close()
