"""A real broker in the test's own loop, on a real Valkey, and raw peers connected to it."""

from __future__ import annotations

import uuid
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import redis
from prefect_lite_broker.app import Broker
from prefect_lite_broker.auth import Auth
from prefect_lite_broker.redis_store import RedisStore

from prefect_lite.settings import Settings, load_settings
from tests.integration.broker.raw_peer import TOKENS, RawPeer, dial

SHORT_TIMES: dict[str, Any] = {
    "lease_seconds": 1.5,
    "renew_seconds": 0.5,
    "disconnect_grace_seconds": 0.3,
    "reap_seconds": 0.1,
    "poll_seconds": 0.5,
    "audit_seconds": 0.05,
    "handshake_timeout_seconds": 5.0,
    "write_deadline_seconds": 1.0,
}


class Bench:
    """Brokers on one Redis and namespace, and peers connected to them."""

    def __init__(self, redis_url: str, directory: Path, **overrides: Any) -> None:
        self._redis_url = redis_url
        self.namespace = f"t{uuid.uuid4().hex[:10]}"
        self.directory = directory
        self.values: dict[str, Any] = {
            **SHORT_TIMES,
            "redis_url": redis_url,
            "namespace": self.namespace,
            "home": directory,
            **overrides,
        }
        self.brokers: list[Broker] = []
        self.peers: list[RawPeer] = []
        self._stack = AsyncExitStack()

    @property
    def settings(self) -> Settings:
        return load_settings(**self.values)

    def redis(self) -> redis.Redis:
        """A plain client, to look behind the brokers' back."""
        return redis.Redis.from_url(self._redis_url)

    async def broker(self, *, tcp: bool = False, **overrides: Any) -> Broker:
        """Start one more broker."""
        number = len(self.brokers) + 1
        self.values.update(overrides)
        settings = self.settings
        broker = Broker(
            settings,
            RedisStore(settings, f"broker-{number}"),
            broker_id=f"broker-{number}",
            auth=Auth(TOKENS),
        )
        await broker.start(
            unix_path=str(self.directory / f"b{number}.sock"), host="127.0.0.1", port=0 if tcp else None
        )
        self._stack.push_async_callback(broker.stop)
        self.brokers.append(broker)
        return broker

    async def stranger(self, role: str = "client", broker: int = 0) -> RawPeer:
        """A connection with the role's token that has not said HELLO."""
        peer = RawPeer(await dial(self.brokers[broker].addresses[0], token=TOKENS[role]))
        self.peers.append(peer)
        return peer

    async def client(self, broker: int = 0, role: str = "client") -> RawPeer:
        peer = await self.stranger(role, broker)
        await peer.hello(role, self.namespace)
        return peer

    async def worker(self, *task_keys: str, limit: int = 10, broker: int = 0) -> RawPeer:
        """A worker that serves ``tasks.add`` unless told otherwise."""
        peer = await self.stranger("worker", broker)
        await peer.hello("worker", self.namespace)
        await peer.serve(*(task_keys or ("tasks.add",)), limit=limit)
        return peer

    async def close(self) -> None:
        for peer in self.peers:
            peer.drop()
        await self._stack.aclose()


BenchMaker = Callable[..., Awaitable[Bench]]
