"""Fixtures of the store's tests: a driver with a namespace of its own, audited at the end."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from prefect_lite_broker import keys

from prefect_lite.settings import Settings, load_settings
from tests.store.driver import Driver, MakeDriver, Place
from tests.tools.cluster import Cluster
from tests.tools.server import ValkeyServer

SHORT_TIMES: dict[str, Any] = {
    "lease_seconds": 1.5,
    "renew_seconds": 0.5,
    "disconnect_grace_seconds": 0.5,
    "redis_wait_seconds": 5.0,
}

MakeSettings = Callable[..., Settings]


@pytest.fixture
def namespace() -> str:
    """One of its own for each test."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def place(request: pytest.FixtureRequest, namespace: str) -> Place:
    """Where the store is: one server, unless the test is marked with ``EVERYWHERE``.

    In a cluster too it has one shard, which is on ``server``; the namespace's other key is elsewhere.
    """
    if getattr(request, "param", "alone") == "alone":
        server: ValkeyServer = request.getfixturevalue("valkey")
        return Place(server, server.url)
    cluster: Cluster = request.getfixturevalue("cluster")
    return Place(cluster.owner(keys.slot(keys.prefix(namespace, 0))), cluster.url)


@pytest.fixture
def make_settings(place: Place, namespace: str, tmp_path: Path) -> MakeSettings:
    """Settings with short times and this test's namespace; keyword arguments win."""

    def make(**overrides: Any) -> Settings:
        values = {
            "redis_url": place.url,
            "shards": 1,
            "namespace": namespace,
            "home": tmp_path,
            **SHORT_TIMES,
        }
        return load_settings(**{**values, **overrides})

    return make


@pytest.fixture
async def make_driver(place: Place, make_settings: MakeSettings) -> AsyncIterator[MakeDriver]:
    """Starts drivers; keyword arguments are settings, and ``broker_id``. Audits the keys at the end."""
    with place.server.client() as client:
        drivers: list[Driver] = []

        async def make(*, broker_id: str = "broker-1", **overrides: Any) -> Driver:
            driver = Driver(make_settings(**overrides), client, broker_id)
            drivers.append(driver)
            return await driver.start()

        yield make
        for driver in drivers:
            await driver.stop()
        for driver in drivers[:1]:
            driver.audit()
            for key in client.scan_iter(match=f"pl:{{{driver.store.settings.namespace}*"):
                client.delete(key)


@pytest.fixture
async def driver(make_driver: MakeDriver) -> Driver:
    return await make_driver()
