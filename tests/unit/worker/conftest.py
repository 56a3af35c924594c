"""A worker in this process and a scripted broker at the other end of its connection."""

from __future__ import annotations

import importlib.util
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect_lite_worker.app import WorkerApp

from prefect_lite.embedded.home import load_or_create_keyring
from prefect_lite.settings import Settings, load_settings


def _load(name: str) -> Any:
    """A module beside this file: tests are imported without packages."""
    known = sys.modules.get(name)
    if known is None:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
        assert spec is not None
        assert spec.loader is not None
        known = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(known)
    return known


scripted_broker = _load("scripted_broker")
Serve = Callable[..., WorkerApp]


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Of a private home, with short times, and the address of the scripted broker."""
    # pytest's own directory is too long for a socket.
    with tempfile.TemporaryDirectory(prefix="pl-", dir="/tmp") as runtime:
        yield load_settings(
            home=tmp_path / "home",
            broker_url=f"ws+unix://{runtime}/broker.sock",
            lease_seconds=1.5,
            renew_seconds=0.5,
            hung_seconds=0.3,
            grace_seconds=5.0,
            backoff_max_seconds=0.2,
            max_payload_bytes=200_000,
        )


@pytest.fixture
def broker(settings: Settings) -> Iterator[Any]:
    """A ``ScriptedBroker``."""
    path = Path(settings.broker_url[0].removeprefix("ws+unix://"))
    keyring = load_or_create_keyring(settings)
    with scripted_broker.ScriptedBroker(path, keyring) as running:
        yield running


class Served:
    """A worker that serves in a thread.

    Attributes:
        app: The worker.
        error: What ``serve`` raised, once it has ended.
    """

    def __init__(self, app: WorkerApp) -> None:
        self.app = app
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._serve, name="test-serve")
        self.thread.start()

    def _serve(self) -> None:
        try:
            self.app.serve()
        except BaseException as exc:
            self.error = exc

    def wait(self, timeout: float = 10.0) -> None:
        """Wait until it has ended by itself."""
        self.thread.join(timeout)
        assert not self.thread.is_alive()


@pytest.fixture
def serve(settings: Settings, broker: Any) -> Iterator[Callable[..., Served]]:
    """``serve(*tasks, limit=10, ...)`` starts a worker and returns once it has granted credit."""
    started: list[Served] = []

    def start(*tasks: Any, **arguments: Any) -> Served:
        before = broker.readies
        served = Served(WorkerApp(tasks, settings=settings, **arguments))
        started.append(served)
        scripted_broker.wait_until(lambda: broker.readies > before or served.error is not None)
        return served

    yield start
    for served in started:
        served.app.stop("the test is over", grace_seconds=0.0)
    for served in started:
        served.wait()
