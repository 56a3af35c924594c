"""A client of its own for each test, and a scripted broker for it to talk to."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefect_lite.client.runtime import close_runtime
from prefect_lite.embedded import load_or_create_keyring
from prefect_lite.local_runs import close_threads
from prefect_lite.settings import get_settings
from prefect_lite.waiting import close_callbacks
from tests.unit.sdk.scripted_broker import ScriptedBroker


@pytest.fixture
def client_home(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home directory, short times, and no client before or after."""
    folder = Path(tempfile.mkdtemp(prefix="pl-", dir="/tmp"))  # pytest's own is too long for a socket
    values = {
        "HOME": folder,
        "RUNTIME_DIR": folder / "run",
        "BROKER_URL": f"ws+unix://{folder}/b.sock",
        "CONNECT_TIMEOUT_SECONDS": 5,
        "BACKOFF_MIN_SECONDS": 0.01,
        "BACKOFF_MAX_SECONDS": 0.05,
        "WATCH_REFRESH_SECONDS": 0.2,
        "CLIENT_TOKEN": "client-token",
    }
    for name, value in values.items():
        monkeypatch.setenv(f"PREFECT_LITE_{name}", str(value))
    close_runtime()
    get_settings.cache_clear()  # type: ignore[attr-defined]
    yield folder
    close_runtime()
    close_callbacks()
    close_threads()
    get_settings.cache_clear()  # type: ignore[attr-defined]
    shutil.rmtree(folder)


@pytest.fixture
def broker(client_home: Path) -> Iterator[ScriptedBroker]:
    """Listening where this process's client will look for it."""
    scripted = ScriptedBroker(client_home, load_or_create_keyring(get_settings()))
    scripted.start()
    yield scripted
    close_runtime()
    scripted.close()
