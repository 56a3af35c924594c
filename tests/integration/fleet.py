"""Several brokers on one Redis, with workers and clients, as real processes."""

from __future__ import annotations

import os
import shutil
import signal
import urllib.request
from collections.abc import Collection
from functools import partial
from pathlib import Path
from typing import Any

from tests.chaos.history import USUAL_ENDS, History, Report
from tests.chaos.truth import read_truth
from tests.integration.harness import PrivateHome, Running, wait_until
from tests.tools.consistency import assert_consistent, assert_never_repaired
from tests.tools.server import ValkeyServer, free_port

REPOSITORY = Path(__file__).resolve().parents[2]


class Fleet(PrivateHome):
    """Brokers ``b0``, ``b1``, ... share a Valkey and a namespace; each listens on a fixed TCP port.

    Brokers, workers and clients are started through ``tests.chaos.run``, which runs the real entry point
    and writes the history that ``tests.chaos.history`` reads.

    Args:
        directory: A temporary directory.
        brokers: How many addresses there are; ``start_brokers`` starts a broker on each.
        server: Used instead of a Valkey of its own, and left running.
        redis_url: The same for a server that is no ``ValkeyServer``.
        overrides: Settings for every process.

    Attributes:
        server: The Valkey, or None with ``redis_url``.
        ports: TCP port of each broker, kept over restarts.
        brokers: The running broker at each address, or None.
        history: Where the processes write what they did.
    """

    def __init__(
        self,
        directory: Path,
        brokers: int = 3,
        *,
        server: ValkeyServer | None = None,
        redis_url: str = "",
        **overrides: Any,
    ) -> None:
        self._own_server = server is None and not redis_url
        if self._own_server:
            server = ValkeyServer()
            server.start()
        self.server = server
        self.ports = [free_port() for _ in range(brokers)]
        self.brokers: list[Running | None] = [None] * brokers
        self.redis_url = redis_url or (server.url if server is not None else "")
        values: dict[str, Any] = {
            "namespace": f"t{os.urandom(5).hex()}",
            "poll_seconds": 0.5,
            "backoff_max_seconds": 1.0,
            "redis_url": self.redis_url,
            "broker_url": ",".join(self.urls),
            **overrides,
        }
        super().__init__(directory, **values)
        self.history = directory / "history"
        self.history.mkdir()
        self.env["PREFECT_LITE_TEST_HISTORY"] = str(self.history)
        code = (REPOSITORY, REPOSITORY / "worker", REPOSITORY / "broker", self.project)
        self.env["PYTHONPATH"] = os.pathsep.join(map(str, code))

    @property
    def urls(self) -> list[str]:
        return [f"ws://127.0.0.1:{port}" for port in self.ports]

    # -- processes --------------------------------------------------------------------------------

    def start_brokers(self, *args: str) -> None:
        """One at every address, and wait until all are ready."""
        for number in range(len(self.ports)):
            self.start_broker(number, *args, wait=number == 0)  # the first makes tokens and keyring
        for number in range(1, len(self.ports)):
            self.wait_ready(number)

    def start_broker(self, number: int, *args: str, wait: bool = True) -> Running:
        """Start the broker of an address (again)."""
        broker = self.start(
            f"b{number}", "-m", "tests.chaos.run", "broker", "--port", str(self.ports[number]), *args
        )
        self.brokers[number] = broker
        if wait:
            self.wait_ready(number)
        return broker

    def start_worker(self, module: str, *args: str, urls: list[str] | None = None) -> Running:
        """``prefect-lite worker MODULE ...``, on the brokers at ``urls`` (all of them by default)."""
        command = ["-m", "tests.chaos.run", "worker", module, *args]
        before = self.env["PREFECT_LITE_BROKER_URL"]
        if urls is not None:
            self.env["PREFECT_LITE_BROKER_URL"] = ",".join(urls)
        try:
            return self.start("worker", *command)
        finally:
            self.env["PREFECT_LITE_BROKER_URL"] = before

    def start_client(self, script: Path, *args: str, urls: list[str] | None = None) -> Running:
        """Run a script whose submits and outcomes are recorded."""
        command = ["-m", "tests.chaos.run", "client", str(script), *args]
        before = self.env["PREFECT_LITE_BROKER_URL"]
        if urls is not None:
            self.env["PREFECT_LITE_BROKER_URL"] = ",".join(urls)
        try:
            return self.start("client", *command)
        finally:
            self.env["PREFECT_LITE_BROKER_URL"] = before

    # -- brokers ----------------------------------------------------------------------------------

    def is_ready(self, number: int) -> bool:
        """What ``/readyz`` of a broker says."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.ports[number]}/readyz", timeout=2) as answer:
                return answer.status == 200
        except OSError:
            return False

    def wait_ready(self, number: int, timeout: float = 15.0) -> None:
        broker = self.brokers[number]

        def ready() -> bool:
            assert broker is None or broker.process.poll() is None, f"b{number} ended:\n{broker.output}"
            return self.is_ready(number)

        wait_until(ready, timeout, f"broker b{number}")

    def kill_broker_at(self, number: int) -> None:
        """SIGKILL."""
        broker = self.brokers[number]
        assert broker is not None
        broker.kill()
        self.brokers[number] = None

    def stop_broker_at(self, number: int, timeout: float = 15.0) -> int:
        """SIGTERM, and wait for its end; returns the exit code."""
        broker = self.brokers[number]
        assert broker is not None
        broker.signal(signal.SIGTERM)
        code = broker.wait(timeout)
        self.brokers[number] = None
        return code

    # -- history ----------------------------------------------------------------------------------

    def report_history(self, *, ends: Collection[str] = USUAL_ENDS) -> Report:
        """What the history checker says, with Redis's own word on how each run has ended."""
        return History(self.history, partial(read_truth, self.settings), ends=ends).report()

    def check_history(self, *, ends: Collection[str] = USUAL_ENDS) -> Report:
        """The report; every promise must have been kept.

        Args:
            ends: How runs may end of which no client wrote what it expects.

        Raises:
            AssertionError: Something was lost, ended unexpectedly or twice, or started again without a cause;
                or the brokers' audit has found, or finds now, a run whose state and queue disagree.
        """
        report = History(self.history, partial(read_truth, self.settings), ends=ends).check()
        if self.server is not None:
            with self.server.client() as client:
                namespace, shards = self.settings.namespace, self.settings.shards or 1
                assert_consistent(client, namespace, shards)
                assert_never_repaired(client, namespace, shards)
        return report

    def logs(self) -> str:
        """What every process printed, for a failing test."""
        parts = [f"--- {one.name} {one.pid}\n{one.output[-4000:]}" for one in self._running]
        return "\n".join(parts)

    def close(self) -> None:
        try:
            super().close()
        finally:
            if self._own_server and self.server is not None:
                self.server.close()
            shutil.rmtree(self.history, ignore_errors=True)
