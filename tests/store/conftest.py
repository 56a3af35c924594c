"""Fixtures of the store's tests: a driver with a namespace of its own, audited at the end."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from prefect_lite.settings import Settings, load_settings
from tests.store.driver import Driver, MakeDriver
from tests.tools.server import ValkeyServer

SHORT_TIMES: dict[str, Any] = {
    "lease_seconds": 1.5,
    "renew_seconds": 0.5,
    "disconnect_grace_seconds": 0.5,
    "redis_wait_seconds": 5.0,
}

MakeSettings = Callable[..., Settings]


@pytest.fixture
def make_settings(valkey: ValkeyServer, tmp_path: Path) -> MakeSettings:
    """Settings with short times and this test's namespace; keyword arguments win."""
    namespace = f"t{uuid.uuid4().hex[:12]}"

    def make(**overrides: Any) -> Settings:
        values = {"redis_url": valkey.url, "namespace": namespace, "home": tmp_path, **SHORT_TIMES}
        return load_settings(**{**values, **overrides})

    return make


@pytest.fixture
async def make_driver(valkey: ValkeyServer, make_settings: MakeSettings) -> AsyncIterator[MakeDriver]:
    """Starts drivers; keyword arguments are settings, and ``broker_id``. Audits the keys at the end."""
    with valkey.client() as client:
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
